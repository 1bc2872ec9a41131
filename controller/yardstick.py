"""The home's disk: how it is connected, and how fast it can be read, which is measured once and remembered."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import structlog

from controller.probes import disk
from controller.probes.disk import Link
from controller.probes.system import System
from controller.store.findings import Findings

log: Final = structlog.get_logger()

LOOK_S: Final = 10.0
"""How often it is looked whether the box has nothing else to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeDisk:
    """
    What is known of it.

    Attributes:
        block: the block device; empty if the home is on none.
        link: how it is connected, if it is an NVMe disk.
        read_bytes_per_s: how fast a large file was read past the page cache; `None` until it was measured.
        measured_at_s: when, in seconds since 1970.

    """

    block: str
    link: Link | None = None
    read_bytes_per_s: float | None = None
    measured_at_s: float | None = None

    @property
    def key(self) -> str:
        """What a measurement holds for: another disk, or another slot, is another speed."""
        link = f"{self.link.width}x{self.link.speed}" if self.link else "-"
        return f"disk_read {self.block} {link}"


class Yardstick:
    """
    Measures the disk.

    Args:
        system: whom to ask how it is connected.
        home: the folder whose disk it is.
        findings: where the result is kept.
        wall: the time, in seconds since 1970.

    """

    def __init__(self, system: System, home: PurePath, findings: Findings, *, wall: Callable[[], float]) -> None:
        """Read what is known; this asks the disk nothing."""
        self._findings = findings
        self._wall = wall
        block = disk.block_behind(system, str(home))
        self.disk = HomeDisk(block=block, link=disk.read_link(system, block))
        if (known := findings.get(self.disk.key)) is not None:
            self._note(float(known.value), at_s=known.at_s)

    async def run(self, files: Callable[[], Iterable[Path]], *, idle: Callable[[], bool]) -> None:
        """
        Wait until nobody wants anything and there is a file to read, and measure once.

        Args:
            files: weights of models; the largest is read.
            idle: whether a few seconds of the disk disturb nobody.

        """
        tried: set[Path] = set()
        while self.disk.read_bytes_per_s is None:
            await asyncio.sleep(LOOK_S)
            if not idle():
                continue
            path = await asyncio.to_thread(_largest, [file for file in files() if file not in tried])
            if path is None:
                continue
            tried.add(path)
            found = await asyncio.to_thread(disk.measure_read, path)
            if found is not None:
                at_s = self._wall()
                self._note(found, at_s=at_s)
                log.info("disk.measured", block=self.disk.block, read_bytes_per_s=round(found), file=str(path))
                await asyncio.to_thread(self._findings.put, self.disk.key, found, at_s=at_s)

    def _note(self, read_bytes_per_s: float, *, at_s: float) -> None:
        self.disk = HomeDisk(
            block=self.disk.block, link=self.disk.link, read_bytes_per_s=read_bytes_per_s, measured_at_s=at_s
        )  # fmt: skip


def _largest(files: Iterable[Path]) -> Path | None:
    """Return the largest file that is worth to be read; the others are left for when they have grown."""
    sizes = {}
    for file in files:
        try:
            sizes[file] = file.stat().st_size
        except OSError:  # it has just been removed
            continue
    large = {file: size for file, size in sizes.items() if size >= disk.LEAST_BYTES}
    return max(large, key=lambda file: large[file], default=None)
