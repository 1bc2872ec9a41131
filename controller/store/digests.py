"""Hash and sync large files without disturbing whoever is served meanwhile."""

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 4 * 1024 * 1024
_LEAST_NICE: Final = 19


def sha256(path: Path) -> str:
    """
    Return the SHA-256 of a file, in hex.

    The pages it reads are given back as it goes: they are many, and whoever needs them maps them himself.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        offset = 0
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            os.posix_fadvise(file.fileno(), offset, len(chunk), os.POSIX_FADV_DONTNEED)
            offset += len(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def be_nice() -> None:
    """Let this thread go last; Linux counts niceness for each of them, and does not let it be taken back."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_NICE)
