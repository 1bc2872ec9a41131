"""
The policies to compare with: what simple servers of many models do. They know the machine and nothing of the scheduler.

Each model that has to come takes the place of the least recently used ones.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from bench.simulation.machine import BUDGET_BYTES, Machine
from bench.simulation.workload import Job, Workload
from controller.spec import ModelName

OVERDUE_S: Final = 30.0
"""Whoever has waited so long comes first under drain + LRU."""

Pick = Callable[[Sequence[Job], Iterable[ModelName], float], Job]


def first_come(queue: Sequence[Job], resident: Iterable[ModelName], now: float) -> Job:  # noqa: ARG001  # one shape for all
    """FIFO: the oldest request."""
    return queue[0]


def drain_first(queue: Sequence[Job], resident: Iterable[ModelName], now: float) -> Job:
    """Drain: the oldest request for a model in memory; but whoever is overdue, and where there is none, the oldest of all."""
    oldest = queue[0]
    if now - oldest.at_s > OVERDUE_S:
        return oldest
    here = set(resident)
    return next((job for job in queue if job.model in here), oldest)


class Baseline:
    """Picks one request after the other, and has up to `ahead` of them under way, so that one is loaded for while others run."""

    def __init__(self, workload: Workload, pick: Pick, *, ahead: int = 1) -> None:
        """Begin with empty memory."""
        self.machine = Machine()
        self._queue: list[Job] = []
        self._resident: dict[ModelName, int] = {}
        """From the least to the most recently used."""
        self._busy: Counter[ModelName] = Counter()
        self._loading = False
        self._sizes = {m.name: m.memory_bytes for m in workload.models}
        self._pick = pick
        self._ahead = ahead
        for job in workload.jobs:
            self.machine.at(job.at_s, partial(self._arrive, job))

    def run(self) -> Machine:
        """Go on until everybody is served."""
        while self.machine.step(float("inf")):
            pass
        return self.machine

    def _arrive(self, job: Job) -> None:
        self._queue.append(job)
        self._next()

    def _next(self) -> None:
        while self._queue and not self._loading and self._busy.total() < self._ahead:
            job = self._pick(self._queue, self._resident, self.machine.now)
            if job.model not in self._resident:
                self._bring(job.model)
                return
            self._queue.remove(job)
            self._resident[job.model] = self._resident.pop(job.model)
            self._busy[job.model] += 1
            self.machine.serve(job, partial(self._done, job.model))

    def _bring(self, model: ModelName) -> None:
        """Load a model, if those that are idle make room enough; if not, somebody is served soon and it is tried again."""
        excess_bytes = sum(self._resident.values()) + self._sizes[model] - BUDGET_BYTES
        victims: list[ModelName] = []
        for victim in (m for m in self._resident if not self._busy[m]):
            if excess_bytes <= 0:
                break
            victims.append(victim)
            excess_bytes -= self._resident[victim]
        if excess_bytes > 0:
            return
        for victim in victims:
            del self._resident[victim]
        self._loading = True
        load = partial(self.machine.load, self._sizes[model], partial(self._ready, model))
        if victims:
            self.machine.stop(load)
        else:
            load()

    def _ready(self, model: ModelName) -> None:
        self._loading = False
        self._resident[model] = self._sizes[model]
        self._next()

    def _done(self, model: ModelName) -> None:
        self._busy[model] -= 1
        self._next()
