"""
Copy an image onto a disk, and read it back.

Holes of the image become zeros on the disk, by the device's own command where it has one, since an old disk holds old data. What
is read back comes from the disk and not from memory. The end of a larger disk is cleared: a partition table may lie there, too.
"""

import fcntl
import hashlib
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from controller.ops.flash.disk import DiskError
from controller.units import MIB

CHUNK_BYTES: Final = 4 * MIB
END_BYTES: Final = MIB
TABLE_AT: Final = 512
TABLE: Final = b"EFI PART"
"""What a GUID partition table begins with, and where."""
BLKZEROOUT: Final = 0x127F
BLKFLSBUF: Final = 0x1261

Progress = Callable[[str, int], None]
"""Hears what is being done, and how many bytes are done."""


def read_checksum(image: Path) -> str:
    """
    Return the checksum that lies beside an image.

    Raises:
        DiskError: there is none.

    """
    file = Path(f"{image}.sha256")
    try:
        words = file.read_text(encoding="ascii").split()
    except OSError as exc:
        raise DiskError(f"{image} has no checksum beside it ({file}), so nobody could tell whether it is whole: {exc}") from exc
    if not words or len(words[0]) != 64:
        raise DiskError(f"{file} holds no SHA-256")
    return words[0].lower()


def copy_image(image: Path, disk: Path, *, checksum: str, progress: Progress) -> None:
    """
    Write *image* onto *disk*, wait until it is there, and compare.

    Raises:
        DiskError: the image is not what its checksum says, which is found out before anything is written; the disk is in use; or
            it did not keep what was written.

    """
    if (
        found := hash_start(image, image.stat().st_size, progress=progress, says="compare the image with its checksum")
    ) != checksum:
        raise DiskError(f"{image} is damaged: wanted SHA-256 {checksum}, got {found}; nothing was written")
    size_bytes = image.stat().st_size
    try:
        # Of a block device, O_EXCL makes the kernel refuse where anything uses it.
        target = os.open(disk, os.O_RDWR | os.O_EXCL)
    except OSError as exc:
        raise DiskError(f"{disk} cannot be opened for writing: {exc}; is it in use?") from exc
    try:
        with image.open("rb") as source:
            _copy(source.fileno(), target, size_bytes, progress)
        _clear_end(target, size_bytes)
        os.fsync(target)
        _forget(target)
    except OSError as exc:
        raise DiskError(f"writing {disk} failed: {exc}; it holds neither what it held nor the image") from exc
    finally:
        os.close(target)
    if (kept := hash_start(disk, size_bytes, progress=progress, says="read the disk back")) != checksum:
        raise DiskError(
            f"{disk} did not keep what was written: wanted SHA-256 {checksum}, got {kept}; take another disk or cable"
        )


def individualize(disk: Path) -> None:
    """
    Give a disk that holds an image, and its partitions, identifiers of their own; a stick with the same image keeps the image's.

    The second copy of the table moves to the end of the disk, where it belongs.

    Raises:
        DiskError: the table could not be written.

    """
    with disk.open("rb") as file:
        file.seek(TABLE_AT)
        if file.read(len(TABLE)) != TABLE:
            return
    done = subprocess.run(
        ["sgdisk", "--move-second-header", "--randomize-guids", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DiskError(f"{disk} holds the image and got no identifiers of its own: {(done.stderr or done.stdout).strip()}")


def hash_start(path: Path, size_bytes: int, *, progress: Progress, says: str) -> str:
    """Return the SHA-256 of the first *size_bytes* of a file or a disk."""
    found = hashlib.sha256()
    done_bytes = 0
    with path.open("rb", buffering=0) as file:
        while done_bytes < size_bytes and (block := file.read(min(CHUNK_BYTES, size_bytes - done_bytes))):
            found.update(block)
            done_bytes += len(block)
            progress(says, done_bytes)
    return found.hexdigest()


def _copy(source: int, target: int, size_bytes: int, progress: Progress) -> None:
    for start, end, filled in _extents(source, size_bytes):
        if not filled:
            _zero(target, start, end)
            progress("write the disk", end)
            continue
        for offset in range(start, end, CHUNK_BYTES):
            block = os.pread(source, min(CHUNK_BYTES, end - offset), offset)
            written = 0
            while written < len(block):
                written += os.pwrite(target, block[written:], offset + written)
            progress("write the disk", offset + len(block))


def _extents(source: int, size_bytes: int) -> Iterator[tuple[int, int, bool]]:
    """Say which parts of a file hold data and which are holes; all of it does where the file system cannot tell."""
    offset = 0
    while offset < size_bytes:
        try:
            data = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:
            data = size_bytes  # no data behind it
        if data > offset:
            yield offset, min(data, size_bytes), False
        if data >= size_bytes:
            return
        offset = os.lseek(source, data, os.SEEK_HOLE)
        yield data, min(offset, size_bytes), True


def _zero(target: int, start: int, end: int) -> None:
    if stat.S_ISBLK(os.fstat(target).st_mode):
        with suppress(OSError):
            fcntl.ioctl(target, BLKZEROOUT, struct.pack("QQ", start, end - start))
            return
    nothing = bytes(CHUNK_BYTES)
    for offset in range(start, end, CHUNK_BYTES):
        os.pwrite(target, nothing[: min(CHUNK_BYTES, end - offset)], offset)


def _clear_end(target: int, size_bytes: int) -> None:
    end = os.lseek(target, 0, os.SEEK_END)
    if end > size_bytes:
        _zero(target, max(size_bytes, end - END_BYTES), end)


def _forget(target: int) -> None:
    """Drop what memory holds of the disk, so that reading back reads the disk."""
    if stat.S_ISBLK(os.fstat(target).st_mode):
        fcntl.ioctl(target, BLKFLSBUF, 0)
    os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
