"""
Give NVIDIA's partition layout one more partition, the last one, for models and everything else that outlives an update.

`python -m controller.ops.flash.layout SOURCE --to TARGET --image FILE`. It begins as a small file system, which the flashing tool
writes and stretches to the end of the disk, and which the board grows when it first mounts it. The names of the two root file
systems stay NVIDIA's, since its boot loader looks for them.
"""

import argparse
import sys
import xml.etree.ElementTree as ET  # NVIDIA's own file, out of an archive whose hash was compared
from pathlib import Path
from typing import Final

from controller.errors import ConfigError
from controller.units import GIB

DATA: Final = "data"
"""The partition's name in the table, the same as on a PC."""
LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
"""The type of a partition with a Linux file system."""
EXPAND: Final = 0x800
"""The bit of `allocation_attribute` by which the last partition takes what is left of the disk."""
ROOTS: Final = ("APP", "APP_b")
LAST: Final = "secondary_gpt"
ROOT_ELEMENT: Final = "<partition_layout"


def add_data(text: str, *, image: str, size_bytes: int = GIB) -> str:
    """
    Return the layout *text* with a partition for data behind the root file systems, filled from *image*.

    Nothing else changes, and what stands before the first element, NVIDIA's licence above all, stays as it is.

    Raises:
        ConfigError: this is no layout of one disk with two root file systems, or it has such a partition already.

    """
    try:
        layout = ET.fromstring(text, parser=ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))  # noqa: S314 # see the import
    except ET.ParseError as exc:
        raise ConfigError([f"wanted a partition layout, got what is not XML: {exc}"]) from exc
    devices = [one for one in layout.iter("device") if one.get("type") == "external"]
    if layout.tag != "partition_layout" or len(devices) != 1:
        raise ConfigError([f"wanted a partition layout of one external disk, got <{layout.tag}> with {len(devices)} of them"])
    (disk,) = devices
    names = [one.get("name", "") for one in disk.iter("partition")]
    if missing := [one for one in (*ROOTS, LAST) if one not in names]:
        raise ConfigError([f"wanted a layout with two root file systems, but it has no partition {' and no '.join(missing)}"])
    if DATA in names:
        raise ConfigError([f"the layout has a partition {DATA!r} already"])
    _refuse_other_growth(disk)
    place = [one.get("name") for one in disk].index(LAST)
    new = _partition(image=image, size_bytes=size_bytes)
    new.tail = disk[place - 1].tail
    disk.insert(place, new)
    prolog = text[: text.index(ROOT_ELEMENT)]
    return prolog + ET.tostring(layout, encoding="unicode") + "\n"


def _refuse_other_growth(disk: ET.Element) -> None:
    for one in disk.iter("partition"):
        attribute = (one.findtext("allocation_attribute") or "0").strip()
        if int(attribute, 0) & EXPAND:
            raise ConfigError([f"partition {one.get('name')!r} of the layout takes the rest of the disk; only the last one can"])


def _partition(*, image: str, size_bytes: int) -> ET.Element:
    partition = ET.Element("partition", {"name": DATA, "type": "data"})
    parts = {
        "allocation_policy": "sequential",
        "filesystem_type": "basic",
        "size": f"{size_bytes}",
        "file_system_attribute": "0",
        "allocation_attribute": f"{EXPAND | 0x8:#x}",
        "align_boundary": "16384",
        "percent_reserved": "0",
        "partition_type_guid": LINUX,
        "filename": image,
        "description": "Models, engine files, conversations and the container engine's data; kept by every update.",
    }
    partition.text = "\n            "
    for tag, value in parts.items():
        part = ET.SubElement(partition, tag)
        part.text, part.tail = f" {value} ", partition.text
    part.tail = "\n        "
    return partition


def main() -> int:
    """Write a layout with one more partition to another file."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="NVIDIA's layout with two root file systems")
    parser.add_argument("--to", type=Path, required=True, help="where the new layout goes")
    parser.add_argument(
        "--image", required=True, help="the file in NVIDIA's folder bootloader/ that the partition is filled from"
    )
    given = parser.parse_args()
    try:
        given.to.write_text(add_data(given.source.read_text(encoding="utf-8"), image=given.image), encoding="utf-8")
    except (OSError, ConfigError) as exc:
        sys.stderr.write(f"{given.source}: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
