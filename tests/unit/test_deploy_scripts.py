"""What the scripts of a deploy do on a box, in real bash, with programs of the test's in the place of the box's."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.ops.deploy.host import read_host
from controller.ops.deploy.link import script_text

Program = Callable[[str, str], None]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Say where the box's programs are."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@pytest.fixture
def program(programs: Path) -> Program:
    """Return what gives the box a program."""

    def write(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)

    return write


def run(name: str, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    """Run a script as it is run on a box: read from the standard input."""
    return subprocess.run(
        ["/bin/bash", "-s", "--", *arguments],
        input=script_text(name), env={"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_box_tells_what_it_is(tmp_path: Path, programs: Path, program: Program) -> None:
    """Warnings of its engine are no part of the version, and of layers that came before it is told how much there is."""
    program("sudo", '[ "$1" != -n ] || shift; exec "$@"')
    program("systemctl", "")
    program("docker", """\
echo "WARNING: Error loading config file: permission denied" >&2
case $* in
    *Server.Version*) echo 29.1.3 ;;
    *DriverStatus*) echo '[["driver-type","io.containerd.snapshotter.v1"]]' ;;
    *DockerRootDir*) echo / ;;
esac""")  # fmt: skip
    layers = tmp_path / "home" / "incoming" / "deploy" / "layers"
    layers.mkdir(parents=True)
    (layers / "abc.tar").write_bytes(b"half")
    host = read_host(run("probe", str(tmp_path / "home"), path=f"{programs}:{os.environ['PATH']}").stdout)

    assert "29.1.3" == host.engine
    assert host.whole_images
    assert {"abc.tar": 4} == host.arrived


def test_an_engine_that_does_not_answer_is_told(tmp_path: Path, programs: Path, program: Program) -> None:
    """With its own words."""
    program("sudo", '[ "$1" != -n ] || shift; exec "$@"')
    program("systemctl", "")
    program("docker", "echo >&2 no daemon; exit 1")
    host = read_host(run("probe", str(tmp_path), path=f"{programs}:{os.environ['PATH']}").stdout)

    assert ("", "no daemon") == (host.engine, host.engine_error)


def test_packages_ask_the_script_nothing(tmp_path: Path, programs: Path, program: Program) -> None:
    """A package that reads answers gets none: the rest of the script is no answer, and is run."""
    for name in ("sort", "head", "cat"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    program("apt-cache", "")
    program("apt-get", f'cat >/dev/null; echo "$1" >>{tmp_path}/log')
    program("systemctl", f"echo systemctl >>{tmp_path}/log")
    done = run("packages", path=str(programs))

    assert (0, "") == (done.returncode, done.stderr)
    assert ["update", "install"] == (tmp_path / "log").read_text().split()[:2]
    assert "installing rsync socat" in done.stdout
