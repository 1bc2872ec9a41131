"""
Free pages for a GPU that shares the box's memory, made of page cache that nobody needs.

What is in the page cache can be had for the asking, and a load on processors simply takes it. CUDA on a Jetson counts only pages
that are free, as several who run there report: where the page cache has grown over all of the memory, a load finds none. So
before a load there the weights of other models leave the page cache, as far as it takes. It costs them a colder start; pages that
a process has mapped stay.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from controller.probes.page_cache import drop_pages, read_free_bytes, weights_files
from controller.spec import ModelSpec
from controller.units import MIB

log: Final = structlog.get_logger()

SPARE_BYTES: Final = 128 * MIB
"""Free pages beyond what a model needs: the kernel keeps some back for itself."""


class FreePages:
    """Makes free pages; what it asks and does can be given in its place."""

    def __init__(
        self,
        *,
        read_free: Callable[[], int] = read_free_bytes,
        drop: Callable[[Iterable[Path]], None] = drop_pages,
    ) -> None:
        """Do nothing yet."""
        self._read_free = read_free
        self._drop = drop

    async def make(self, needed_bytes: int, others: Iterable[ModelSpec]) -> list[str]:
        """
        Make as many pages free as a load needs, and return whose weights left the page cache for it.

        Args:
            needed_bytes: what the load will take.
            others: models whose pages may go, the first to go first.

        """
        dropped: list[str] = []
        for model in others:
            if self._read_free() >= needed_bytes + SPARE_BYTES:
                break
            await asyncio.to_thread(self._drop, _files(model))
            dropped.append(model.name)
        if dropped:
            log.info("page_cache.dropped", models=dropped, needed_bytes=needed_bytes, free_bytes=self._read_free())
        return dropped


def _files(model: ModelSpec) -> list[Path]:
    folder = Path(model.folder)
    return [file for path in (model.weights, *model.lora) for file in weights_files(folder / path)]
