"""
How much of a file is in the page cache.

The kernel tells only whoever could write to the file or owns it; to others everything looks cached, so for them nothing is.
"""

import ctypes
import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SAMPLES: Final = 512
"""Pages looked at in each file, evenly spread: a hundredth of it is seen, and asking takes less than a millisecond."""

_ROOT: Final = Path("/")
_FREE: Final = re.compile(r"^MemFree:\s+(\d+) kB", re.MULTILINE)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_FAILED: Final = ctypes.c_void_p(-1).value


def weights_files(path: Path) -> tuple[Path, ...]:
    """Return the weights at *path*: the file itself, or all safetensors of a folder."""
    return tuple(sorted(path.glob("*.safetensors"))) if path.is_dir() else (path,)


def read_cached_bytes(files: Iterable[Path]) -> tuple[int, int]:
    """Return the size of *files* together and how much of it is in the page cache; what cannot be looked at counts as not."""
    sizes_bytes, cached_bytes = 0, 0.0
    for file in files:
        try:
            size_bytes, share = _look(file)
        except OSError:
            continue
        sizes_bytes += size_bytes
        cached_bytes += share * size_bytes
    return sizes_bytes, int(cached_bytes)


def drop_pages(files: Iterable[Path]) -> None:
    """
    Let the page cache forget *files*; what cannot be opened stays.

    It takes no right but to read them, unlike to empty the page cache as a whole. Pages that a process has mapped stay, and so do
    those that are not on the disk yet.
    """
    for file in files:
        try:
            handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def read_free_bytes(*, root: Path = _ROOT) -> int:
    """Return the memory that holds nothing at all, not even pages of files."""
    found = _FREE.search((root / "proc/meminfo").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def _look(file: Path) -> tuple[int, float]:
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        size_bytes = found.st_size
        if not size_bytes:
            return 0, 0.0
        if found.st_uid != os.geteuid() and not os.access(file, os.W_OK):
            return size_bytes, 0.0
        start = _LIBC.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        if start == _FAILED:
            return size_bytes, 0.0
        try:
            return size_bytes, _share(start, -(-size_bytes // mmap.PAGESIZE))
        finally:
            _LIBC.munmap(start, size_bytes)
    finally:
        os.close(handle)


def _share(start: int, pages: int) -> float:
    """Return the share of pages that are in memory, by the middle page of each of as many equal parts as there are samples."""
    samples = min(SAMPLES, pages)
    answer = ctypes.create_string_buffer(1)
    cached = 0
    for number in range(samples):
        page = (2 * number + 1) * pages // (2 * samples)
        if _LIBC.mincore(start + page * mmap.PAGESIZE, mmap.PAGESIZE, answer) == 0:
            cached += answer.raw[0] & 1
    return cached / samples
