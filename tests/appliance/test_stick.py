"""What a box does about a USB stick: a real file system that is mounted, on a box that is a folder. No machine is needed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.disk import run
from tests.update_box import Box, make_box

pytestmark = pytest.mark.appliance


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that runs version 1 from slot A, and is well."""
    return make_box(tmp_path)


@pytest.fixture
def stick(box: Box, tmp_path: Path) -> Iterator[str]:
    """Plug a stick with version 2 in, and return its device."""
    (tmp_path / "files").mkdir()
    Path(box.bundle("2")).rename(tmp_path / "files" / "windlass-2.raucb")
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "files"), str(tmp_path / "stick.img"), "16M")
    device = run("losetup", "--find", "--show", str(tmp_path / "stick.img")).strip()
    yield device
    run("losetup", "--detach", device)


def word(stick: str) -> str:
    """Read what was left on the stick."""
    subprocess.run(["sync"], check=True)
    name = Path("/etc/hostname").read_text(encoding="ascii").strip()
    return run("debugfs", "-R", f"cat /windlass-update-{name}.txt", stick)


def test_a_stick_is_taken_once_and_told_how_it_went(box: Box, stick: str) -> None:
    """Installed, then confirmed; and not again when a person has gone back, however long it stays plugged in."""
    installed = box.run("update", "--usb", stick)
    assert 0 == installed.returncode, installed.stderr
    assert "Version 2 is installed and starts now." in word(stick)
    assert stick not in Path("/proc/mounts").read_text(encoding="utf-8")

    box.restart(version="2")
    box.run("confirm", "boot")
    box.run("update", "--usb", stick)
    assert "Version 2 runs here; it was confirmed." in word(stick)

    box.run("update", "--back")
    box.restart(version="1")
    box.run("confirm", "boot")
    box.run("update", "--usb", stick)
    assert "Version 2 is not tried again by itself: it was sent back by hand. This box runs 1." in word(stick)
    assert "0" == (box.state / "next").read_text().strip()


def test_a_stick_with_something_else_is_told_why_not(box: Box, stick: str) -> None:
    """The reason is on the stick, and with the box."""
    (box.state / "unsigned").touch()

    box.run("update", "--usb", stick)

    assert "windlass-2.raucb is refused: signature verification failed" in word(stick)
    assert "refused" == box.last()["result"]


def test_a_stick_whose_update_is_cut_by_the_power_is_tried_three_times(box: Box, stick: str) -> None:
    """A bundle that takes the whole box down while it is written must not do so for ever."""
    for _ in range(2):
        (box.home / "update/tried").mkdir(parents=True, exist_ok=True)
        with (box.home / "update/tried/hash-of-2").open("a") as tried:
            tried.write("2026-01-01T00:00:00Z started\n")
    box.run("update", "--usb", stick)
    assert 3 == box.tried("2").count("started")

    box.restart(into="0")
    (box.home / "update/pending").unlink()
    box.run("update", "--usb", stick)
    assert "is not tried again by itself" in word(stick)
    assert 3 == box.tried("2").count("started")
