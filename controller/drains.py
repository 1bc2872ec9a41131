"""Residents that must go although somebody uses them: whom they still serve until then. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.callers import Callers, Waiter
from controller.planner import Resident
from controller.replicas import model_of
from controller.residency import Residency
from controller.spec import ModelName

FIRST: Final = 0
"""The place of a claim that comes before all callers: a pinned model, or a budget that has shrunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A resident that must go so that *claimant* can come; no claimant means that the budget has shrunk."""

    claimant: ModelName | None
    since_s: float
    gate: int
    """The last caller who had come when the drain began."""


class Drains:
    """The drains under way, as the last turn left them."""

    def __init__(self, residency: Residency, callers: Callers) -> None:
        """Start with none."""
        self.current: dict[ModelName, Drain] = {}
        self._residency = residency
        self._callers = callers

    def __contains__(self, model: object) -> bool:
        """It must go."""
        return model in self.current

    def begin(self, victims: Iterable[ModelName], claimant: ModelName | None, now: float) -> dict[ModelName, Drain]:
        """Return the drains of *victims*: those that this claimant began go on, the others begin."""
        drains = {}
        for victim in victims:
            drain = self.current.get(victim)
            if drain is None or drain.claimant != claimant:
                drain = Drain(claimant=claimant, since_s=now, gate=self._callers.ticket())
            drains[victim] = drain
        return drains

    def of(self, claimant: ModelName) -> tuple[ModelName, ...]:
        """Return who must go for *claimant*."""
        return tuple(sorted(m for m, d in self.current.items() if d.claimant == claimant))

    def lets_in(self, waiter: Waiter, worker: ModelName, now: float) -> bool:
        """Whether this caller may still be served by this ready worker of its model."""
        if self._residency.is_outdated(worker):
            return False
        drain = self.current.get(worker)
        if drain is None:
            return True
        if worker != self._residency.principal(waiter.model):
            return False
        head = self._place_of(drain.claimant)
        if head is None or waiter.sequence < head:
            return True
        record, rules = self._residency.record(worker), self._residency.rules
        assert record.ready_since_s is not None, "only a ready worker's callers are asked for"
        if waiter.sequence < max(drain.gate, record.gate):
            return now - max(drain.since_s, record.ready_since_s) < rules.quantum_s
        return now - record.ready_since_s < rules.min_residency_s

    def residents(self, claimant: ModelName | None, place: int | None, now: float) -> list[Resident]:
        """Return the desired workers as a claimant whose oldest caller is number *place* must see them."""
        return [
            Resident(
                model=model,
                charge=self._residency.charge(model),
                value=math.inf if self._residency.is_pinned(model) else self._residency.value(model, now),
                busy=self._is_needed(model, place, now),
                pinned=self._residency.is_pinned(model),
                draining=model in self.current and self.current[model].claimant == claimant,
            )
            for model in self._residency.desired
        ]

    def _is_needed(self, model: ModelName, place: int | None, now: float) -> bool:
        """Somebody uses it, or has the right to before a caller who came as number *place*."""
        if self._residency.record(model).leases or self._residency.grace_s(model) > 0:
            return True
        waiters = self._callers.of(model_of(model)) if self._residency.is_principal(model) else ()
        if not self._residency.is_ready(model):
            # What is only being loaded gives way to who comes before all callers: a shrunk budget may never let it start.
            return bool(waiters) and place != FIRST
        return any(self.lets_in(w, model, now) or (place is not None and w.sequence < place) for w in waiters)

    def _place_of(self, claimant: ModelName | None) -> int | None:
        """Return the place of a claim; none if all its callers have gone."""
        if claimant is None or (self._residency.is_pinned(claimant) and self._residency.is_missing(claimant)):
            return FIRST
        return self._callers.head(claimant)
