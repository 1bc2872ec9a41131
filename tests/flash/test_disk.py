"""An image is written onto a real block device, and a device that must not be touched is left alone."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import ConfigError
from controller.ops.flash.__main__ import flash_disk
from controller.ops.flash.copying import copy_image
from controller.ops.flash.disk import DiskError
from controller.ops.flash.gather import Inquiry, Place
from controller.ops.flash.work import NotConfirmedError
from controller.units import GIB, MIB

SIZE_BYTES = 5 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Make an image with a hole in its middle and one at its end, and its checksum."""
    folder = tmp_path / "made/pc-amd64"
    folder.mkdir(parents=True)
    path = folder / "windlass-1-pc-amd64.img"
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(3 * MIB)
        file.write(os.urandom(MIB))
        file.truncate(SIZE_BYTES)
    Path(f"{path}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n", encoding="ascii")
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Attach a disk of 9 GiB whose beginning and end are full of something else."""
    if os.geteuid() != 0:
        pytest.skip("only root may attach a loop device")
    file = tmp_path / "disk"
    with file.open("wb") as content:
        content.write(b"\xaa" * 2 * SIZE_BYTES)
        content.seek(9 * GIB - MIB)
        content.write(b"\xaa" * MIB)
    attached = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True)
    device = Path(attached.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def write(image: Path, disk: Path, **environ: str) -> None:
    """Run `make flash BOARD=pc`."""
    inquiry = Inquiry({"DISK": str(disk), "YES": "1", **environ}, ask=lambda _text: "no", fetch=lambda _command: None)
    flash_disk(inquiry, Place(made=image.parents[1]))


def start_of(disk: Path, size_bytes: int) -> bytes:
    """Return what a disk begins with."""
    with disk.open("rb") as file:
        return file.read(size_bytes)


def test_an_image_is_on_the_disk(image: Path, disk: Path) -> None:
    """All of it, holes as zeros; behind it the old content stays, but for the end, where an old partition table may lie."""
    write(image, disk)

    with disk.open("rb") as kept:
        assert image.read_bytes() == kept.read(SIZE_BYTES)
        assert b"\xaa" * MIB == kept.read(MIB)
        kept.seek(-MIB, os.SEEK_END)
        assert bytes(MIB) == kept.read()


def test_a_disk_is_told_from_a_stick_of_the_same_image(image: Path, disk: Path) -> None:
    """Its partitions lie where the image has them and have the same names, and other identifiers; its table is sound."""
    subprocess.run(["sgdisk", "--clear", "--new=1:2048:4095", "--change-name=1:root-a", image], check=True, capture_output=True)
    Path(f"{image}.sha256").write_text(f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n", encoding="ascii")
    write(image, disk)

    def told(where: Path, word: str) -> str:
        asked = subprocess.run(["sgdisk", "--info=1", where], capture_output=True, text=True, check=True)
        return next(line for line in asked.stdout.splitlines() if line.startswith(word))

    words = ("Partition unique GUID", "First sector", "Last sector", "Partition name")
    assert [False, True, True, True] == [told(image, word) == told(disk, word) for word in words]
    verified = subprocess.run(["sgdisk", "--verify", disk], capture_output=True, text=True, check=True).stdout
    assert "No problems found" in verified


def test_a_disk_in_use(image: Path, disk: Path, tmp_path: Path) -> None:
    """A disk that is mounted is refused, with the place; and so is one that another program holds for itself."""
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", disk, place], check=True)
    try:
        with pytest.raises(DiskError, match=rf"{disk} .* is in use at {place}; umount it first"):
            write(image, disk)
    finally:
        subprocess.run(["umount", place], check=True)

    holder = os.open(disk, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(DiskError, match="is it in use"):
            write(image, disk)
    finally:
        os.close(holder)
    assert b"\x53\xef" == start_of(disk, 1082)[1080:]


def test_a_damaged_image(image: Path, disk: Path) -> None:
    """An image that is not what its checksum says is found out before anything is written."""
    with image.open("r+b") as file:
        file.write(b"\0\1\2\3")

    with pytest.raises(DiskError, match=r"is damaged: wanted SHA-256 .*; nothing was written"):
        write(image, disk)

    assert b"\xaa" * MIB == start_of(disk, MIB)


def test_an_image_without_a_checksum(image: Path, disk: Path) -> None:
    """Nobody could tell whether it is whole."""
    Path(f"{image}.sha256").unlink()

    with pytest.raises(DiskError, match="has no checksum beside it"):
        write(image, disk)


def test_a_person_types_the_disk(image: Path, disk: Path) -> None:
    """Anything else leaves the disk as it is."""
    with pytest.raises(NotConfirmedError, match=f"wanted '{disk}', got 'no'"):
        write(image, disk, YES="")

    assert b"\xaa" * MIB == start_of(disk, MIB)


def test_a_dry_run_writes_nothing(image: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which image would go where."""
    write(image, disk, YES="", DRY_RUN="1")

    assert f"onto {disk}" in capsys.readouterr().out
    assert b"\xaa" * MIB == start_of(disk, MIB)


def test_a_disk_that_is_none(image: Path, tmp_path: Path) -> None:
    """A name with a slip, or none at all."""
    with pytest.raises(ConfigError, match="is no disk of this machine"):
        write(image, tmp_path / "nothing")
    with pytest.raises(ConfigError, match="which disk"):
        flash_disk(Inquiry({}, ask=input, fetch=lambda _command: None), Place(made=image.parents[1]))


def test_a_disk_that_does_not_keep_what_was_written(image: Path, tmp_path: Path) -> None:
    """What is read back is compared, byte for byte."""
    disk = tmp_path / "worn"
    disk.write_bytes(bytes(SIZE_BYTES))
    checksum = hashlib.sha256(image.read_bytes()).hexdigest()

    def wear(says: str, done_bytes: int) -> None:
        if says == "write the disk" and done_bytes == SIZE_BYTES:
            with disk.open("r+b") as file:
                file.write(b"worn")

    with pytest.raises(DiskError, match="did not keep what was written"):
        copy_image(image, disk, checksum=checksum, progress=wear)


def test_a_full_disk(image: Path) -> None:
    """What the kernel says of a disk is passed on, and that it holds nothing whole any more."""
    checksum = hashlib.sha256(image.read_bytes()).hexdigest()

    with pytest.raises(DiskError, match=r"No space left.*neither what it held nor the image"):
        copy_image(image, Path("/dev/full"), checksum=checksum, progress=lambda _says, _bytes: None)
