"""
Memory of the box, and how hard it is to get.

Budgets are made from `available`, never from `free`: the pages of files that nobody uses count as free for the asking.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_ROOT: Final = Path("/")
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_SIZES: Final = re.compile(r"^(MemTotal|MemAvailable|SwapTotal):\s+(\d+) kB", re.MULTILINE)
_STALLED: Final = re.compile(r"^full .*\btotal=(\d+)", re.MULTILINE)
_AVG10: Final = re.compile(r"^(some|full) avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """
    Memory at one moment.

    Attributes:
        total_bytes: what the kernel manages.
        available_bytes: what could be had without swapping.
        swap_total_bytes: all swap areas together.
        zram_bytes: the part of the swap that is compressed memory.
        pressure_some_avg10: percent of the last ten seconds in which somebody waited for memory, where the kernel counts it.
        pressure_full_avg10: the same for everybody waiting at once.

    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    zram_bytes: int
    pressure_some_avg10: float | None
    pressure_full_avg10: float | None


def read_memory(*, root: Path = _ROOT) -> MemoryReading:
    """
    Read what the kernel says about memory now.

    All of it is looked for under *root*, and without an answer there the running kernel is asked.
    """
    sizes = _read_sizes(root / "proc/meminfo")
    pressure = _read_pressure(root / "proc/pressure/memory")
    return MemoryReading(
        total_bytes=sizes["MemTotal"],
        available_bytes=sizes["MemAvailable"],
        swap_total_bytes=sizes["SwapTotal"],
        zram_bytes=_read_zram(root / "proc/swaps"),
        pressure_some_avg10=pressure.get("some"),
        pressure_full_avg10=pressure.get("full"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """
    What a guard must know many times a second.

    Attributes:
        available_bytes: what could be had without swapping.
        stalled_s: for how long, since the kernel started, everything waited for memory at once; 0 where it is not counted.

    """

    available_bytes: int
    stalled_s: float


def read_supply(*, root: Path = _ROOT) -> Supply:
    """
    Read the two figures, which costs a twentieth of a millisecond.

    The kernel would also tell by itself when tasks have stalled for too long, but a process without privileges hears of it every
    two seconds; a program that takes a gigabyte a second is past by then.
    """
    available = _AVAILABLE.search((root / "proc/meminfo").read_text(encoding="ascii"))
    try:
        stalled = _STALLED.search((root / "proc/pressure/memory").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        stalled = None
    return Supply(
        available_bytes=int(available[1]) * 1024 if available else psutil.virtual_memory().available,
        stalled_s=int(stalled[1]) / 1e6 if stalled else 0.0,
    )


def _read_sizes(path: Path) -> dict[str, int]:
    try:
        found = {name: int(kibibytes) * 1024 for name, kibibytes in _SIZES.findall(path.read_text(encoding="ascii"))}
    except (OSError, UnicodeDecodeError):
        found = {}
    if len(found) == 3:
        return found
    memory = psutil.virtual_memory()
    return {"MemTotal": memory.total, "MemAvailable": memory.available, "SwapTotal": psutil.swap_memory().total}


def _read_pressure(path: Path) -> dict[str, float]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # built without PSI, or booted with psi=0: the file is missing, or reading it fails
        return {}
    return {kind: float(percent) for kind, percent in _AVG10.findall(text)}


def _read_zram(path: Path) -> int:
    try:
        rows = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return 0
    fields = [row.split() for row in rows]
    return sum(int(row[2]) * 1024 for row in fields if len(row) > 2 and "zram" in row[0] and row[2].isdigit())
