"""The disks of the machines: what is written into them while they are off is there, and nothing else has changed."""

import subprocess
from pathlib import Path

import pytest

from tests.appliance.disk import Disk, Extent, make_stick, run
from tests.appliance.drive import Drive

pytestmark = pytest.mark.appliance

MIB = 1024 * 1024


@pytest.fixture
def base(tmp_path: Path) -> Disk:
    """Make a disk of two partitions, the first of them for files."""
    path = tmp_path / "base.img"
    run("truncate", "--size", "64M", str(path))
    run("sgdisk", "-o", "-n1:1M:+40M", "-t1:ef00", "-c1:esp", "-n2:0:0", "-c2:data", str(path))
    disk = Disk(path=path, format="raw")
    with disk.writing("esp") as esp:
        run("mkfs.vfat", "-F", "32", str(esp))
    with disk.writing("data") as data:
        data.write_bytes(b"\1" * data.stat().st_size)
    return disk


def test_partitions_are_found_by_name(base: Disk) -> None:
    """The partition table says where they lie."""
    there = base.partitions()

    assert Extent(start_bytes=MIB, size_bytes=40 * MIB) == there["esp"]
    assert {"esp", "data"} == set(there)


def test_files_go_into_the_layer_alone(base: Disk, tmp_path: Path) -> None:
    """What is put into a layer's partition is read there; the image below stays as it was, and so do other partitions."""
    before = base.path.read_bytes()
    top = base.layer(tmp_path / "top.qcow2", size="80M")

    top.put({"windlass/authorized_keys": "a key\n", "windlass/deep/er": b"\0\1"})
    top.put({"windlass/authorized_keys": "another key\n"})

    assert b"another key\n" == top.get("windlass/authorized_keys")
    assert b"\0\1" == top.get("windlass/deep/er")
    assert before == base.path.read_bytes()
    with top.reading("data") as data, base.reading("data") as was:
        assert was.read_bytes() == data.read_bytes()


def test_layers_on_layers(base: Disk, tmp_path: Path) -> None:
    """A layer on a layer begins with what is in it, and shares nothing that comes later."""
    middle = base.layer(tmp_path / "middle.qcow2")
    middle.put({"one": "1"})
    left, right = middle.layer(tmp_path / "left.qcow2"), middle.layer(tmp_path / "right.qcow2")

    left.put({"two": "2"})

    assert (b"1", b"2") == (left.get("one"), left.get("two"))
    with right.reading("esp") as esp:
        assert "two" not in run("mdir", "-b", "-i", str(esp), "::/").lower()


def test_a_stick_holds_its_files(tmp_path: Path) -> None:
    """A stick has one file system with the files that were put on it."""
    (tmp_path / "bundle").write_bytes(b"x" * MIB)

    stick = make_stick(tmp_path / "stick.img", {"bundle.raucb": tmp_path / "bundle"}, size="40M")

    assert "bundle.raucb" in run("mdir", "-b", "-i", str(stick.path), "::/")


def test_a_cut_drive_forgets_what_nobody_asked_it_to_keep(base: Disk, tmp_path: Path) -> None:
    """What was flushed is there after a cut; what was only written is not."""
    top = base.layer(tmp_path / "top.qcow2")
    data = base.partitions()["data"].start_bytes
    drive = Drive(top, tmp_path / "drive.sock", tmp_path / "log")
    steps = ["-c", f"write -P 2 {data} 1M", "-c", "flush", "-c", f"write -P 3 {data + MIB} 1M", "-c", "sigraise 9"]
    options = Drive.options(top, tmp_path / "drive.sock")
    subprocess.run(["qemu-io", "-t", "writeback", "--image-opts", options, *steps], capture_output=True, check=False)

    drive.cut()

    with top.reading("data") as copy:
        assert [2, 1] == [copy.read_bytes()[at] for at in (0, MIB)]
