"""One request's work in the runner's hands, and its results back in the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from worker.errors import RequestError
from worker.runner import Runner

T = TypeVar("T")
Steps = Callable[[Callable[[T], None]], Generator[None, None, None]]
"""Work that is begun by telling it where its results go."""


class HungUpError(Exception):
    """The caller has closed the connection."""


class Work(Generic[T]):
    """
    Several pieces of work of one request.

    Results arrive as `(index, result)` in the order they come. Whoever has enough of them cancels the rest.
    """

    def __init__(self, runner: Runner, pieces: Sequence[Steps[T]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[tuple[int, T | Exception]] = asyncio.Queue()
        self._tickets = [
            runner.submit(steps(partial(self._put, index)), failed=partial(self._put, index))
            for index, steps in enumerate(pieces)
        ]

    async def next(self) -> tuple[int, T]:
        """Wait for the next result; an error in the work is raised here."""
        index, result = await self._results.get()
        if isinstance(result, Exception):
            raise RequestError(
                f"The model failed: {type(result).__name__}: {result}", status=500, code="model_failed"
            ) from result
        return index, result

    def cancel(self) -> None:
        """End whatever is not over, at its next step."""
        for ticket in self._tickets:
            ticket.cancel()

    def _put(self, index: int, result: T | Exception) -> None:
        self._loop.call_soon_threadsafe(self._results.put_nowait, (index, result))


async def unless_gone(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """
    Wait for something on behalf of a caller who may hang up.

    A plain endpoint runs on after its caller has gone; here the connection is watched at the same time.

    Raises:
        HungUpError: the caller has gone, and what was waited for has been cancelled.

    """
    wanted, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({wanted, gone}, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise HungUpError
    finally:
        wanted.cancel()
        gone.cancel()
        await asyncio.gather(wanted, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
