"""
What the disk and the kernel say about a file: bytes read and written, pages in the page cache, and how fast it can be read.

The limit of a cold load is read(2) past the page cache (`O_DIRECT`) of the very same file, by several threads, large pieces each.
"""

import ctypes
import itertools
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.units import MIB

SECTOR_BYTES: Final = 512
PIECE_BYTES: Final = 8 * MIB
THREADS: Final = (4, 8)
"""How many read at once; which is faster depends on the disk, so both are tried."""
_PRESENT: Final = bytes(range(1, 256, 2))
"""mincore's bytes for a page that is there: the lowest bit says so, the others are reserved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCount:
    """Bytes a block device has read and written since boot, as `/proc/diskstats` counts them."""

    read_bytes: int
    written_bytes: int


def disk_count(path: Path) -> DiskCount:
    """Read the counters of the device that *path* is on."""
    device = path.stat().st_dev
    found = parse_diskstats(Path("/proc/diskstats").read_text(encoding="ascii"), os.major(device), os.minor(device))
    if found is None:
        raise SystemExit(f"{path} is on no block device that /proc/diskstats counts; put build/ on a disk")
    return found


def parse_diskstats(text: str, major: int, minor: int) -> DiskCount | None:
    """Find a device in the text of `/proc/diskstats`, which counts in sectors of 512 bytes whatever the disk's own are."""
    for line in text.splitlines():
        fields = line.split()
        if fields[:2] == [str(major), str(minor)]:
            return DiskCount(read_bytes=int(fields[5]) * SECTOR_BYTES, written_bytes=int(fields[9]) * SECTOR_BYTES)
    return None


def written_by_processes() -> dict[int, int]:
    """Return the bytes that each process has had written to disks, by the kernel's count; of those that it lets us see."""
    counts: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            counts[int(folder.name)] = parse_process_io((folder / "io").read_text(encoding="ascii"))
        except OSError:  # it has ended, or is another user's
            continue
    return counts


def parse_process_io(text: str) -> int:
    """Return the bytes written, less those that were deleted before they reached a disk, of the text of `/proc/<pid>/io`."""
    fields = dict(line.split(": ") for line in text.splitlines())
    return max(0, int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"]))


def grown(before: dict[int, int], after: dict[int, int]) -> int:
    """Return how many bytes more the processes of *before* have written; one that has come since counts whole."""
    return sum(max(0, count - before.get(process, 0)) for process, count in after.items())


def swapped_out_bytes() -> int:
    """Return what the kernel has written to swap space since boot."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    return int(counters.get("pswpout", 0)) * mmap.PAGESIZE


def cached_share(path: Path) -> float:
    """Return the share of a file's pages that are in the page cache, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Private and writable, since only a writable mapping lends its address; nothing is written.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as pages:
        length = len(pages)
        present = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(pages)
        failed = libc.mincore(ctypes.byref(first), ctypes.c_size_t(length), present)
        del first  # the mapping cannot be closed while its address is lent
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    absent = bytes(present).translate(None, _PRESENT)
    return 1 - len(absent) / len(present)


def drop_pages(path: Path) -> None:
    """Take a file's pages out of the page cache, as far as nobody maps them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # what is still to be written stays
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm_pages(path: Path) -> None:
    """Bring a file's pages into the page cache."""
    with path.open("rb") as file:
        while file.read(PIECE_BYTES):
            pass


def direct_bytes_per_s(path: Path) -> float:
    """Return how fast the whole file is read past the page cache: the better of four and eight threads."""
    return max(_direct_bytes_per_s(path, threads) for threads in THREADS)


def _direct_bytes_per_s(path: Path, threads: int) -> float:
    length = path.stat().st_size // PIECE_BYTES * PIECE_BYTES
    offsets = iter(range(0, length, PIECE_BYTES))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def read_some() -> int:
        count = 0
        with mmap.mmap(-1, PIECE_BYTES) as piece:  # a mapping begins on a page, as O_DIRECT wants it
            piece.write(bytes(PIECE_BYTES))  # touched now, so that the kernel need not find memory while it is timed
            ready.append(None)
            while len(ready) < threads:
                time.sleep(0.001)
            for offset in offsets:
                count += os.preadv(descriptor, [piece], offset)
        return count

    ready: list[None] = []
    try:
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(read_some) for _ in itertools.repeat(None, threads)]
            while len(ready) < threads:
                time.sleep(0.001)
            began_s = time.monotonic()
            count = sum(future.result() for future in futures)
            return count / (time.monotonic() - began_s)
    finally:
        os.close(descriptor)
