"""What a box does about an update, with the platform's tools played by small scripts that keep their state in files."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.ops.appliance import rauc

SCRIPTS = Path(__file__).resolve().parents[2] / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass"

NVBOOTCTRL = """#!/bin/bash
# Answers as nvbootctrl of L4T 39 does, from two files: which slot runs, which one is the next.
echo "$*" >>"$STAND_IN/calls"
case $* in
    "-t rootfs get-current-slot") cat "$STAND_IN/current" ;;
    "dump-slots-info") echo "Active bootloader slot: $(tr 01 AB <"$STAND_IN/next")" ;;
    "-t rootfs dump-slots-info")
        echo "slot: 0,             status: $(cat "$STAND_IN/status.0")"
        echo "slot: 1,             status: $(cat "$STAND_IN/status.1")"
        ;;
    "-t rootfs set-active-boot-slot "[01]) echo "${*: -1}" >"$STAND_IN/next" ;;
    verify) touch "$STAND_IN/verified" ;;
    *) echo "nvbootctrl: $*?" >&2 && exit 1 ;;
esac
"""

# RAUC, as far as the scripts ask it, on top of the real backend.
RAUC = """#!/bin/bash
backend=$SCRIPTS/rauc-nvbootctrl
here=$("$backend" get-current)
other=$(tr AB BA <<<"$here")
case $* in
    "status mark-good booted") "$backend" set-state "$here" good ;;
    "status mark-bad booted") "$backend" set-state "$here" bad ;;
    "status mark-bad other") "$backend" set-state "$other" bad ;;
    "status mark-active other") "$backend" set-primary "$other" ;;
    "info --output-format=shell "*)
        [ ! -e "$STAND_IN/unsigned" ] || { echo "signature verification failed: no such issuer" >&2 && exit 1; }
        cat "${*: -1}"
        ;;
    "install "*)
        export RAUC_TARGET_SLOTS=1 RAUC_SLOT_BOOTNAME_1=$other RAUC_BUNDLE_MOUNT_POINT=$STAND_IN/mounted
        "$SCRIPTS/rauc-before" || { echo "LastError: the handler refused" && exit 1; }
        echo " 20% Checking slots"
        [ ! -e "$STAND_IN/broken" ] || { echo "LastError: Failed updating slot rootfs.1: read error" && exit 1; }
        "$backend" set-primary "$other"
        "$SCRIPTS/rauc-after"
        echo "100% Installing done"
        ;;
    status) echo "=== status" ;;
    *) echo "rauc: $*?" >&2 && exit 1 ;;
esac
"""

ANSWERS = """#!/bin/bash
[ -e "$STAND_IN/well" ] || { echo "the gateway is not well: 503" && exit 1; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box in a folder."""

    folder: Path

    @property
    def home(self) -> Path:
        """Its data."""
        return self.folder / "home"

    @property
    def state(self) -> Path:
        """What the stand-ins remember."""
        return self.folder / "state"

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts."""
        environ = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "STAND_IN": str(self.state),
            "SCRIPTS": str(self.folder / "scripts"),
            "WINDLASS_HOME": str(self.home),
            "WINDLASS_RUN": str(self.folder / "run"),
            "WINDLASS_FACTS": str(self.folder / "facts"),
            **more,
        }
        argv = [str(self.folder / "scripts" / script), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, env=environ, check=False, timeout=30)

    def bundle(self, version: str, *, compatible: str = "windlass-jetson-orin-nano") -> str:
        """Make what our RAUC takes for a bundle, and return its path."""
        file = self.folder / f"windlass-{version}.raucb"
        file.write_text(f"RAUC_MF_COMPATIBLE='{compatible}'\nRAUC_MF_VERSION='{version}'\nRAUC_MF_HASH='hash-of-{version}'\n")
        return str(file)

    def restart(self, *, into: str | None = None, version: str = "1") -> None:
        """Start again, as the platform does: into the next slot, or where it falls back to."""
        slot = (self.state / "next").read_text().strip() if into is None else into
        (self.state / "current").write_text(slot)
        (self.folder / "facts/etc/os-release").write_text(f"ID=debian\nIMAGE_VERSION={version}\n")
        shutil.rmtree(self.folder / "run-box", ignore_errors=True)
        (self.state / "verified").unlink(missing_ok=True)

    def last(self) -> dict[str, str]:
        """Return how the last update ended."""
        told: dict[str, str] = json.loads((self.home / "update/last.json").read_text())
        return told

    def tried(self, version: str) -> list[str]:
        """Return what became of a bundle."""
        return [line.split(" ", 1)[1] for line in (self.home / f"update/tried/hash-of-{version}").read_text().splitlines()]

    def set_patience(self, seconds: int) -> None:
        """Give a trial this many seconds since the machine's start."""
        (self.home / "etc/update.env").write_text(f"CONFIRM_WITHIN_S={seconds}\n")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that runs version 1 from slot A, and is well."""
    for name in ("bin", "state", "home/etc", "home/releases", "run-box", "facts/etc/rauc", "facts/proc", "state/mounted"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    for path, text in {
        "bin/nvbootctrl": NVBOOTCTRL,
        "bin/rauc": RAUC,
        "scripts/answers": ANSWERS,
        "bin/systemctl": "#!/bin/sh\n",
    }.items():
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    text = rauc.system_configuration("jetson-orin-nano", compatible="windlass-jetson-orin-nano")
    (tmp_path / "facts/etc/rauc/system.conf").write_text(text)
    made = Box(folder=tmp_path)
    for name, content in {"current": "0", "next": "0", "status.0": "normal", "status.1": "normal", "well": ""}.items():
        (made.state / name).write_text(content)
    made.restart()
    return made


def test_a_good_update_is_confirmed_by_its_own_answer(box: Box) -> None:
    """Installed beside what runs, on trial after the restart, and there to stay when it has answered."""
    (box.home / "releases/current.B").symlink_to("old")

    installed = box.run("update", box.bundle("2"))

    assert 0 == installed.returncode, installed.stderr
    assert "1" == (box.state / "next").read_text().strip()
    assert not (box.home / "releases/current.B").is_symlink()
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
