"""
Many answers by turns, on one thread.

One thread computes and torch spreads each step over the cores. Answers take turns a token at a time: nobody's text depends
on who else is being served, which batching would not promise, and no two steps fight over the same cores.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

Failed = Callable[[Exception], None]


@dataclass(eq=False, slots=True, kw_only=True)
class Ticket:
    """One piece of work in the runner's hands."""

    steps: Generator[None, None, None]
    failed: Failed
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Let the work end before its next step; work that is over does not mind."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more."""
        return self._cancelled.is_set()


class Runner:
    """Advance up to *parallel* pieces of work by turns, a step each; more wait in the order they came."""

    def __init__(
        self, *, parallel: int, surroundings: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ) -> None:
        self._parallel = parallel
        self._surroundings = surroundings
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name="compute", daemon=True).start()

    def submit(self, steps: Generator[None, None, None], *, failed: Failed) -> Ticket:
        """Queue a piece of work; *failed* hears of an error in one of its steps."""
        ticket = Ticket(steps=steps, failed=failed)
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def counts(self) -> tuple[int, int]:
        """Return how many pieces of work are active, and how many wait."""
        with self._changed:
            return len(self._active), len(self._waiting)

    def turn(self) -> None:
        """Admit what may start and advance each active piece of work by one step."""
        with self._changed:
            while self._waiting and len(self._active) < self._parallel:
                self._active.append(self._waiting.popleft())
            active = tuple(self._active)
        for ticket in active:
            if _over(ticket):
                with self._changed:
                    self._active.remove(ticket)

    def _run(self) -> None:
        with self._surroundings():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._active or self._waiting)
                self.turn()


def _over(ticket: Ticket) -> bool:
    if ticket.cancelled:
        ticket.steps.close()
        return True
    try:
        next(ticket.steps)
    except StopIteration:
        return True
    except Exception as exc:  # noqa: BLE001 - one answer's error must not end the thread that serves the others
        ticket.failed(exc)
        return True
    return False
