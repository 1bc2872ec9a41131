"""
Which disk may be overwritten with an image. Pure: what `lsblk` says comes in, a verdict goes out.

A disk that is in use in any way is refused, and so is the one that this machine runs from, and one that the image does not fit.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.errors import WindlassError
from controller.units import format_bytes

COLUMNS: Final = "NAME,PATH,TYPE,SIZE,RO,RM,MODEL,SERIAL,TRAN,MOUNTPOINTS"
WHOLE: Final = frozenset({"disk", "loop"})
SYSTEM: Final = frozenset({"/", "/boot", "/boot/efi", "/usr", "/home", "/var"})


class DiskError(WindlassError):
    """The disk cannot or must not be overwritten, or did not keep what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """
    A block device, and everything that lies on it.

    Attributes:
        path: its device node.
        kind: what it is: `disk`, `part`, `loop`, `lvm`, …
        size_bytes: how large it is.
        name: maker, model and serial number, for people.
        read_only: it cannot be written.
        mounts: where it, or a part of it, is mounted.
        holders: what is built on it beside partitions: volumes, arrays, open encryption.

    """

    path: str
    kind: str
    size_bytes: int
    name: str
    read_only: bool
    mounts: tuple[str, ...]
    holders: tuple[str, ...]


def lsblk_argv(path: str) -> tuple[str, ...]:
    """Ask about one disk and what is on it."""
    return ("lsblk", "--json", "--bytes", "--tree", "--output", COLUMNS, path)


def read_disk(text: str, path: str) -> Disk:
    """
    Read the answer.

    Raises:
        DiskError: it is not about one device.

    """
    try:
        devices = json.loads(text)["blockdevices"]
    except (ValueError, KeyError) as exc:
        raise DiskError(f"lsblk said nothing that can be read about {path}: {exc}") from exc
    if len(devices) != 1:
        raise DiskError(f"wanted one disk, and {path} is {len(devices)}")
    (top,) = devices
    parts = tuple(_walk(top))
    about = [str(top.get(key) or "").strip() for key in ("model", "serial")]
    return Disk(
        path=str(top["path"]),
        kind=str(top["type"]),
        size_bytes=int(top["size"]),
        name=" ".join(one for one in about if one) or "no name",
        read_only=bool(top["ro"]),
        mounts=tuple(one for part in parts for one in part.get("mountpoints") or () if one),
        holders=tuple(str(part["path"]) for part in parts[1:] if part["type"] != "part"),
    )


def refuse(disk: Disk, *, image_bytes: int, least_bytes: int = 0) -> None:
    """
    Refuse a disk that must not be overwritten.

    Args:
        disk: what it is.
        image_bytes: how long the image is.
        least_bytes: how large a disk must be so that there is room for models as well.

    Raises:
        DiskError: with the reason.

    """
    if disk.kind not in WHOLE:
        raise DiskError(f"{disk.path} is a {disk.kind} and not a whole disk; name the disk, such as /dev/sdb and not /dev/sdb1")
    if SYSTEM.intersection(disk.mounts):
        raise DiskError(f"{disk.path} ({disk.name}) holds the system this machine runs from ({', '.join(disk.mounts)})")
    if disk.mounts:
        raise DiskError(f"{disk.path} ({disk.name}) is in use at {', '.join(disk.mounts)}; umount it first")
    if disk.holders:
        raise DiskError(f"{disk.path} ({disk.name}) is part of {', '.join(disk.holders)}; take that apart first")
    if disk.read_only:
        raise DiskError(f"{disk.path} ({disk.name}) is write-protected")
    needed_bytes = max(image_bytes, least_bytes)
    if disk.size_bytes < needed_bytes:
        raise DiskError(
            f"{disk.path} ({disk.name}) has {format_bytes(disk.size_bytes)}, and {format_bytes(needed_bytes)} are needed"
        )


def _walk(device: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield device
    for child in device.get("children") or ():
        yield from _walk(child)
