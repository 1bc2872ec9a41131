"""What is missing, wrong or dangerous is refused before anything is touched, with a sentence that says what to do."""

from pathlib import Path

import pytest

from controller.errors import ConfigError
from controller.ops.flash.__main__ import flash_board
from controller.ops.flash.archives import ArchiveError
from controller.ops.flash.commands import Command
from controller.ops.flash.gather import Inquiry, Place
from tests.flash import standin
from tests.flash.conftest import Bench
from tests.flash.test_flow import make_payload


def test_a_missing_archive(bench: Bench) -> None:
    """Where nothing may be fetched, the address is named."""
    (bench.folder / "archives" / standin.ROOTFS).unlink()

    with pytest.raises(ArchiveError, match=rf"holds no {standin.ROOTFS}; fetch it from https://jetson\.invalid/r39/"):
        bench.flash()

    assert not bench.work.exists()


def test_an_archive_that_is_another_file(bench: Bench) -> None:
    """A hash that is known decides: a damaged archive is never unpacked."""
    archive = bench.folder / "archives" / standin.BSP
    archive.unlink()
    archive.write_bytes(b"something else")

    with pytest.raises(ArchiveError, match=r"does not match the hash in releases\.toml: wanted .*, got .*delete it"):
        bench.flash()

    assert not bench.work.exists()


def test_an_archive_that_has_changed(bench: Bench) -> None:
    """What was trusted once has to stay the same."""
    bench.plug_in("7523")
    bench.flash()
    archive = bench.folder / "archives" / standin.ROOTFS
    archive.unlink()
    archive.write_bytes(b"something else")

    with pytest.raises(ArchiveError, match="the hash recorded when it was first used"):
        bench.flash()


def test_an_archive_that_is_not_on_the_makers_list(bench: Bench) -> None:
    """NVIDIA's own list is asked where nobody knows a hash, whichever letters it writes the name with."""
    (bench.folder / "archives/release_sha_hashes.txt").write_text(f"{'0' * 40}  {standin.ROOTFS.lower()}\n", encoding="ascii")

    with pytest.raises(ArchiveError, match=r"does not match NVIDIA's list \(release_sha_hashes\.txt\)"):
        bench.flash()


def test_archives_are_fetched(bench: Bench, archives: tuple[Path, Path]) -> None:
    """What is not there comes from NVIDIA, under another name until it is whole; the next run has it."""
    bench.plug_in("7523")
    store = bench.folder / "fetched"
    by_name = {one.name: one for one in archives}
    fetched: list[str] = []

    def fetch(command: Command) -> None:
        fetched.append(command.argv[-1])
        name = command.argv[-1].rsplit("/", 1)[-1]
        assert command.argv[command.argv.index("--output") + 1] == f"{store}/{name}.part"
        if name in by_name:
            (store / f"{name}.part").write_bytes(by_name[name].read_bytes())

    environ = {**bench.environ, "BSP": str(store), "OFFLINE": ""}
    for _ in range(2):
        flash_board("jetson-orin-nano", Inquiry(environ, ask=bench.answer, fetch=fetch), bench.place)

    names = (standin.BSP, standin.ROOTFS, "release_sha_hashes.txt")
    assert [f"https://jetson.invalid/r39/{name}" for name in names] == fetched
    assert bench.flashed() is not None


def test_a_machine_that_cannot_flash(bench: Bench) -> None:
    """Everything that is wrong with it is said at once, and nothing is asked."""
    bench.place = Place(
        boards=bench.place.boards,
        build=bench.place.build,
        made=bench.place.made,
        usb=bench.place.usb,
        slash=standin.make_machine(bench.folder / "other", system=("debian", "12"), ipv6="1"),
        machine="x86_64",
        needed_bytes=2**60,
    )

    with pytest.raises(ConfigError) as caught:
        bench.flash(ACCEPT_LICENSE="")

    told = "\n".join(caught.value.problems)
    assert ["this is debian 12", "GiB are needed", "IPv6"] == [
        one for one in ("this is debian 12", "GiB are needed", "IPv6") if one in told
    ]


def test_what_is_still_mounted(bench: Bench) -> None:
    """A folder that something is mounted in is not removed: the host's own devices could be behind it."""
    mounts = bench.place.slash / "proc/self/mounts"
    mounts.write_text(f"udev {bench.root}/dev devtmpfs rw 0 0\n", encoding="ascii")

    with pytest.raises(ConfigError, match=rf"{bench.root}/dev is still mounted from a run that was cut"):
        bench.flash()


def test_a_board_nobody_knows_enough_about(bench: Bench) -> None:
    """Thor is refused with what would have to be found out, and with another way."""
    with pytest.raises(ConfigError, match=r"Thor Developer Kit is not flashed: nobody has found out .*make provision"):
        bench.flash("jetson-agx-thor")


def test_a_board_that_does_not_exist(bench: Bench) -> None:
    """A name with a slip gets the one that was meant."""
    with pytest.raises(ConfigError, match="did you mean 'jetson-orin-nano'"):
        bench.flash("jetson-orin-nanno")


def test_nobody_could_log_in(bench: Bench) -> None:
    """Without a key and without a password the board would be a stone."""
    with pytest.raises(ConfigError, match="nobody could log in on the board"):
        bench.flash(KEYS=str(bench.folder / "none.pub"))


def test_a_password_that_would_be_an_option(bench: Bench) -> None:
    """It is not handed to NVIDIA's script, which would take it for one."""
    with pytest.raises(ConfigError, match="PASSWORD begins with a dash"):
        bench.flash(PASSWORD="-autologin")


def test_images_for_other_processors(bench: Bench) -> None:
    """Images that were made on a PC do not run on a Jetson."""
    with pytest.raises(ConfigError, match="are for x86_64, and the board is aarch64"):
        bench.flash(PAYLOAD=str(make_payload(bench.folder / "payload", machine="x86_64")))


def test_half_a_payload(bench: Bench) -> None:
    """A release without its images could not start."""
    payload = make_payload(bench.folder / "payload")
    (payload / "images/images.tar.zst").unlink()

    with pytest.raises(ConfigError, match="holds no archive of images"):
        bench.flash(PAYLOAD=str(payload))
