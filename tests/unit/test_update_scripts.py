"""What a box does about an update, with the platform's tools played by small scripts that keep their state in files."""

from pathlib import Path

import pytest

from tests.update_box import Box, make_box


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that runs version 1 from slot A, and is well."""
    return make_box(tmp_path)


def test_a_good_update_is_confirmed_by_its_own_answer(box: Box) -> None:
    """Installed beside what runs, on trial after the restart, and there to stay when it has answered."""
    (box.home / "releases/current.B").symlink_to("old")
    (box.home / "releases/shipped.B").write_text("what the slot has brought, which is the same again\n")

    installed = box.run("update", box.bundle("2"))

    assert 0 == installed.returncode, installed.stderr
    assert "1" == (box.state / "next").read_text().strip()
    assert not (box.home / "releases/current.B").is_symlink()
    assert not (box.home / "releases/shipped.B").exists()
    box.restart(version="2")
    assert 0 == box.run("slot", "trial").returncode
    judged = box.run("confirm", "boot")
    assert 0 == judged.returncode, judged.stderr
    assert (box.state / "verified").exists()
    assert 0 != box.run("slot", "trial").returncode
    assert ("confirmed", "2", "2") == (box.last()["result"], box.last()["version"], box.last()["runs"])
    assert ["started", "was confirmed"] == box.tried("2")


def test_one_that_never_answers_sends_the_box_back_and_is_remembered(box: Box) -> None:
    """The old system comes back by itself, says why, and the bundle is refused from then on, unless somebody insists."""
    box.run("update", box.bundle("2"))
    box.restart(version="2")
    (box.state / "well").unlink()
    box.set_patience(0)

    box.run("confirm", "boot")

    assert "0" == (box.state / "next").read_text().strip()
    assert not (box.state / "verified").exists()
    box.restart(version="1")
    assert 0 == box.run("confirm", "boot").returncode
    assert "failed" == box.last()["result"]
    assert "not healthy within 0 s: the gateway is not well: 503" == box.last()["text"]
    assert "bad" == box.run("rauc-nvbootctrl", "get-state", "B").stdout.strip()
    refused = box.run("update", box.bundle("2"))
    assert 1 == refused.returncode
    assert "--again tries it once more" in refused.stderr
    assert 0 == box.run("update", "--again", box.bundle("2")).returncode


def test_a_judgement_that_is_told_again_ends_no_update_of_the_same_start(box: Box) -> None:
    """Installed and not started yet, an update waits for the next start; that one settles it."""
    boot_id = box.folder / "facts/proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("first\n")
    box.run("update", "--no-reboot", box.bundle("2"))
    again = box.run("confirm", "boot")
    left_alone = (box.home / "update/pending").exists()
    good = box.run("rauc-nvbootctrl", "get-state", "B").stdout.strip()
    boot_id.write_text("second\n")
    box.restart(version="2")
    judged = box.run("confirm", "boot")

    assert 0 == again.returncode, again.stderr
    assert (True, "good") == (left_alone, good)
    assert 0 == judged.returncode, judged.stderr
    assert "confirmed" == box.last()["result"]


def test_a_full_disk_keeps_no_system_that_does_not_answer(box: Box) -> None:
    """Why it is left cannot be written down, and it is left all the same."""
    box.run("update", box.bundle("2"))
    box.restart(version="2")
    (box.state / "well").unlink()
    box.set_patience(0)
    (box.home / "update/pending.new").mkdir()
    before = (box.home / "update/pending").read_text()

    judged = box.run("confirm", "boot")

    assert 0 == judged.returncode, judged.stderr
    assert "0" == (box.state / "next").read_text().strip()
    assert before == (box.home / "update/pending").read_text()


def test_one_that_dies_without_a_word_is_told_so(box: Box) -> None:
    """A panic or the watchdog leaves no reason, and the firmware brings the old system back."""
    box.run("update", box.bundle("2"))
    box.restart(into="0")

    box.run("confirm", "boot")

    assert "failed" == box.last()["result"]
    assert "did not come far enough to say why" in box.last()["text"]


def test_a_power_cut_while_the_slot_is_written_is_no_verdict(box: Box) -> None:
    """The old system goes on, and the bundle may be tried again."""
    (box.state / "broken").touch()
    box.run("update", box.bundle("2"))
    pending = box.home / "update/pending"
    pending.write_text("bundle=hash-of-2\nversion=2\nfrom=A\nto=B\nstate=installing\n")
    (box.home / "update/tried/hash-of-2").write_text("2026-01-01T00:00:00Z started\n")
    (box.state / "broken").unlink()
    box.restart(into="0")

    box.run("confirm", "boot")

    assert "unfinished" == box.last()["result"]
    assert 0 == box.run("update", box.bundle("2")).returncode


@pytest.mark.parametrize("status", [0, 1])
def test_models_that_differ_stay_and_are_told(box: Box, status: int) -> None:
    """The update goes on without them; models that cannot be taken in, such as on a full disk, refuse it."""
    (box.state / "mounted/models").mkdir()
    windlass = box.folder / "bin/windlass"
    windlass.write_text(
        '#!/bin/sh\necho "$*" >"$STAND_IN/imported"\n'
        f'echo "left: models/one, 4 MiB: other content is there, and stays"; echo "copied: models/two"; exit {status}\n'
    )
    windlass.chmod(0o755)

    done = box.run("update", box.bundle("2"))

    assert status == done.returncode
    assert "bundle import --keep .\n" == (box.state / "imported").read_text()
    assert ("update: models/one, 4 MiB: other content is there, and stays\n" in done.stdout) is (status == 0)
    assert "models/two" not in done.stdout
    assert ("1" if status == 0 else "0") == (box.state / "next").read_text().strip()


@pytest.mark.parametrize("status", [0, 1])
def test_a_release_that_does_not_know_keep_takes_models_without_it(box: Box, status: int) -> None:
    """The one that runs may be older than the bundle; what it says then is what counts."""
    (box.state / "mounted/models").mkdir()
    windlass = box.folder / "bin/windlass"
    windlass.write_text(
        '#!/bin/sh\necho "$*" >>"$STAND_IN/imported"\n'
        f'case $* in *--keep*) echo "No such option: --keep" >&2; exit 2 ;; esac\necho "copied: models/one"; exit {status}\n'
    )
    windlass.chmod(0o755)

    done = box.run("update", box.bundle("2"))

    assert status == done.returncode
    assert "bundle import --keep .\nbundle import .\n" == (box.state / "imported").read_text()
    assert ("1" if status == 0 else "0") == (box.state / "next").read_text().strip()


def test_a_write_that_fails_is_told_with_raucs_own_reason(box: Box) -> None:
    """Nothing is switched, and nothing stays under way."""
    (box.state / "broken").touch()

    failed = box.run("update", box.bundle("2"))

    assert 1 == failed.returncode
    assert "Failed updating slot rootfs.1: read error" in failed.stderr
    assert "0" == (box.state / "next").read_text().strip()
    assert not (box.home / "update/pending").exists()


@pytest.mark.parametrize(
    ("prepare", "what"),
    [
        ("unsigned", "signature verification failed"),
        ("board", 'it is made for "windlass-pc-amd64", and this box is a "windlass-jetson-orin-nano"'),
        ("missing", "there is no file"),
    ],
)
def test_what_is_not_for_this_box_is_refused_before_anything_is_touched(box: Box, prepare: str, what: str) -> None:
    """And the refusal is kept for whoever looks later."""
    file = box.bundle("2", compatible="windlass-pc-amd64" if prepare == "board" else "windlass-jetson-orin-nano")
    if prepare == "unsigned":
        (box.state / "unsigned").touch()
    if prepare == "missing":
        Path(file).unlink()

    refused = box.run("update", file)

    assert 1 == refused.returncode
    assert what in refused.stderr
    assert "refused" == box.last()["result"]
    assert not (box.home / "update/pending").exists()


def test_a_system_on_trial_takes_no_update(box: Box) -> None:
    """The other slot is its way back; not even RAUC itself, called by hand, writes over it."""
    box.run("update", box.bundle("2"))
    box.restart(version="2")

    assert "on trial" in box.run("update", box.bundle("3")).stderr
    by_hand = box.run("rauc-before", RAUC_TARGET_SLOTS="1", RAUC_SLOT_BOOTNAME_1="A", RAUC_BUNDLE_MOUNT_POINT="/nowhere")
    assert 1 == by_hand.returncode
    assert "<< error the running system is on trial still" in by_hand.stdout


def test_the_version_that_runs_is_not_installed_again(box: Box) -> None:
    """Not by itself."""
    done = box.run("update", box.bundle("1"))

    assert 0 == done.returncode
    assert "runs already" in done.stdout
    assert not (box.home / "update/pending").exists()


def test_a_stock_system_is_told_how_it_is_updated(box: Box) -> None:
    """It has no second slot, and nothing is written down."""
    (box.folder / "facts/etc/rauc/system.conf").unlink()

    refused = box.run("update", box.bundle("2"))

    assert 1 == refused.returncode
    assert "a release comes by make deploy" in refused.stderr
    assert not (box.home / "update").exists()


def test_a_person_can_go_back(box: Box) -> None:
    """The system of before is started, and a stick that stays does not bring the new one again."""
    box.run("update", box.bundle("2"))
    box.restart(version="2")
    box.run("confirm", "boot")

    back = box.run("update", "--back")

    assert 0 == back.returncode, back.stderr
    assert "0" == (box.state / "next").read_text().strip()
    assert "was sent back by hand" == box.tried("2")[-1]


def test_a_sure_system_is_never_sent_back(box: Box) -> None:
    """It is not well, and it is the one there is."""
    (box.state / "well").unlink()
    box.set_patience(0)

    assert 0 == box.run("confirm", "boot").returncode
    assert "0" == (box.state / "next").read_text().strip()
    assert (box.state / "verified").exists()


def test_the_backend_asks_for_what_it_was_not_given(box: Box) -> None:
    """A slot that is none is an error, and not the first one."""
    assert 2 == box.run("rauc-nvbootctrl", "get-state", "C").returncode
    assert 2 == box.run("rauc-nvbootctrl", "format").returncode


def test_a_slot_that_the_firmware_gave_up_is_bad(box: Box) -> None:
    """Whatever we think of it."""
    (box.state / "status.1").write_text("unbootable")

    assert "bad" == box.run("rauc-nvbootctrl", "get-state", "B").stdout.strip()
    assert "good" == box.run("rauc-nvbootctrl", "get-state", "A").stdout.strip()


def test_a_link_on_a_stick_leads_nowhere(box: Box) -> None:
    """The word that is left there is a file of its own, whatever the stick has under that name."""
    victim, name = box.folder / "victim", f"windlass-update-{Path('/etc/hostname').read_text().strip()}.txt"
    victim.write_text("a file of the box")
    stick, left = box.state / "stick", box.state / "left"
    stick.mkdir()
    (stick / "windlass-2.raucb").touch()
    (stick / name).symlink_to(victim)
    for tool, script in {
        "mount": f'case $* in *remount*) ;; *) cp -a {stick}/. "${{*: -1}}" ;; esac',
        "umount": f'cp -a "${{*: -1}}" {left} && find "${{*: -1}}" -mindepth 1 -delete',
    }.items():
        (box.folder / "bin" / tool).write_text(f"#!/bin/bash\n{script}\n")
        (box.folder / "bin" / tool).chmod(0o755)
    (box.state / "unsigned").touch()
    done = box.run("update", "--usb", "/dev/stick")

    assert 0 == done.returncode, done.stderr
    assert "a file of the box" == victim.read_text()
    assert not (left / name).is_symlink()
    assert "is refused" in (left / name).read_text()
