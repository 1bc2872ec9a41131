"""
Who is in memory: the desired set, what it takes, and what each resident is worth. Pure.

Whose turn it is to come or go, the scheduler decides. The worth is that of GDSF (Cherkasova, *Improving WWW Proxies Performance
with Greedy-Dual-Size-Frequency Caching*, HP Labs, 1998).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from controller.charges import Account, Cards, Charge
from controller.placement import Wanted
from controller.planner import MAX_RESIDENTS
from controller.records import Record, Records
from controller.replicas import model_of, names
from controller.rules import Rules
from controller.spec import ModelName, ModelSpec, Tier
from controller.state import NEVER_RAN, RunId, Status, Worker
from controller.units import GIB

RUNNING: Final = (Status.STARTING, Status.READY)


class Residency:
    """The models that are to be in memory, and the facts about them."""

    def __init__(
        self, rules: Rules, specs: Mapping[ModelName, ModelSpec], workers: Mapping[ModelName, Worker], now: float
    ) -> None:
        """Adopt what runs, even if that is too much: what must go is drained."""
        self.rules = rules
        self.specs: Mapping[ModelName, ModelSpec] = {}
        self.workers = workers
        self.desired: set[ModelName] = set()
        self._records = Records()
        self._age = 0.0
        self._now_s = now
        self._grace_until_s = now + rules.adoption_grace_s
        self._renounced: set[ModelName] = set()
        self._lost: set[ModelName] = set()
        self._wishes: dict[ModelName, None] = {}
        self._outdated: set[ModelName] = set()
        self.places: dict[ModelName, Cards] = {}
        """Where on the cards a desired worker is to lie; of one that runs, its label says where it does."""
        self.register(specs)
        self._adopted = {m for m, w in workers.items() if w.status in RUNNING}
        self.desired |= self._adopted
        self.places |= {m: workers[m].cards for m in self._adopted}
        for model in self._adopted:
            self.record(model).last_used_s = now

    # What is told.

    def register(self, specs: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now."""
        self._records.follow(self.specs, specs, keep=self.desired)
        self.specs = specs
        self._renounced &= specs.keys()
        self._lost &= specs.keys()
        wished = [s for s in specs.values() if s.pinned or s.tier is Tier.SMALL]
        wished.sort(key=lambda s: (not s.pinned, -s.priority, s.footprint.total_bytes, s.name))
        # No more than these could be resident at once, and a turn must not look at thousands.
        self._wishes = dict.fromkeys(s.name for s in wished[:MAX_RESIDENTS])

    def observe(self, workers: Mapping[ModelName, Worker], now: float) -> None:
        """Take the engine's facts."""
        self.workers, self._now_s = workers, now
        self._outdated = {m for m in self._outdated if not self.is_gone(m)}

    def outdate(self, models: Iterable[ModelName]) -> None:
        """Note that what runs was made from a description that has changed; it holds until that run is gone."""
        self._outdated |= set(models)

    def renounce(self, model: ModelName) -> None:
        """Wish for this one no more, until somebody asks for it."""
        self._renounced.add(model)
        self._lost.discard(model)

    def ask_for(self, model: ModelName) -> None:
        """Take back that it was renounced."""
        self._renounced.discard(model)

    def lose(self, model: ModelName) -> None:
        """Wish for a model that failed until it is back, somebody renounces it, or it rests."""
        if model in self.specs:
            self._lost.add(model)

    def call(self, model: ModelName, now: float) -> None:
        """Count a call."""
        self.record(model).call(now, self._age)

    # Coming and going.

    def enter(self, model: ModelName, now: float, cards: Cards = ()) -> None:
        """Want this model in memory, on these *cards*; its worker is gone, so what runs from now on is what became of this."""
        assert self.is_gone(model), "who has left comes back only when its worker is gone"
        record = self.record(model)
        record.run_before = self.workers[model].run if model in self.workers else NEVER_RAN
        record.ready_since_s = None
        record.floor, record.last_used_s = self._age, now
        record.resting = False
        self._lost.discard(model)
        self.desired.add(model)
        self.places[model] = cards

    def evict(self, model: ModelName, now: float) -> None:
        """Let a model go because others are worth more, by which the cache ages."""
        self._age = max(self._age, self.value(model, now))
        self.leave(model)

    def leave(self, model: ModelName) -> None:
        """Want this model in memory no more."""
        self.desired.discard(model)
        self.places.pop(model, None)
        self._adopted.discard(model)
        self.record(model).ready_since_s = None

    # Questions.

    @property
    def committed(self) -> Account:
        """What the desired workers take from the budgets."""
        return Account(map(self.charge, self.desired))

    def record(self, model: ModelName) -> Record:
        """Return what is remembered of a model."""
        return self._records.of(model, self.specs.get(model))

    def value(self, model: ModelName, now: float) -> float:
        """
        Return what keeping a model is worth: `H = L + frequency * cost / size` of GDSF.

        The cost is the seconds a reload takes, the size is in GiB, and `priority` in `model.toml` doubles the worth at each step.
        """
        record, spec = self.record(model), self.specs.get(model)
        worth = record.popularity(now) * record.load_s / (max(1, self.bytes_of(model)) / GIB)
        return float(record.floor + worth * 2.0 ** (spec.priority if spec else 0))

    def bytes_of(self, model: ModelName) -> int:
        """What a model takes or would take: its label's figure while it runs for us, today's figure until it does."""
        if (labelled := self._labelled(model)) is not None:
            return labelled.memory_bytes
        return self.specs[model].footprint.total_bytes if model in self.specs else 0

    def charge(self, model: ModelName) -> Charge:
        """Return what a worker takes or would take; it shares its weights with whoever was made from the same description."""
        spec, size_bytes, cards = self.specs.get(model), self.bytes_of(model), self.cards_of(model)
        if spec is None or self.is_outdated(model):
            return Charge(total_bytes=size_bytes, cards=cards)
        own = spec.charge
        mapped_bytes = min(own.weights_bytes, size_bytes)
        return Charge(total_bytes=size_bytes, weights=own.weights, weights_bytes=mapped_bytes, cards=cards)

    def cards_of(self, model: ModelName) -> Cards:
        """Return where on the cards a desired worker lies or is to lie: its label says it while it runs for us."""
        if (labelled := self._labelled(model)) is not None:
            return labelled.cards
        return self.places.get(model, ())

    def _labelled(self, model: ModelName) -> Worker | None:
        """Return the worker whose label says what it takes: it runs for us."""
        worker = self.workers.get(model)
        return worker if worker is not None and worker.holds and model in self.desired else None

    def wanted(self, model: ModelName) -> Wanted:
        """Describe a worker that is to come."""
        spec = self.specs[model]
        container = self.workers.get(model)
        home = tuple(part.card for part in container.cards) if container else ()
        return Wanted(model=model, charge=self.charge(model), footprint=spec.footprint, home=home)

    def fits(self, charge: Charge, *, without: Iterable[ModelName] = ()) -> bool:
        """Whether there is room for this one beside all desired workers but those."""
        staying = self.desired - set(without)
        account = Account(map(self.charge, staying))
        return account.fits(self.rules.capacity, charge) and len(staying) < MAX_RESIDENTS

    def workers_of(self, model: ModelName) -> tuple[ModelName, ...]:
        """Return the workers of a model that are to be in memory, the principal first."""
        return tuple(name for name in names(model, self.specs) if name in self.desired)

    def principal(self, model: ModelName) -> ModelName | None:
        """Return which worker of a model its waiting callers keep in memory."""
        return next(iter(self.workers_of(model)), None)

    def is_principal(self, worker: ModelName) -> bool:
        """It is the worker that its model's waiting callers keep in memory."""
        return self.principal(model_of(worker)) == worker

    def is_gone(self, model: ModelName) -> bool:
        """Nothing of it takes memory, ours or not; a container that is held before its engine begins may wait for us."""
        worker = self.workers.get(model)
        return worker is None or not worker.holds

    def is_ready(self, model: ModelName) -> bool:
        """It is wanted, and answers."""
        worker = self.workers.get(model)
        return model in self.desired and worker is not None and worker.status is Status.READY

    def is_served(self, model: ModelName) -> bool:
        """Some worker of it is wanted, and answers."""
        return any(map(self.is_ready, self.workers_of(model)))

    def is_running(self, model: ModelName, run: RunId) -> bool:
        """It is wanted, and this run of it is up."""
        worker = self.workers.get(model)
        return model in self.desired and worker is not None and worker.run == run and worker.status in RUNNING

    def is_outdated(self, model: ModelName) -> bool:
        """What runs was made from a description that has changed."""
        return model in self._outdated

    def is_pinned(self, model: ModelName) -> bool:
        """It never goes."""
        return model in self.specs and self.specs[model].pinned

    def is_cold(self, model: ModelName, now: float) -> bool:
        """It is of the kind that does not stay, and nobody has used it for long."""
        spec, record = self.specs[model], self.record(model)
        idle_s = now - max(record.last_used_s, record.ready_since_s or 0.0)
        return spec.tier is Tier.LARGE and not spec.pinned and idle_s > self.rules.idle_unload_s

    def grace_s(self, model: ModelName) -> float:
        """Return for how long gateways may still renew leases on this model from before the start."""
        return max(0.0, self._grace_until_s - self._now_s) if model in self._adopted else 0.0

    def is_missing(self, model: ModelName) -> bool:
        """It should be in memory without anybody asking for it, and is not."""
        return model in self._wishes and model not in self.desired and model not in self._renounced

    def missing(self, *, pinned: bool) -> list[ModelName]:
        """
        Return the pinned models, or the others, that are missing, the most wanted first.

        The others are those of tier `small`, and whoever failed while it was to be in memory and does not rest.
        """
        wished = [m for m in self._wishes if self.is_pinned(m) is pinned and self.is_missing(m)]
        if pinned:
            return wished
        lost = (m for m in sorted(self._lost - {*wished}) if not self.is_pinned(m) and not self.record(m).resting)
        return [*wished, *lost]
