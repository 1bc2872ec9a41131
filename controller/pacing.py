"""
The eyes for power and heat: they look now and then, and keep what follows from it until a turn asks.

Nothing is decided here: `pace.py` does that, and the turns act on it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from controller.pace import FULL, Pace, Pacer, signs
from controller.power import QUIET, PowerReading

log: Final = structlog.get_logger()

LOOK_S: Final = 5.0
"""Seldom enough that asking NVIDIA's tool, a process of its own, costs nothing that counts."""


class Pacing:
    """
    Looks at power and heat.

    Attributes:
        pace: how fast the box is now.
        reading: what it said last.

    """

    def __init__(self, *, read: Callable[[], PowerReading], clock: Callable[[], float], changed: Callable[[], None]) -> None:
        """Know whom to ask; *changed* is called when the pace is another one than before."""
        self.pace: Pace = FULL
        self.reading = QUIET
        self._read = read
        self._clock = clock
        self._changed = changed
        self._pacer = Pacer()
        self._looked_s: float | None = None

    async def keep_watching(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once, and have a turn taken if something follows from it."""
        reading = await asyncio.to_thread(self._read)
        now = self._clock()
        elapsed_s = 0.0 if self._looked_s is None else now - self._looked_s
        pace = self._pacer.see(signs(reading, self.reading, elapsed_s=elapsed_s), now)
        before, self.pace, self.reading, self._looked_s = self.pace, pace, reading, now
        if pace.factor != before.factor:
            log.warning("pace.changed", factor=round(pace.factor, 2), was=round(before.factor, 2), reasons=pace.reasons)
            self._changed()
