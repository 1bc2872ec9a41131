"""How disks are connected, and what the container engine keeps its images on."""

from collections.abc import Iterable
from typing import Final

from controller.ops.check.values import Facts, Finding, warning
from controller.probes.host import DiskKind
from controller.units import MIB, format_bytes

LEAST_BYTES_PER_S: Final = {DiskKind.NVME: 1000 * MIB, DiskKind.SSD: 300 * MIB}
"""Even a slot of one slow lane gives an NVMe disk nearly that much."""
SLOW: Final = {DiskKind.SD_CARD: "an SD card", DiskKind.EMMC: "eMMC", DiskKind.ROTATING: "a disk that turns"}


def speed(facts: Facts) -> Iterable[Finding]:
    """Judge how fast the disk of the models is: the lanes that its slot gives it, and what was measured."""
    link, measured = facts.condition.home_link, facts.tried.read_bytes_per_s
    if link is not None and link.width < link.most_width:
        yield warning(
            "NVMe",
            f"the disk of {facts.settings.home} uses {link.width} of its {link.most_width} lanes, each at {link.speed}: "
            f"loading a model takes up to {link.most_width / link.width:.0f} times as long as it must",
            "put it into a slot with more lanes (a developer kit of the Orin Nano has one of each kind), or seat it anew",
        )
    least = LEAST_BYTES_PER_S.get(facts.disk.kind)
    if measured is not None and least is not None and measured < least:
        yield warning(
            "disk speed",
            f"the disk of {facts.settings.home} was found to read {format_bytes(int(measured))} a second, and one of its kind "
            f"({facts.disk.kind.value}) reads {format_bytes(least)} or more: every load takes that much longer",
            "look for another program that reads, a disk that is too hot (sudo nvme smart-log), or a slot that is too slow",
        )


def engine_disk(facts: Facts) -> Iterable[Finding]:
    """Judge where images and containers are kept."""
    condition = facts.condition
    if condition.engine_disk in SLOW and facts.engine.info is not None:
        yield warning(
            "images",
            f"the container engine keeps its images in {condition.engine_root}, on {SLOW[condition.engine_disk]}: GPU images are "
            "several GB, and the first start of an engine reads all of one",
            'add "data-root": "/mnt/nvme/docker", or another folder on an SSD, to what is in /etc/docker/daemon.json, and '
            "restart the engine;\n"
            "images are made again there by `make images`",
        )
