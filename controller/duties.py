"""Tasks that outlive a bug in what they do."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

log: Final = structlog.get_logger()

PAUSE_S: Final = 1.0
"""The pause before a duty that a bug has ended begins again."""


async def kept_up(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do a duty that never ends, and begin it again if a bug ends it."""
    while True:
        await survived(duty())
        await asyncio.sleep(PAUSE_S)


async def survived(work: Coroutine[Any, Any, Any]) -> None:
    """Keep one failing task from ending the whole group; what it could not do, the next turn asks for again."""
    try:
        await work
    except Exception:  # the controller must outlive a bug in one action
        log.exception("task.failed")
