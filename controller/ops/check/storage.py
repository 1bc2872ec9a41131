"""How disks are connected, and what the container engine keeps its images on."""

from collections.abc import Iterable
from typing import Final

from controller.ops.check.values import Facts, Finding, warning
from controller.probes.host import DiskKind

SLOW: Final = {DiskKind.SD_CARD: "an SD card", DiskKind.EMMC: "eMMC", DiskKind.ROTATING: "a disk that turns"}


def links(facts: Facts) -> Iterable[Finding]:
    """Name the NVMe disks that have more lanes than their slot gives them."""
    for link in facts.condition.links:
        if link.width < link.most_width:
            yield warning(
                "NVMe",
                f"{link.disk} uses {link.width} of its {link.most_width} lanes, each at {link.speed}: loading a model takes "
                f"{link.most_width / link.width:.0f} times as long as it must",
                "put it into a slot with more lanes (a developer kit of the Orin Nano has one of each kind), or seat it anew",
            )


def engine_disk(facts: Facts) -> Iterable[Finding]:
    """Judge where images and containers are kept."""
    condition = facts.condition
    if condition.engine_disk in SLOW and facts.engine.info is not None:
        yield warning(
            "images",
            f"the container engine keeps its images in {condition.engine_root}, on {SLOW[condition.engine_disk]}: GPU images are "
            "several GB, and the first start of an engine reads all of one",
            'set {"data-root": "/mnt/nvme/docker"} in /etc/docker/daemon.json, to a folder on an SSD, and restart the engine;\n'
            "images are made again there by `make images`",
        )
