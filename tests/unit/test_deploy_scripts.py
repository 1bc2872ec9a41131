"""What the scripts of a deploy do on a box, in real bash, with programs of the test's in the place of the box's."""

import hashlib
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
    (layers.parent / "loading").write_text("v1\n")
    host = read_host(run("probe", str(tmp_path / "home"), path=f"{programs}:{os.environ['PATH']}").stdout)

    assert "29.1.3" == host.engine
    assert host.whole_images
    assert {"abc.tar": 4} == host.arrived
    assert host.loading


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
    program("dpkg", "cat")
    program("apt-get", f'cat >/dev/null; echo "$1" >>{tmp_path}/log')
    program("systemctl", f"echo systemctl >>{tmp_path}/log")
    done = run("packages", path=str(programs))

    assert (0, "") == (done.returncode, done.stderr)
    assert ["update", "install"] == (tmp_path / "log").read_text().split()[:2]
    assert "installing rsync socat" in done.stdout


ENGINE = """\
echo "$*" >>"$0.asked"
case $* in
    load*)
        ls "${0%/bin/docker}/box" >>"$0.saw"
        tar --list >>"$0.took"
        if [ -e "$0.cut" ]; then kill -9 $PPID; fi
        if [ -e "$0.full" ]; then echo "write /x: no space left on device" >&2 && exit 1; fi
        ;;
    "image inspect "*) [ -e "$0.has" ] && grep -qx "$3" "$0.has" ;;
esac"""
"""An engine that notes what it is asked, and what lies beside what it loads."""


@pytest.fixture
def box(tmp_path: Path, program: Program) -> Path:
    """Return the folder of a box to which a release of one image and one layer has come."""
    program("docker", ENGINE)
    folder = tmp_path / "box"
    (folder / "layers").mkdir(parents=True)
    (folder / "v1" / "images").mkdir(parents=True)
    (folder / "layers" / "one.tar").write_bytes(b"layer")
    (folder / "v1" / "images" / "manifest.json").write_text("[]")
    (folder / "v1" / "images" / "tags").write_text("windlass/controller:1\n")
    (folder / "v1" / "images" / "sums").write_text(f"{hashlib.sha256(b'layer').hexdigest()}  one.tar\n")
    return folder


def load(box: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what gives the engine its layers."""
    return run("load", str(box), *arguments, path=f"{box.parent / 'bin'}:{os.environ['PATH']}")


def test_what_is_being_loaded_is_written_down_until_it_is_on_the_disk(box: Path, programs: Path) -> None:
    """The mark stands while the engine loads, and goes with the layers."""
    done = load(box, "v1")

    assert (0, "") == (done.returncode, done.stderr)
    assert "loading" in (programs / "docker.saw").read_text().split()
    assert ["./", "./manifest.json", "one.tar"] == sorted((programs / "docker.took").read_text().split())
    assert ["v1"] == [path.name for path in box.iterdir()]


def test_images_whose_loading_was_cut_are_given_up(box: Path, programs: Path) -> None:
    """Layers that nobody has noted yet are taken once more and go with their image; all of them are to be loaded anew."""
    (programs / "docker.cut").touch()
    load(box, "v1")
    (programs / "docker.cut").unlink()
    (programs / "docker.asked").unlink()
    (programs / "docker.has").write_text("windlass/controller:1\n")
    marked = (box / "loading").read_text()
    done = load(box)

    assert "v1\n" == marked
    assert (0, "") == (done.returncode, done.stderr)
    asked = (programs / "docker.asked").read_text().splitlines()
    assert ["load --quiet", "image rm --force windlass/controller:1"] == [line for line in asked if "inspect" not in line]
    assert not (box / "loading").exists()
    assert (box / "layers" / "one.tar").exists()


def test_an_image_that_cannot_be_given_up_stays_marked(box: Path, program: Program) -> None:
    """A container may run on it: what is not whole is not forgotten."""
    (box / "loading").write_text("v1\n")
    program("docker", '[ "$2" != rm ] || { echo "image is being used by running container" >&2; exit 1; }')
    done = load(box)

    assert 1 == done.returncode
    assert "image is being used by running container" in done.stderr
    assert (box / "loading").exists()


def test_an_engine_that_takes_nothing_leaves_no_mark(box: Path, programs: Path) -> None:
    """Nothing was cut; why it did not is told, and the layers stay."""
    (programs / "docker.full").touch()
    done = load(box, "v1")

    assert 66 == done.returncode
    assert "no space left on device" in done.stderr
    assert not (box / "loading").exists()
    assert (box / "layers" / "one.tar").exists()


def test_a_layer_that_has_come_damaged_is_removed(box: Path, programs: Path) -> None:
    """And the engine sees none of it."""
    (box / "layers" / "one.tar").write_bytes(b"other")
    done = load(box, "v1")

    assert 65 == done.returncode
    assert not (box / "layers" / "one.tar").exists()
    assert not (programs / "docker.asked").exists()
