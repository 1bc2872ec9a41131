"""Wait for a condition in the real world, with a deadline; nothing in the tests sleeps for a fixed time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

STEP_S = 0.02


async def until(what: str, look: Callable[[], Any], *, deadline_s: float = 20.0) -> Any:  # noqa: ANN401 -- whatever *look* returns
    """Look again and again until what is seen is true, and return it; fail with *what* when the deadline has passed."""
    ends_s = time.monotonic() + deadline_s
    while True:
        seen = look()
        if inspect.isawaitable(seen):
            seen = await seen
        if seen:
            return seen
        assert time.monotonic() < ends_s, f"waited {deadline_s:.0f} s for: {what}"
        await asyncio.sleep(STEP_S)
