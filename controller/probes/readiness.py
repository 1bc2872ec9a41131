"""Ask a worker on its Unix socket whether it answers."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

POLL_S: Final = 0.01
"""How soon a worker that is not there yet is asked again; it costs one failed connect to a local socket."""
SLOW_POLL_S: Final = 0.05
"""And one that answers that it is still loading."""
HEARD_POLL_S: Final = 0.5
"""And one that says by itself when it answers, in case that was lost."""
HEARD_S: Final = 0.02
"""How long its word is waited for when it answers already."""

_STATUS: Final = re.compile(rb"[1-5]\d\d")
_REQUEST: Final = b"GET /health HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n"


async def health(socket: PurePosixPath, *, timeout_s: float) -> int | None:
    """Return the status that `GET /health` answers, or nothing if nobody answers in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(_REQUEST)
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):  # a ValueError is a line without an end: workers run other people's code
        return None
    words = line.split()
    return int(words[1]) if len(words) > 1 and _STATUS.fullmatch(words[1]) else None


async def wait_ready(
    socket: PurePosixPath, *, timeout_s: float, still_wanted: Callable[[], bool], said: asyncio.Event | None = None
) -> bool:
    """
    Wait until the worker answers 200; false when time is up or nobody wants to know any more.

    Args:
        socket: of the worker.
        timeout_s: how long to wait at most.
        still_wanted: whether somebody still wants to know.
        said: set when the worker says that it answers, if it is one that does; then it is asked once, and rarely after that.

    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while still_wanted():
                if said is not None and said.is_set():
                    return True
                status = await health(socket, timeout_s=min(5.0, timeout_s))
                if said is not None:  # what it says of its load is worth a moment
                    await _within(HEARD_S if status == 200 else HEARD_POLL_S, said)
                elif status != 200:
                    await asyncio.sleep(POLL_S if status is None else SLOW_POLL_S)
                if status == 200:
                    return True
    return False


async def _within(limit_s: float, said: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await said.wait()
