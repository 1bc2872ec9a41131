"""The box itself: processors, and the disk that holds the home directory."""

import enum
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from controller.probes.system import LocalSystem, System

_ROOT: Final = Path("/")
_PARTITION: Final = re.compile(r"(?P<disk>(?:mmcblk|nvme\d+n|loop|md|nbd)\d+)p\d+|(?P<letters>[a-z]+)\d+")


class DiskKind(enum.StrEnum):
    """What a disk is made of, as far as speed and wear are concerned."""

    NVME = "nvme"
    """Flash on PCIe."""
    SSD = "ssd"
    """Flash behind SATA or USB."""
    ROTATING = "rotating"
    """A disk that turns."""
    EMMC = "emmc"
    """Flash soldered to the board."""
    SD_CARD = "sd_card"
    """A card: slow, and worn out by writing."""
    VIRTUAL = "virtual"
    """A disk that a hypervisor shows."""
    UNKNOWN = "unknown"
    """No block device could be found behind the path: an overlay, a network or a memory file system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskReading:
    """The file system a path is on: its size, what is free for us, and what is below it."""

    total_bytes: int
    free_bytes: int
    kind: DiskKind


def read_cpu_count() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def read_disk(path: PurePath, *, root: Path = _ROOT) -> DiskReading:
    """Read the file system that holds *path*, or would hold it: the nearest folder that exists counts."""
    existing = nearest_existing(path)
    usage = shutil.disk_usage(existing)
    return DiskReading(total_bytes=usage.total, free_bytes=usage.free, kind=_kind_of_device(existing.stat().st_dev, root=root))


def nearest_existing(path: PurePath) -> Path:
    """Return *path* or the nearest folder above it that exists."""
    return next(folder for folder in (Path(path), *Path(path).parents, Path("/")) if _exists(folder))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above it may not be looked into
        return False


def _kind_of_device(device: int, *, root: Path) -> DiskKind:
    link = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    return read_disk_kind(link.resolve().name, LocalSystem([root])) if link.exists() else DiskKind.UNKNOWN


def read_disk_kind(name: str, system: System) -> DiskKind:
    """Tell what kind of disk the block device *name* is on; a partition counts as its disk, a mapping as what it maps."""
    block = "/sys/class/block"
    below = system.names(f"{block}/{name}/slaves")
    if below:  # LVM, LUKS, RAID: the slowest part is what will be felt, but one is enough to know
        return read_disk_kind(below[0], system)
    disk = _disk_of(name)
    if disk.startswith("mmcblk"):
        return DiskKind.SD_CARD if _read(system, f"{block}/{disk}/device/type") == "SD" else DiskKind.EMMC
    if disk.startswith("nvme"):
        return DiskKind.NVME
    if disk.startswith(("vd", "xvd")):
        return DiskKind.VIRTUAL
    return {"1": DiskKind.ROTATING, "0": DiskKind.SSD}.get(_read(system, f"{block}/{disk}/queue/rotational"), DiskKind.UNKNOWN)


def _disk_of(name: str) -> str:
    match = _PARTITION.fullmatch(name)
    return (match["disk"] or match["letters"]) if match else name


def _read(system: System, path: str) -> str:
    return (system.read(path) or "").strip()
