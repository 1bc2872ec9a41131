"""One controller at a time owns the workers: a lock that ends with its process, however that ends."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import structlog

log: Final = structlog.get_logger()

LOOK_S: Final = 0.1
LOOKS_A_WORD: Final = 10
"""Looks from one word of waiting to the next."""
_MODE: Final = 0o600
"""Whoever may read a file may lock it: gateways see this one, and must not."""


@contextlib.asynccontextmanager
async def tenure(path: Path, *, waits: Callable[[], None]) -> AsyncIterator[None]:
    """
    Be the only one in this block on this machine.

    Args:
        path: the lock.
        waits: called about once a second while another process has to end first: whoever listens now may be another than before.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        looks = 0
        while not _take(lock):  # the kernel tells nobody whose loop has to go on
            if looks % LOOKS_A_WORD == 0:
                waits()
            if looks == 0:
                log.info("tenure.waits", lock=str(path))
            looks += 1
            await asyncio.sleep(LOOK_S)
        yield
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
