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
        ls "${0%/bin/docker}/incoming/deploy" >>"$0.saw"
        tar --list >>"$0.took"
        if [ -e "$0.cut" ]; then kill -9 $PPID; fi
        if [ -e "$0.full" ]; then echo "write /x: no space left on device" >&2 && exit 1; fi
        ;;
    "image inspect "*) grep -sm 1 "^$5 " "$0.has" | cut -d ' ' -f 2 | grep . ;;
    "image rm "*)
        if grep -qsx "${*: -1}" "$0.runs"; then echo "image is being used by running container" >&2 && exit 1; fi
        sed -i "/ ${*: -1}$/d" "$0.has"
        ;;
esac"""
"""An engine that notes what it is asked, and what lies beside what it loads; of what it has, number and layers are the same."""


TAG = "windlass/controller:1"
ASIDE = "windlass-cut/controller:1"
"""What it is called while it is given up."""


@pytest.fixture
def box(tmp_path: Path, program: Program) -> Path:
    """Return the folder of a box to which a release of one image and one layer has come."""
    program("docker", ENGINE)
    folder = tmp_path / "incoming" / "deploy"
    (folder / "layers").mkdir(parents=True)
    (folder / "v1" / "images").mkdir(parents=True)
    (folder / "layers" / "one.tar").write_bytes(b"layer")
    (folder / "v1" / "images" / "manifest.json").write_text(f'[{{"RepoTags": ["{TAG}"]}}]')
    (folder / "v1" / "images" / "tags").write_text(f"{TAG}\n")
    (folder / "v1" / "images" / "sums").write_text(f"{hashlib.sha256(b'layer').hexdigest()}  one.tar\n")
    return folder


def load(box: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what gives the engine its layers."""
    return run("load", str(box), *arguments, path=f"{box.parent.parent / 'bin'}:{os.environ['PATH']}")


def test_what_is_being_loaded_is_written_down_until_it_is_on_the_disk(box: Path, programs: Path) -> None:
    """The mark stands while the engine loads, and goes with the layers."""
    done = load(box, "v1")

    assert (0, "") == (done.returncode, done.stderr)
    assert "loading" in (programs / "docker.saw").read_text().split()
    assert ["./", "./manifest.json", "one.tar"] == sorted((programs / "docker.took").read_text().split())
    assert ["v1"] == [path.name for path in box.iterdir()]


def write_release(box: Path, version: str) -> None:
    """Put a release of the image beside the others of the box."""
    folder = box.parent.parent / "releases" / version
    folder.mkdir(parents=True)
    (folder / "release.env").write_text(f"WINDLASS_VERSION={version}\nWINDLASS_IMAGE_CONTROLLER={TAG}\n")


def cut(box: Path, programs: Path) -> str:
    """Cut a loading, and say what is written down of it."""
    (programs / "docker.cut").touch()
    load(box, "v1")
    (programs / "docker.cut").unlink()
    (programs / "docker.asked").unlink()
    return (box / "loading").read_text()


def removals(programs: Path) -> list[str]:
    """Return what the engine was asked to remove."""
    asked = (programs / "docker.asked").read_text().splitlines()
    return [line.removeprefix("image rm ") for line in asked if line.startswith("image rm ")]


def test_images_whose_loading_was_cut_are_given_up(box: Path, programs: Path) -> None:
    """Layers that nobody has noted yet are taken once more and go with their image; all of them are to be loaded anew."""
    write_release(box, "v0")
    marked = cut(box, programs)
    (programs / "docker.has").write_text(f"{TAG} cut\n{ASIDE} cut\n")
    done = load(box)

    assert "v1\nv0\n" == marked
    assert (0, "") == (done.returncode, done.stderr)
    assert "load --quiet" == (programs / "docker.asked").read_text().splitlines()[0]
    assert f'[{{"RepoTags": ["{ASIDE}"]}}]' == (box / "v1" / "images" / "manifest.json").read_text()
    assert ["--force cut"] == removals(programs)
    assert not (box / "loading").exists()
    assert (box / "layers" / "one.tar").exists()


def test_half_an_image_goes_although_nothing_could_be_taken_once_more(box: Path, programs: Path) -> None:
    """What has its name is taken for it."""
    cut(box, programs)
    (programs / "docker.has").write_text(f"{TAG} cut\n")
    done = load(box)

    assert 0 == done.returncode
    assert ["--force cut"] == removals(programs)


def test_an_image_that_a_release_has_come_with_since_stays(box: Path, programs: Path) -> None:
    """An update of the operating system has brought the same, whole, and it may run."""
    cut(box, programs)
    write_release(box, "v1")
    (programs / "docker.has").write_text(f"{TAG} same\n{ASIDE} same\n")
    done = load(box)

    assert (0, "") == (done.returncode, done.stderr)
    assert [ASIDE] == removals(programs)
    assert not (box / "loading").exists()


def test_an_image_that_was_made_since_stays(box: Path, programs: Path) -> None:
    """It has the name of the one that was cut, and other layers."""
    cut(box, programs)
    (programs / "docker.has").write_text(f"{TAG} made-here\n{ASIDE} cut\n")
    done = load(box)

    assert (0, "") == (done.returncode, done.stderr)
    assert ["--force cut"] == removals(programs)
    assert f"{TAG} made-here\n" == (programs / "docker.has").read_text()


def test_an_image_that_cannot_be_given_up_stays_marked(box: Path, programs: Path) -> None:
    """A container may run on it: what is not whole is not forgotten, and the others are given up nevertheless."""
    cut(box, programs)
    (box / "v1" / "images" / "tags").write_text(f"{TAG}\nwindlass/llama-cpp:1\n")
    (programs / "docker.has").write_text(f"{TAG} cut\n{ASIDE} cut\nwindlass/llama-cpp:1 other\n")
    (programs / "docker.runs").write_text("cut\n")
    done = load(box)

    assert 1 == done.returncode
    assert "image is being used by running container" in done.stderr
    assert f"cannot be removed: {TAG}; end the containers that use it" in done.stderr.splitlines()[-1]
    assert ["--force cut", "--force other"] == removals(programs)
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
