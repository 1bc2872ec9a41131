"""
Where the partitions of a box with UEFI lie. Pure.

    esp       boot loader, its choice of system, and a folder that any laptop can edit
    root-a    one whole system, mounted read-only
    root-b    the other one
    data      everything that is written; last, so that it can grow to the disk's end

The identifiers are derived from names and not drawn, so that the same inputs make the same image.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.ops.appliance.target import BoxTarget
from controller.units import MIB

SECTOR_BYTES: Final = 512
FIRST_BYTES: Final = MIB
"""The first partition begins here: the table before it takes 17 KiB, and disks like whole MiB."""
LAST_BYTES: Final = MIB
"""Left at the end, for the second copy of the table."""
NAMESPACE: Final = uuid.UUID("5d0a3d0e-4c1c-5ac0-9d5b-77696e646c61")
TYPES: Final = {"esp": "EF00", "root-a": "8300", "root-b": "8300", "data": "8300"}
ROOT_TYPES: Final = {
    "amd64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "arm64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}
"""Of the root partitions; they must have another type than the data partition, which systemd-repart finds by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """
    A part of the disk.

    Attributes:
        number: in the table.
        label: its name there, by which it is found on the disk that the system runs from.
        type_code: what it is for, as sgdisk writes it.
        start_bytes: where it begins.
        size_bytes: how long it is.
        guid: its identifier.

    """

    number: int
    label: str
    type_code: str
    start_bytes: int
    size_bytes: int
    guid: uuid.UUID

    @property
    def end_bytes(self) -> int:
        """Where the next one may begin."""
        return self.start_bytes + self.size_bytes


def derive_id(target: str, what: str) -> uuid.UUID:
    """Return the identifier that a disk, a partition or a file system of a target always gets."""
    return uuid.uuid5(NAMESPACE, f"{target}/{what}")


def partitions(target: BoxTarget) -> tuple[Partition, ...]:
    """Lay out the disk of a box."""
    sizes = {"esp": target.esp, "root-a": target.root, "root-b": target.root, "data": target.data}
    found: list[Partition] = []
    start_bytes = FIRST_BYTES
    for number, (label, size_bytes) in enumerate(sizes.items(), start=1):
        type_code = ROOT_TYPES[target.architecture] if label.startswith("root") else TYPES[label]
        found.append(
            Partition(
                number=number,
                label=label,
                type_code=type_code,
                start_bytes=start_bytes,
                size_bytes=size_bytes,
                guid=derive_id(target.name, label),
            )
        )
        start_bytes += size_bytes
    return tuple(found)


def disk_bytes(parts: Sequence[Partition]) -> int:
    """Say how large the image is."""
    return parts[-1].end_bytes + LAST_BYTES


def table_argv(image: str, parts: Sequence[Partition], *, disk_guid: uuid.UUID) -> list[str]:
    """Write the partition table into an image of the right size."""
    argv = ["sgdisk", "--clear", f"--disk-guid={disk_guid}"]
    for part in parts:
        last = part.end_bytes // SECTOR_BYTES - 1
        argv += [
            f"--new={part.number}:{part.start_bytes // SECTOR_BYTES}:{last}",
            f"--typecode={part.number}:{part.type_code}",
            f"--change-name={part.number}:{part.label}",
            f"--partition-guid={part.number}:{part.guid}",
        ]
    return [*argv, image]
