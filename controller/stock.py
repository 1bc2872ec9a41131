"""Which engines' images are on this box: an engine without its image is no choice for anyone."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from controller.drivers.base import Driver
from controller.errors import EngineError

log: Final = structlog.get_logger()

PAUSE_S: Final = 60.0
"""How often to look: images come and go by hand."""


class Stock:
    """What was there when the container engine was last asked; all of it, until it has answered once."""

    def __init__(self, driver: Driver, tags: Mapping[str, str]) -> None:
        """Know whom to ask, and the tag of each engine's image."""
        self._driver = driver
        self._tags = tags
        self._missing: frozenset[str] = frozenset()

    def has(self, engine: str) -> bool:
        """Say whether the image of an engine is there."""
        return engine not in self._missing

    async def look(self) -> bool:
        """Ask for all of them, and say whether anything is another way than it was; an engine that is away changes nothing."""
        try:
            missing = frozenset([name for name, tag in self._tags.items() if not await self._driver.has_image(tag)])
        except EngineError as exc:
            log.info("stock.unknown", error=str(exc))
            return False
        before, self._missing = self._missing, missing
        return before != missing

    async def keep_looking(self, changed: Callable[[], None]) -> None:
        """Look now and then until cancelled, and call *changed* when there is news."""
        while True:
            await asyncio.sleep(PAUSE_S)
            if await self.look():
                log.info("stock.changed", missing=sorted(self._missing))
                changed()
