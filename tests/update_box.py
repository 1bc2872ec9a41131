"""A box in a folder: its own scripts for updates, and the platform's tools played by small scripts that keep state in files."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from controller.ops.appliance import rauc

SCRIPTS = Path(__file__).resolve().parents[1] / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass"

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


def make_box(tmp_path: Path) -> Box:
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
