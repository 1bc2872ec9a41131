"""A folder short enough for the paths of sockets, and threads that take no time."""

# ruff: noqa: ANN401 -- arguments of any type are handed on

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.controller.rig import Machine


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder with a short path: a socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="wl-") as made:
        yield Path(made)


class _AtOnce(ThreadPoolExecutor):
    """Does the work when it is given it: a thread takes real time, of which a virtual clock knows nothing."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 -- it is handed on
            done.set_exception(exc)
        return done


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """Give the test an engine whose processes end with it."""
    asyncio.get_running_loop().set_default_executor(_AtOnce())
    made = Machine()
    yield made
    await made.power_off()
