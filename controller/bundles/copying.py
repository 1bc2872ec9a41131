"""
Copy large files so that a copy that was cut goes on, and whoever is served meanwhile notices little.

What lies at the target already is read and compared or hashed, never believed: a cut may have left anything there.
"""

import hashlib
import os
from collections.abc import Callable
from io import FileIO
from typing import Final

from controller.units import MIB

CHUNK_BYTES: Final = 4 * MIB
FLUSH_BYTES: Final = 64 * MIB
"""What is written at most before it is put on the disk and its pages are given back: models are served from the others."""

Moved = Callable[[int], None]
"""Told how many bytes more are done."""


class SourceError(Exception):
    """What is copied cannot be read, or ends early; the text says which."""


def compare_and_write(source: FileIO, size_bytes: int, target: FileIO, *, moved: Moved) -> str:
    """
    Make *target* the next bytes of *source*, and return their SHA-256; what it holds of them already is not written again.

    Raises:
        SourceError: *source* cannot be read, or has not that many.
        OSError: *target* cannot be written.

    """
    digest, offset, same = hashlib.sha256(), 0, True
    writer = _Writer(target)
    while offset < size_bytes:
        chunk = _read(source, offset, size_bytes)
        digest.update(chunk)
        same = same and read_whole(target, len(chunk)) == chunk
        if not same:
            target.seek(offset)
            writer.write(chunk)
        offset += len(chunk)
        moved(len(chunk))
    if os.fstat(target.fileno()).st_size > size_bytes:
        target.truncate(size_bytes)
    writer.flush()
    return digest.hexdigest()


def hash_held(target: FileIO, size_bytes: int, digest: "hashlib._Hash", *, moved: Moved) -> int:
    """Hash what *target* holds from where it stands, at most so much, and return how much that is."""
    offset = 0
    while offset < size_bytes and (chunk := read_whole(target, min(CHUNK_BYTES, size_bytes - offset))):
        digest.update(chunk)
        os.posix_fadvise(target.fileno(), target.tell() - len(chunk), len(chunk), os.POSIX_FADV_DONTNEED)
        offset += len(chunk)
        moved(len(chunk))
    return offset


def append(source: FileIO, size_bytes: int, target: FileIO, digest: "hashlib._Hash", *, moved: Moved) -> None:
    """
    Write the next bytes of *source* where *target* stands, and hash them.

    Raises:
        SourceError: *source* cannot be read, or has not that many.
        OSError: *target* cannot be written.

    """
    offset, writer = 0, _Writer(target)
    while offset < size_bytes:
        chunk = _read(source, offset, size_bytes)
        digest.update(chunk)
        writer.write(chunk)
        os.posix_fadvise(source.fileno(), source.tell() - len(chunk), len(chunk), os.POSIX_FADV_DONTNEED)
        offset += len(chunk)
        moved(len(chunk))
    writer.flush()


def _read(source: FileIO, offset: int, size_bytes: int) -> bytes:
    try:
        chunk = source.read(min(CHUNK_BYTES, size_bytes - offset))
    except OSError as exc:
        raise SourceError(f"cannot be read: {exc.strerror}") from exc
    if not chunk:
        raise SourceError(f"wanted {size_bytes} bytes, got {offset}")
    return bytes(chunk)


def read_whole(file: FileIO, size_bytes: int) -> bytes:
    """Read so many bytes, or as many as there are: one read may give fewer."""
    data = file.read(size_bytes)
    while data and len(data) < size_bytes and (more := file.read(size_bytes - len(data))):
        data += more
    return data


def write_whole(file: FileIO, data: bytes) -> None:
    """Write all of it: one write may take less, as on a disk that is about to be full."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class _Writer:
    """Writes, and has the disk keep up."""

    def __init__(self, target: FileIO) -> None:
        self._target = target
        self._unsynced_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Write all of it."""
        write_whole(self._target, chunk)
        self._unsynced_bytes += len(chunk)
        if self._unsynced_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Return when everything is on the disk, and give its pages back."""
        os.fsync(self._target.fileno())
        os.posix_fadvise(self._target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._unsynced_bytes = 0
