"""One controller at a time owns the workers: a lock that ends with its process, however that ends."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.1
_MODE: Final = 0o600
"""Whoever may read a file may lock it: gateways see this one, and must not."""


@contextlib.asynccontextmanager
async def tenure(path: Path, *, waits: Callable[[], None]) -> AsyncIterator[None]:
    """Be the only one in this block on this machine; *waits* is called once if it has to wait for another process to end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        if not _take(lock):
            waits()
            while not _take(lock):  # noqa: ASYNC110 -- the kernel tells nobody whose loop has to go on
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
