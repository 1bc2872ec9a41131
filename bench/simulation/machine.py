"""The simulated box: a clock that jumps from event to event, a disk that reads for one load at a time, accelerators."""

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from bench.simulation.workload import Job

BUDGET_BYTES: Final = 5_200_000_000
READ_BYTES_PER_S: Final = 2.5e9
START_S: Final = 0.6
"""Container, process, warm-up: what a load takes beside reading. It too is one load at a time, since all of it needs the disk."""
STOP_S: Final = 0.1
"""From the kill until the memory is back."""


def load_s(memory_bytes: int) -> float:
    """Return how long a load takes once it is its turn."""
    return memory_bytes / READ_BYTES_PER_S + START_S


class Machine:
    """
    Time, disk and accelerators, of which there are as many as are used. Whoever uses it is called back.

    Attributes:
        now: the virtual time.
        waits_s: by job, from its arrival until an accelerator began on it.
        loads: how many there were.

    """

    def __init__(self) -> None:
        """Begin at zero with nothing under way."""
        self.now = 0.0
        self.waits_s: dict[int, float] = {}
        self.loads = 0
        self._serial = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._disk_free_s = 0.0
        self._lines: defaultdict[int, deque[tuple[Job, Callable[[], None]]]] = defaultdict(deque)
        self._working: set[int] = set()

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        """Call back at a time."""
        heapq.heappush(self._events, (when_s, next(self._serial), call))

    def load(self, memory_bytes: int, ready: Callable[[], None]) -> None:
        """Load so many bytes, after the loads before it."""
        self.loads += 1
        self._disk_free_s = max(self._disk_free_s, self.now) + load_s(memory_bytes)
        self.at(self._disk_free_s, ready)

    def stop(self, stopped: Callable[[], None]) -> None:
        """End a worker."""
        self.at(self.now + STOP_S, stopped)

    def serve(self, job: Job, done: Callable[[], None], *, card: int = 0) -> None:
        """Give a request to an accelerator, which takes them as they come."""
        self._lines[card].append((job, done))
        self._work(card)

    def step(self, until_s: float) -> bool:
        """Go on to the next events, those of one moment together; false if none is due before *until_s*, which it is then."""
        if not self._events or self._events[0][0] > until_s:
            self.now = max(self.now, until_s)
            return False
        self.now = self._events[0][0]
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        return True

    def _work(self, card: int) -> None:
        if card in self._working or not self._lines[card]:
            return
        self._working.add(card)
        job, done = self._lines[card].popleft()
        self.waits_s[job.number] = self.now - job.at_s

        def finished() -> None:
            self._working.discard(card)
            done()
            self._work(card)

        self.at(self.now + job.service_s, finished)
