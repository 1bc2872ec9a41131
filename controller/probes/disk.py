"""The disk below a folder: which block device it is, how it is connected, and how fast a file on it can be read."""

import itertools
import mmap
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.probes.system import System
from controller.units import GIB, MIB

MOUNTS: Final = "/proc/self/mountinfo"
PIECE_BYTES: Final = 4 * MIB
THREADS: Final = 4
"""Enough to keep a disk busy; the buffers of all of them are a small part of the controller's memory."""
MOST_BYTES: Final = 1 * GIB
MOST_S: Final = 3.0
LEAST_BYTES: Final = 64 * MIB
"""A shorter file is read before the disk has come to speed."""
_NVME: Final = re.compile(r"(nvme\d+)n\d+(p\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """
    How an NVMe disk is connected.

    Attributes:
        width: lanes in use.
        most_width: lanes the disk has.
        speed: of one lane, such as `8.0 GT/s PCIe`.
        most_speed: of one lane, as the disk could have it.

    """

    width: int
    most_width: int
    speed: str
    most_speed: str


def block_behind(system: System, path: str) -> str:
    """Return the block device with the file system of *path*, such as `nvme0n1p1`; empty if it is on none."""
    mounts = list(_mounts(system))
    above = [mount for mount in mounts if _holds(mount[0], path)]
    if not above:
        return ""
    # Of two mounts at one place, the later one covers the earlier.
    _, number, source = max(enumerate(above), key=lambda one: (len(one[1][0]), one[0]))[1]
    for name in system.names("/sys/class/block"):
        if (system.read(f"/sys/class/block/{name}/dev") or "").strip() == number:
            return name
    # A file system over several devices has a number of its own, and names one of them.
    name = source.rpartition("/")[2]
    return name if source.startswith("/dev/") and name in system.names("/sys/class/block") else ""


def read_link(system: System, block: str) -> Link | None:
    """Return how the NVMe disk of a block device is connected; `None` if it is no such disk, or a mapping over one."""
    match = _NVME.fullmatch(block)
    if match is None:
        below = system.names(f"/sys/class/block/{block}/slaves")
        return read_link(system, below[0]) if below else None
    folder = f"/sys/class/nvme/{match[1]}/device"
    told = {name: (system.read(f"{folder}/{name}") or "").strip() for name in _FILES}
    if not (told["current_link_width"].isdecimal() and told["max_link_width"].isdecimal()):
        return None
    return Link(
        width=int(told["current_link_width"]),
        most_width=int(told["max_link_width"]),
        speed=told["current_link_speed"],
        most_speed=told["max_link_speed"],
    )


_FILES: Final = ("current_link_width", "max_link_width", "current_link_speed", "max_link_speed")


def measure_read(path: Path, *, most_bytes: int = MOST_BYTES, most_s: float = MOST_S) -> float | None:
    """
    Read the beginning of a file past the page cache, and return the bytes a second.

    `None` if the file is too short, or its file system cannot be read so. It takes *most_s* and one piece at the
    longest, keeps the disk busy for that time, and leaves no page in the cache and none out of it.
    """
    try:
        length = min(path.stat().st_size, most_bytes) // PIECE_BYTES * PIECE_BYTES
        if length < LEAST_BYTES:
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return None
    try:
        return _measure(descriptor, length, most_s)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _measure(descriptor: int, length: int, most_s: float) -> float:
    offsets = iter(range(0, length, PIECE_BYTES))
    start = threading.Barrier(THREADS + 1)
    lock = threading.Lock()

    def read_some() -> int:
        count = 0
        with mmap.mmap(-1, PIECE_BYTES) as piece:  # a mapping begins on a page, as O_DIRECT wants it
            piece.write(bytes(PIECE_BYTES))  # touched now, so that the kernel finds memory before the clock runs
            start.wait()
            ends_s = time.monotonic() + most_s
            while time.monotonic() < ends_s:
                with lock:
                    offset = next(offsets, None)
                if offset is None:
                    break
                count += os.preadv(descriptor, [piece], offset)
        return count

    with ThreadPoolExecutor(THREADS) as pool:
        reading = [pool.submit(read_some) for _ in itertools.repeat(None, THREADS)]
        start.wait()
        began_s = time.monotonic()
        count = sum(one.result() for one in reading)
        return count / (time.monotonic() - began_s)


def _mounts(system: System) -> Iterator[tuple[str, str, str]]:
    """Yield where something is mounted, the number of its device, and what it is mounted from."""
    for line in (system.read(MOUNTS) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) > 4 and len(source) > 1:
            yield fields[4], fields[2], source[1]


def _holds(mounted: str, path: str) -> bool:
    return path == mounted or path.startswith(mounted.rstrip("/") + "/")
