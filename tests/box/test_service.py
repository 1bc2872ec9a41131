"""One process of a release under systemd: the real script, and stand-ins for the engine and the relay."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.stack import PROJECT

SERVICE = PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass" / "service"
DOCKER = """#!/bin/bash
case "$1 $*" in
    "ps "*) echo runs ;;
    *State.Pid*) echo 0 ;;
esac
"""
SOCAT = """#!/usr/bin/env python3
import re, socket, sys
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind(re.search("UNIX-RECV:([^,]*)", " ".join(sys.argv))[1])
"""

SETPRIV = """#!/bin/bash
printf '%s\\n' "$*" >"${0%/*}/rights"
exec "${@:4}"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a box with one release, whose container runs already and ends as soon as it is looked at."""
    for name, text in {"docker": DOCKER, "socat": SOCAT, "setpriv": SETPRIV, "chown": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    release = tmp_path / "home" / "releases" / "1.0"
    release.mkdir(parents=True)
    (release / "release.env").touch()
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "WINDLASS_HOME": str(tmp_path / "home"),
        "WINDLASS_RUN": str(tmp_path / "run"),
        "NOTIFY_SOCKET": str(tmp_path / "systemd"),
    }


def test_a_container_that_is_taken_over_is_heard(tmp_path: Path, environ: dict[str, str]) -> None:
    """It has mounted the folder of its socket: a new socket comes into this folder, and not into another of the same name."""
    folder = tmp_path / "run-box" / "notify" / "gateway-1.0"
    folder.mkdir(parents=True)
    (folder / "socket").touch()
    mounted = os.open(folder, os.O_RDONLY)
    ended = subprocess.run([SERVICE, "gateway", "1.0"], env=environ, capture_output=True, text=True, check=False, timeout=20)

    assert "is taken over" in ended.stderr
    assert os.path.samestat(os.fstat(mounted), folder.stat())
    assert (folder / "socket").is_socket()
    os.close(mounted)


def test_what_a_container_tells_systemd_is_said_by_nobody(tmp_path: Path, environ: dict[str, str]) -> None:
    """Of root, systemd would believe any process of the machine to be the service's own, and end it with the service."""
    subprocess.run([SERVICE, "gateway", "1.0"], env=environ, capture_output=True, text=True, check=False, timeout=20)

    assert (tmp_path / "rights").read_text().startswith("--reuid=nobody --regid=nogroup --clear-groups socat -u UNIX-RECV:")
