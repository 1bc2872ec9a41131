"""Everybody who waits, by model, in the order they came. Pure: the one who asks brings the time."""

import bisect
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controller.spec import ModelName
from controller.state import LeaseId

PUBLISH_S: Final = 1.0
"""A waiting caller hears of its place no more often than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """
    One caller in the queue.

    `sequence` is the order of arrival; `load_only` wants the model loaded and no lease; `places` is how many callers a worker of
    the model serves at once, as the caller's bound has it.
    """

    lease: LeaseId
    model: ModelName
    sequence: int
    since_s: float
    bound_s: float
    batch: bool = False
    load_only: bool = False
    until_s: float | None = None
    places: int = 1


class Callers:
    """The queue."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._queues: dict[ModelName, list[Waiter]] = {}
        self._promised: dict[ModelName, Counter[int]] = {}
        self._where: dict[LeaseId, ModelName] = {}
        self._due_s: dict[LeaseId, float] = {}
        self._tickets = itertools.count(1)

    def __len__(self) -> int:
        """Count them all."""
        return len(self._where)

    def __iter__(self) -> Iterator[Waiter]:
        """Go through them, one model after the other."""
        return itertools.chain.from_iterable(self._queues.values())

    def ticket(self) -> int:
        """Return the number of the next to come; it is used up."""
        return next(self._tickets)

    def add(self, waiter: Waiter) -> None:
        """Let one wait; its ticket is younger than all others."""
        self._queues.setdefault(waiter.model, []).append(waiter)
        self._promised.setdefault(waiter.model, Counter())[waiter.places] += 1
        self._where[waiter.lease] = waiter.model
        self._due_s[waiter.lease] = waiter.since_s

    def remove(self, lease: LeaseId) -> bool:
        """Let one go; false if it does not wait."""
        model = self._where.pop(lease, None)
        if model is None:
            return False
        del self._due_s[lease]
        queue, promised = self._queues[model], self._promised[model]
        gone = queue.pop(next(place for place, w in enumerate(queue) if w.lease == lease))
        promised[gone.places] -= 1
        if not promised[gone.places]:
            del promised[gone.places]
        if not queue:
            del self._queues[model], self._promised[model]
        return True

    def models(self) -> tuple[ModelName, ...]:
        """Return the models somebody waits for."""
        return tuple(self._queues)

    def of(self, model: ModelName) -> Sequence[Waiter]:
        """Return who waits for *model*, the oldest first."""
        return tuple(self._queues.get(model, ()))

    def head(self, model: ModelName) -> int | None:
        """Return the ticket of the oldest who waits for *model*."""
        queue = self._queues.get(model)
        return queue[0].sequence if queue else None

    def promised(self, model: ModelName) -> Collection[int]:
        """Return the places at once that the bounds of those who wait for *model* count on, each figure once."""
        return self._promised.get(model, {}).keys()

    def count_before(self, model: ModelName, sequence: int | None) -> int:
        """Count who waits for *model* and came before *sequence*; without one, count all."""
        queue = self._queues.get(model, ())
        return len(queue) if sequence is None else bisect.bisect_left(queue, sequence, key=lambda w: w.sequence)

    def in_order(self) -> list[Waiter]:
        """Return everybody, the oldest first."""
        return sorted(self, key=lambda w: w.sequence)

    def overdue(self, now: float) -> list[Waiter]:
        """Return those who did not want to wait for this long."""
        return [w for w in self if w.until_s is not None and now >= w.until_s]

    def to_tell(self, now: float) -> list[tuple[int, Waiter]]:
        """Return who has not heard of its place for a while, with that place counted from 1."""
        if not any(now >= due_s for due_s in self._due_s.values()):
            return []
        told = [(place, w) for place, w in enumerate(self.in_order(), start=1) if now >= self._due_s[w.lease]]
        self._due_s |= {w.lease: now + PUBLISH_S for _, w in told}
        return told
