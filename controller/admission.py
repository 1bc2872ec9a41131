"""
Who comes into memory, on which cards, and who leaves for it: claims of models with callers, further workers, wishes. Pure.

Rules 4 and 5 of the scheduler are here, and what comes of a budget that has shrunk.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from controller.callers import Callers
from controller.charges import Cards
from controller.drains import FIRST, Drain, Drains
from controller.placement import Choice, choose
from controller.planner import MAX_RESIDENTS, Refuse, Resident, Start, Wait, plan
from controller.replicas import names
from controller.residency import Residency
from controller.spec import ModelName


class Admission:
    """
    Lets workers in.

    Attributes:
        coming: where those are to lie who are let in as soon as others have left, as the last turn saw it.

    """

    def __init__(self, residency: Residency, callers: Callers, drains: Drains) -> None:
        """Nobody is to come."""
        self.coming: Mapping[ModelName, Cards] = {}
        self._residency = residency
        self._callers = callers
        self._drains = drains

    def admit(self, now: float) -> list[ModelName]:
        """
        Let claimants in, the one with the oldest caller first; who must wait reserves what it waits for.

        Returns who can never fit: nobody is to wait for those.
        """
        hopeless: list[ModelName] = []
        if drains := self._shrink(now):
            self._drains.current, self.coming = drains, {}
            return hopeless
        going: set[ModelName] = set()
        coming: list[Resident] = []
        for model, sequence in self._claims(now):
            residents = self._drains.residents(model, sequence, now)
            choice = self.choose(model, residents, coming=coming, going=going)
            match choice.plan:
                case Refuse() if coming:
                    break
                case Refuse():
                    hopeless.append(model)
                    continue
                case Start(evict=victims) if self._residency.fits(choice.charge, without=victims):
                    self._evict(victims, now)
                    if self._residency.is_gone(model):
                        self._residency.enter(model, now, choice.charge.cards)
                        continue
                case Wait(drain=victims):
                    going |= set(victims)
                    drains |= self._drains.begin(victims, model, now)
            coming.append(Resident(model=model, charge=choice.charge, value=math.inf, busy=True, pinned=True))
        self._drains.current, self.coming = drains, {r.model: r.charge.cards for r in coming}
        return hopeless

    def choose(
        self,
        model: ModelName,
        residents: Sequence[Resident],
        *,
        coming: Sequence[Resident] = (),
        going: Set[ModelName] = frozenset(),
    ) -> Choice:
        """Say where a model is to lie, and who must leave for it, as if those who are *going* were gone."""
        standing = [r for r in residents if r.model not in going]
        leaving = [r for r in residents if r.model in going]
        return choose(self._residency.rules.capacity, standing, self._residency.wanted(model), coming=coming, going=leaving)

    def _shrink(self, now: float) -> dict[ModelName, Drain]:
        """Let go what a smaller budget does not hold any more, pinned models last; return what is still in use."""
        capacity, committed = self._residency.rules.capacity, self._residency.committed
        if committed.fits(capacity):
            return {}
        residents = self._drains.residents(None, FIRST, now)
        answer = plan(capacity, residents, places=MAX_RESIDENTS + 1)
        if isinstance(answer, Refuse):  # what is pinned is too much already: it goes like everybody else, but last
            residents = [replace(r, pinned=False) for r in residents]
            answer = plan(capacity, residents, places=MAX_RESIDENTS + 1)
        if isinstance(answer, Wait):
            # All of them that hold some of what is short are not enough, and whoever is busy may take long.
            idle = [r.model for r in residents if not r.busy and not r.pinned and committed.lacks(capacity, r.charge)]
            self._evict(idle, now)
            return self._drains.begin([m for m in answer.drain if m not in idle], None, now)
        assert isinstance(answer, Start), "with nothing pinned, nothing fits into every budget"
        self._evict(answer.evict, now)
        return {}

    def multiply(self, now: float) -> None:
        """Load one more worker of a model whose callers wait, where memory is free and no model has to come first."""
        if self._drains.current or self._claims(now):
            return
        for model in self._callers.models():
            inside = self._residency.workers_of(model)
            if not inside or not all(map(self._residency.is_ready, inside)):
                continue
            spare = (name for name in names(model, self._residency.specs) if name not in inside)
            for name in spare:
                if self._come_beside(name, now):
                    break

    def wish(self, now: float) -> None:
        """Load small models, and those that failed, where they fit while nobody waits; pinned ones do not wish, they claim."""
        if self._callers:
            return
        for model in self._residency.missing(pinned=False):
            self._come_beside(model, now)

    def _come_beside(self, worker: ModelName, now: float) -> bool:
        """Let a worker come if it may and takes nobody's place."""
        may_come = self._residency.is_gone(worker) and now >= self._residency.record(worker).retry_at_s
        if not may_come or not self._residency.fits(self._residency.charge(worker)):
            return False
        choice = self.choose(worker, self._drains.residents(None, FIRST, now))
        if choice.plan != Start():
            return False
        self._residency.enter(worker, now, choice.charge.cards)
        return True

    def _evict(self, victims: Iterable[ModelName], now: float) -> None:
        for victim in victims:
            self._residency.evict(victim, now)
            self._drains.current.pop(victim, None)

    def _claims(self, now: float) -> list[tuple[ModelName, int]]:
        """Return who wants to come, with the place of its oldest caller: pinned models, then the oldest first."""
        pinned = [(m, FIRST) for m in self._residency.missing(pinned=True)]
        heads = ((self._callers.of(m)[0].sequence, m) for m in self._callers.models() if not self._residency.workers_of(m))
        claims = [*pinned, *((m, sequence) for sequence, m in sorted(heads) if (m, FIRST) not in pinned)]
        return [(m, sequence) for m, sequence in claims if now >= self._residency.record(m).retry_at_s]
