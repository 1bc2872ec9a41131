"""What the controller says of its health: strangers may ask as often as they like, so an answer is kept for a moment."""

import asyncio
from typing import Final, Protocol

from controller.gateway.problems import ProblemError

KEPT_S: Final = 1.0
"""How old an answer may be: no probe asks more often, and a crowd costs the controller one answer a second."""


class Controller(Protocol):
    """What is asked: the session, as far as it matters here."""

    async def call(self, verb: str, *, timeout_s: float) -> object:
        """Ask, and return the answer."""
        ...


class Health:
    """The last answer, and the question for the next one; callers that come while it is asked wait for the same answer."""

    def __init__(self, controller: Controller) -> None:
        """Remember whom to ask."""
        self._controller = controller
        self._asking = asyncio.Lock()
        self._told: object = None
        self._problem: ProblemError | None = None
        self._kept_until_s = float("-inf")

    async def ask(self, *, timeout_s: float) -> object:
        """
        Return what the controller says.

        Raises:
            ProblemError: it did not answer.

        """
        async with self._asking:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._kept_until_s:
                await self._ask(timeout_s)
                self._kept_until_s = loop.time() + KEPT_S
        if self._problem is not None:
            raise ProblemError(self._problem.kind, str(self._problem))
        return self._told

    async def _ask(self, timeout_s: float) -> None:
        self._told, self._problem = None, None
        try:
            self._told = await self._controller.call("health", timeout_s=timeout_s)
        except ProblemError as exc:
            self._problem = exc
