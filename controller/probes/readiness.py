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


async def wait_ready(socket: PurePosixPath, *, timeout_s: float, still_wanted: Callable[[], bool]) -> bool:
    """Wait until the worker answers 200; false when time is up or nobody wants to know any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while still_wanted():
                status = await health(socket, timeout_s=min(5.0, timeout_s))
                if status == 200:
                    return True
                await asyncio.sleep(POLL_S if status is None else SLOW_POLL_S)
    return False
