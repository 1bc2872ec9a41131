"""A run that was cut, or that found no board, goes on where that is safe."""

import pytest

from controller.ops.flash.journal import JOURNAL
from controller.ops.flash.recovery import NotInRecoveryError
from controller.ops.flash.work import NotConfirmedError
from controller.ops.steps import StepError
from tests.flash.conftest import Bench
from tests.flash.test_flow import ORDER

PREREQUISITES, BINARIES, USER, FLASH = ORDER


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (PREREQUISITES, [PREREQUISITES, *ORDER]),
        (BINARIES, [PREREQUISITES, BINARIES, *ORDER]),
        (USER, [PREREQUISITES, BINARIES, USER, *ORDER]),
        (FLASH, [*ORDER, FLASH]),
    ],
)
def test_a_run_that_was_cut_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: str, expected: list[str]) -> None:
    """What was killed begins anew where that is safe: a half-filled root file system is unpacked again, a flash repeated."""
    bench.plug_in("7523")
    monkeypatch.setenv("STANDIN_CUT", cut)
    with pytest.raises(StepError):
        bench.flash()
    assert bench.flashed() is None

    monkeypatch.delenv("STANDIN_CUT")
    bench.flash()

    assert expected == bench.tools()
    assert bench.flashed() is not None


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ((), "no Jetson is connected"),
        (("7020",), r"a Jetson runs .* but is not in recovery mode"),
        (("7035",), r"a Jetson runs .* but is not in recovery mode"),
        (("7323",), "wanted Jetson Orin Nano 8 GB Developer Kit .*BOARD=jetson-orin-nx-16gb"),
        (("7026",), "wanted Jetson Orin Nano 8 GB Developer Kit .*Jetson AGX Thor Developer Kit"),
        (("7523", "7523"), "2 boards are in recovery mode"),
    ],
)
def test_a_board_that_is_not_there_costs_nothing(bench: Bench, products: tuple[str, ...], said: str) -> None:
    """Everything is prepared and nothing written; once the right board is there, the next call only flashes."""
    bench.plug_in(*products)
    with pytest.raises(NotInRecoveryError, match=said):
        bench.flash()
    assert ORDER[:-1] == bench.tools()

    bench.plug_in("7523")
    bench.flash()

    assert ORDER == bench.tools()


def test_another_password_is_another_board(bench: Bench) -> None:
    """Whoever changes his mind about the password before the board is there flashes the new one, and the same one once."""
    for password in ("correct horse", "battery staple", "battery staple"):
        with pytest.raises(NotInRecoveryError):
            bench.flash(PASSWORD=password)

    assert 2 == bench.tools().count(USER)


def test_a_person_is_asked_once_before_a_board_is_written(bench: Bench) -> None:
    """Anything but the board's name leaves the board as it was; the name writes it."""
    bench.plug_in("7523")
    asked: list[str] = []
    bench.answer = lambda text: asked.append(text) or "yes"
    with pytest.raises(NotConfirmedError, match="nothing was written: wanted 'jetson-orin-nano', got 'yes'"):
        bench.flash(YES="")
    assert bench.flashed() is None
    assert 1 == len(asked)
    assert "everything on its disk is lost" in asked[0]

    bench.answer = lambda _text: "jetson-orin-nano\n"
    bench.flash(YES="")

    assert bench.flashed() is not None


def test_the_licence_is_accepted_by_a_person(bench: Bench) -> None:
    """NVIDIA's licence is shown before anything is unpacked, and it is not accepted for anybody."""
    with pytest.raises(NotConfirmedError, match="wanted 'accept'"):
        bench.flash(ACCEPT_LICENSE="")

    assert not bench.work.exists()


def test_a_second_board_is_only_flashed(bench: Bench) -> None:
    """The same preparation serves the next board."""
    bench.plug_in("7523")
    bench.flash()
    bench.flash()

    assert [*ORDER, FLASH] == bench.tools()


def test_a_new_package_is_installed_over_the_old_one(bench: Bench) -> None:
    """What has changed is done again, and what comes behind it; NVIDIA's part is not."""
    bench.plug_in("7523")
    bench.flash()
    (bench.folder / "windlass-box_1_all.deb").write_bytes(b"another package")
    bench.flash()

    assert [*ORDER, FLASH] == bench.tools()
    log = (bench.root / "var/log/standin.log").read_text()
    assert 2 == log.count("/opt/windlass-setup/windlass-box.deb")
    assert 1 == (bench.root / "etc/fstab").read_text().count("/var/lib/windlass")


def test_another_archive_begins_anew(bench: Bench) -> None:
    """A root file system of other content is unpacked and prepared from the beginning."""
    bench.plug_in("7523")
    bench.flash()
    (archive,) = (bench.folder / "archives").glob("Tegra*")
    content = archive.read_bytes()
    archive.unlink()
    archive.write_bytes(content + b"\0" * 10240)
    (bench.folder / "archives/windlass-hashes.json").unlink()
    bench.flash()

    assert [*ORDER, *ORDER] == bench.tools()


def test_a_damaged_journal_means_beginning_anew(bench: Bench) -> None:
    """What nobody can read vouches for nothing."""
    bench.plug_in("7523")
    bench.flash()
    (bench.work / JOURNAL).write_text('{"ended": [', encoding="ascii")
    bench.flash()

    assert [*ORDER, *ORDER] == bench.tools()
