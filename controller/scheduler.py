"""
Who is served, and who is resident. Pure: time and the engine's facts come in as arguments.

It never speaks of containers. It owns the queue, the leases and the desired set; one writer calls it, and it has no locks.

The rules, in the order they apply:

1. A lease ends when its worker is gone, when its time is up, or when it is given back.
2. A desired worker that ran and ended has failed. It is tried again after a pause that doubles; after `max_failures` in a row
   its callers are told why, and it rests.
3. A ready worker serves its callers in the order they came, interactive before batch, but no batch caller waits longer than
   `batch_patience_s` for that reason alone.
4. A model with callers that is not resident is a *claimant*; the one with the oldest caller is the first, after pinned models. It
   evicts the idle workers of the lowest value (GDSF: Cherkasova, *Improving WWW Proxies Performance with
   Greedy-Dual-Size-Frequency Caching*, HP Labs, 1998). If not enough is idle, it drains the least valuable busy ones: those go on
   serving callers who are older than the claimant's, then whoever had come when the drain began or the model became ready, for
   one quantum at most, then nobody.
5. Younger claimants go ahead where they fit beside what the older ones have reserved; behind one who cannot even reserve, nobody
   enters, or small models could keep a large one out for ever.
6. Who has left comes back only when its worker is gone: so what a desired worker does is what became of this decision.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from controller.answers import Answer, Grant, Notice, Refusal, Revocation
from controller.callers import Callers, Waiter
from controller.errors import Reason, RefusedError
from controller.forecast import Line, bound_s, eta_s
from controller.planner import MAX_RESIDENTS, Plan, Refuse, Resident, Start, Wait, plan
from controller.records import Record, Records
from controller.rules import Rules, with_budget
from controller.spec import ModelName, ModelSpec, Tier
from controller.state import NEVER_RAN, Exit, ExitCause, Lease, LeaseId, RunId, Status, Worker
from controller.units import GIB, format_bytes, format_seconds

__all__ = [
    "Answer",
    "Drain",
    "Grant",
    "Notice",
    "Record",
    "Refusal",
    "Revocation",
    "Rules",
    "Scheduler",
    "Waiter",
    "with_budget",
]

RUNNING: Final = (Status.STARTING, Status.READY)
FIRST: Final = 0
"""The place of a claim that comes before all callers: a pinned model, or a budget that has shrunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A resident that must go so that *claimant* can come; no claimant means that the budget has shrunk."""

    claimant: ModelName | None
    since_s: float
    gate: int
    """The last caller who had come when the drain began."""


class Scheduler:
    """Decide; never act."""

    def __init__(
        self, rules: Rules, specs: Mapping[ModelName, ModelSpec], workers: Mapping[ModelName, Worker], now: float
    ) -> None:
        """Adopt what runs, even if that is too much: restart is the same as start, and what must go is drained."""
        self.rules = rules
        self.desired: set[ModelName] = set()
        self.leases: dict[LeaseId, Lease] = {}
        self.drains: dict[ModelName, Drain] = {}
        self._specs: Mapping[ModelName, ModelSpec] = {}
        self._workers = workers
        self._callers = Callers()
        self._records = Records()
        self._age = 0.0
        self._grace_until_s = now + rules.adoption_grace_s
        self._unwished: set[ModelName] = set()
        self._wishes: tuple[ModelName, ...] = ()
        self._outdated: set[ModelName] = set()
        self.register(specs)
        for model in [m for m, w in workers.items() if w.status in RUNNING]:
            self.desired.add(model)
            self.record(model).last_used_s = now

    # What callers and operators say.

    def register(self, specs: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now: models that left are drained, and a model that changed is given another chance."""
        self._records.follow(self._specs, specs, keep=self.desired)
        self._specs = specs
        self._unwished &= specs.keys()
        wished = [s for s in specs.values() if s.pinned or s.tier is Tier.SMALL]
        wished.sort(key=lambda s: (not s.pinned, -s.priority, s.footprint.total_bytes, s.name))
        # No more than these could be resident at once, and a turn must not look at thousands.
        self._wishes = tuple(s.name for s in wished[:MAX_RESIDENTS])

    def outdate(self, models: Iterable[ModelName]) -> None:
        """Load these anew: what runs was made from a description that has changed. Their callers wait for the new one."""
        self._outdated |= set(models)

    def fail(self, model: ModelName, detail: str, now: float) -> list[Answer]:
        """Count a container that could not even be made or started as a failure of its model."""
        return self._count_failure(model, Exit(cause=ExitCause.CRASHED, code=-1, detail=detail), now)

    def request(
        self,
        lease: LeaseId,
        model: ModelName,
        now: float,
        *,
        batch: bool = False,
        load_only: bool = False,
        deadline_s: float | None = None,
    ) -> None:
        """
        Let a caller ask for *model*; a later turn answers it.

        Args:
            lease: whom to answer.
            model: a registered model.
            now: the core's clock.
            batch: it may wait behind interactive callers.
            load_only: it wants the model loaded, not a lease.
            deadline_s: how long it is willing to wait.

        Raises:
            RefusedError: no such model, no room in the queue, a model that can never fit or rests, or a deadline nobody can meet.

        """
        self._refuse_unknown(model)
        self._unwished.discard(model)
        if load_only:
            self.record(model).forgive()
        self._refuse_hopeless(model, now)
        own, others = self._lines(model)
        self._refuse_late(eta_s(own, others), deadline_s)
        self._callers.add(
            Waiter(
                lease=lease,
                model=model,
                sequence=self._callers.ticket(),
                since_s=now,
                bound_s=bound_s(
                    own,
                    others,
                    quantum_s=self.rules.quantum_s,
                    request_limit_s=self.rules.request_limit_s,
                    patience_s=self.rules.batch_patience_s if batch else None,
                ),
                batch=batch,
                load_only=load_only,
                until_s=None if deadline_s is None else now + deadline_s,
            )
        )

    def renew(self, lease: LeaseId, model: ModelName, run: RunId, now: float) -> bool:
        """Take back a lease that was granted before a restart; false if its worker is not there any more."""
        worker = self._workers.get(model)
        if model not in self.desired or worker is None or worker.run != run or worker.status not in RUNNING:
            return False
        self._hold(lease, model, run, now)
        return True

    def release(self, lease: LeaseId, now: float, *, served_s: float | None = None) -> None:
        """Let a caller go, queued or served. `served_s` says that it was answered to the end, and how long that took."""
        if self._callers.remove(lease) or (held := self.leases.pop(lease, None)) is None:
            return
        record = self.record(held.model)
        record.leases.discard(lease)
        record.last_used_s = now
        if served_s is not None:
            record.serve(served_s)

    def unload(self, model: ModelName, *, force: bool) -> list[Answer]:
        """
        Let a model go.

        Raises:
            RefusedError: it is pinned or busy, and *force* is not set.

        """
        self._refuse_unknown(model)
        record = self.record(model)
        if not force and self._is_pinned(model):
            raise RefusedError(Reason.CONFLICT, f"{model} is pinned; force the unload, or take `pinned` out of its model.toml")
        if not force and record.leases:
            text = f"{model} is answering {len(record.leases)} callers; wait for them, or force the unload"
            raise RefusedError(Reason.CONFLICT, text)
        self._unwished.add(model)
        answers: list[Answer] = [Revocation(lease=lease, model=model, cause="unloaded") for lease in sorted(record.leases)]
        for answer in answers:
            del self.leases[answer.lease]
        record.leases.clear()
        self._leave(model)
        return answers

    def loaded(self, model: ModelName, load_s: float) -> None:
        """Learn how long a load took."""
        self.record(model).load_s = load_s

    # What the pool asks.

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._callers)

    def has_callers(self, model: ModelName) -> bool:
        """Say whether somebody waits for this model."""
        return self._callers.head(model) is not None

    @property
    def committed_bytes(self) -> int:
        """What the desired workers take from the budget."""
        return sum(self._bytes_of(m) for m in self.desired)

    def queue(self) -> list[Waiter]:
        """Return everybody who waits, in the order they came."""
        return self._callers.in_order()

    def record(self, model: ModelName) -> Record:
        """Return what is remembered of a model."""
        return self._records.of(model, self._specs.get(model))

    def notice(self, waiter: Waiter, position: int, now: float) -> Notice:
        """Say where a caller stands."""
        own, others = self._lines(waiter.model, before=waiter.sequence)
        return Notice(
            lease=waiter.lease,
            model=waiter.model,
            position=position,
            eta_s=eta_s(own, others),
            bound_s=max(0.0, waiter.bound_s - (now - waiter.since_s)),
            loading=waiter.model in self.desired and not self._is_ready(waiter.model),
            evicting=tuple(sorted(m for m, d in self.drains.items() if d.claimant == waiter.model)),
        )

    def expected_wait_s(self, model: ModelName) -> float:
        """Return what a caller of *model* who came now would probably wait."""
        return eta_s(*self._lines(model))

    def preview(self, model: ModelName, now: float) -> Plan:
        """Say what loading *model* now would do to the others, and do nothing."""
        if model in self.desired:
            return Start()
        return plan(self.rules.budget_bytes, self._residents(model, None, now), self._bytes_of(model))

    def value(self, model: ModelName, now: float) -> float:
        """
        Return what keeping a model is worth: `H = L + frequency * cost / size` of GDSF.

        The cost is the seconds a reload takes, the size is in GiB, and `priority` in `model.toml` doubles the worth at each step.
        """
        record, spec = self.record(model), self._specs.get(model)
        worth = record.popularity(now) * record.load_s / (max(1, self._bytes_of(model)) / GIB)
        return float(record.floor + worth * 2.0 ** (spec.priority if spec else 0))

    def turn(self, workers: Mapping[ModelName, Worker], now: float) -> list[Answer]:
        """Take the engine's facts; answer whom we can; update `desired`."""
        self._workers = workers
        self._outdated = {m for m in self._outdated if m in workers and workers[m].status is not Status.STOPPED}
        answers = [*self._end_leases(now)]
        answers += self._settle_failures(now)
        answers += self._settle_queue(now)
        self._let_go(now)
        answers += self._grant(now)
        answers += self._admit(now)
        self._wish(now)
        answers += [self.notice(waiter, position, now) for position, waiter in self._callers.to_tell(now)]
        return answers

    # One turn, step by step.

    def _end_leases(self, now: float) -> Iterator[Answer]:
        for lease in list(self.leases.values()):
            worker = self._workers.get(lease.model)
            cause: ExitCause | Literal["time_limit", "removed"] = "removed"
            detail = ""
            if worker is not None and worker.run == lease.run:
                if worker.status in RUNNING and now - lease.since_s < lease.limit_s:
                    continue
                if worker.status in RUNNING:
                    cause, detail = "time_limit", format_seconds(lease.limit_s)
                elif worker.exit is not None:
                    cause, detail = worker.exit.cause, worker.exit.detail
            self.release(lease.lease, now)
            yield Revocation(lease=lease.lease, model=lease.model, cause=cause, detail=detail)

    def _settle_failures(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in sorted(self.desired):
            worker, record = self._workers.get(model), self.record(model)
            if worker is not None and worker.status is Status.READY:
                if record.ready_since_s is None:
                    record.ready_since_s, record.gate = now, self._callers.ticket()
                continue
            record.ready_since_s = None
            if worker is not None and worker.status is Status.STOPPED and worker.exit and worker.run != record.run_before:
                answers += self._count_failure(model, worker.exit, now)
        return answers

    def _count_failure(self, model: ModelName, ended: Exit, now: float) -> list[Answer]:
        self._leave(model)
        record = self.record(model)
        record.fail(ended, now, backoff_s=self.rules.backoff_s, max_failures=self.rules.max_failures)
        if not record.resting:
            return []
        return self._refuse_all(model, Reason.WORKER_FAILED, record.why_resting(model), retry_after_s=record.retry_at_s - now)

    def _settle_queue(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in self._callers.models():
            if model not in self._specs:
                answers += self._refuse_all(model, Reason.UNKNOWN_MODEL, f"{model} was removed while the request waited")
        for waiter in self._callers.overdue(now):
            text = f"the caller was willing to wait {format_seconds(now - waiter.since_s)}, and that is over"
            retry_after_s = max(1.0, self.expected_wait_s(waiter.model))
            self._callers.remove(waiter.lease)
            answers.append(Refusal(lease=waiter.lease, reason=Reason.TOO_LATE, message=text, retry_after_s=retry_after_s))
        return answers

    def _let_go(self, now: float) -> None:
        """Drop what nobody wants any more: removed, changed, or idle for too long; but not before its leases could be renewed."""
        if now < self._grace_until_s:
            return
        for model in sorted(self.desired):
            unwanted = model not in self._specs or model in self._outdated or self._is_cold(model, now)
            if unwanted and not self.record(model).leases:
                self._leave(model)

    def _grant(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in filter(self._is_ready, self._callers.models()):
            record, run = self.record(model), self._workers[model].run
            for waiter in sorted(self._callers.of(model), key=lambda w: self._serving_order(w, now)):
                if not waiter.load_only:
                    if len(record.leases) >= self._specs[model].parallel or not self._passes_gate(waiter, now):
                        continue
                    self._hold(waiter.lease, model, run, now)
                self._callers.remove(waiter.lease)
                answers.append(
                    Grant(lease=waiter.lease, model=model, run=run, waited_s=now - waiter.since_s, bound_s=waiter.bound_s)
                )
        return answers

    def _admit(self, now: float) -> list[Answer]:
        """Let claimants in, the one with the oldest caller first; who must wait reserves what it waits for."""
        answers: list[Answer] = []
        drains = self._shrink(now)
        if drains:
            self.drains = drains
            return answers
        going: set[ModelName] = set()
        coming: list[Resident] = []
        for model, sequence in self._claims(now):
            want_bytes = self._bytes_of(model)
            standing = [r for r in self._residents(model, sequence, now) if r.model not in going]
            match plan(self.rules.budget_bytes, [*standing, *coming], want_bytes):
                case Refuse() if coming:
                    break
                case Refuse():
                    answers += self._refuse_all(model, Reason.NEVER_FITS, self._why_never(model))
                    continue
                case Start(evict=victims) if self._fits(want_bytes, without=victims):
                    self._evict(victims, now)
                    if self._is_gone(model):
                        self._enter(model, now)
                        continue
                case Wait(drain=victims):
                    going |= set(victims)
                    drains |= {victim: self._drain(victim, model, now) for victim in victims}
            coming.append(Resident(model=model, memory_bytes=want_bytes, value=math.inf, busy=True, pinned=True))
        self.drains = drains
        return answers

    def _shrink(self, now: float) -> dict[ModelName, Drain]:
        """Let go what a smaller budget does not hold any more, pinned models last; return what is still in use."""
        if self.committed_bytes <= self.rules.budget_bytes:
            return {}
        residents = [replace(r, pinned=False, value=math.inf if r.pinned else r.value) for r in self._residents(None, FIRST, now)]
        match plan(self.rules.budget_bytes, residents, 0, places=MAX_RESIDENTS + 1):
            case Start(evict=victims):
                self._evict(victims, now)
                return {}
            case Wait(drain=victims):
                return {victim: self._drain(victim, None, now) for victim in victims}
            case Refuse():
                raise AssertionError("nothing is pinned here, and nothing fits into every budget")

    def _wish(self, now: float) -> None:
        """Load small models where they fit, while nobody waits; pinned ones do not wish, they claim."""
        if self._callers:
            return
        for model in self._wishes:
            absent = model not in self.desired and model not in self._unwished and self._is_gone(model)
            if absent and now >= self.record(model).retry_at_s and self._fits(self._bytes_of(model)):
                self._enter(model, now)

    # What the steps do.

    def _hold(self, lease: LeaseId, model: ModelName, run: RunId, now: float) -> None:
        record = self.record(model)
        record.call(now, self._age)
        record.leases.add(lease)
        self.leases[lease] = Lease(lease=lease, model=model, run=run, since_s=now, limit_s=self.rules.request_limit_s)

    def _enter(self, model: ModelName, now: float) -> None:
        record, worker = self.record(model), self._workers.get(model)
        record.run_before = worker.run if worker else NEVER_RAN
        record.ready_since_s = None
        record.floor, record.last_used_s = self._age, now
        record.resting = False
        self.desired.add(model)

    def _evict(self, victims: Iterable[ModelName], now: float) -> None:
        for victim in victims:
            self._age = max(self._age, self.value(victim, now))
            self._leave(victim)

    def _leave(self, model: ModelName) -> None:
        self.desired.discard(model)
        self.drains.pop(model, None)
        self.record(model).ready_since_s = None

    def _drain(self, victim: ModelName, claimant: ModelName | None, now: float) -> Drain:
        """Begin to drain, or go on with the drain that this claimant began."""
        drain = self.drains.get(victim)
        if drain is not None and drain.claimant == claimant:
            return drain
        return Drain(claimant=claimant, since_s=now, gate=self._callers.ticket())

    # Refusals.

    def _refuse_all(self, model: ModelName, reason: Reason, text: str, *, retry_after_s: float | None = None) -> list[Answer]:
        waiters = self._callers.of(model)
        for waiter in waiters:
            self._callers.remove(waiter.lease)
        return [Refusal(lease=w.lease, reason=reason, message=text, retry_after_s=retry_after_s) for w in waiters]

    def _refuse_unknown(self, model: ModelName) -> None:
        if model not in self._specs:
            raise RefusedError(Reason.UNKNOWN_MODEL, f"no model {model!r} is registered")

    def _refuse_hopeless(self, model: ModelName, now: float) -> None:
        record = self.record(model)
        if record.resting and now < record.retry_at_s:
            raise RefusedError(Reason.UNAVAILABLE, record.why_resting(model), retry_after_s=record.retry_at_s - now)
        if model in self.desired:
            return
        pinned = [r for r in self._residents(model, None, now) if r.pinned]
        if isinstance(plan(self.rules.budget_bytes, pinned, self._bytes_of(model)), Refuse):
            raise RefusedError(Reason.NEVER_FITS, self._why_never(model))

    def _refuse_late(self, likely_s: float, deadline_s: float | None) -> None:
        if self.waiting >= self.rules.queue_limit:
            text = f"{self.waiting} callers are waiting, and no more than {self.rules.queue_limit} may; ask again later"
            raise RefusedError(Reason.QUEUE_FULL, text, retry_after_s=max(1.0, likely_s))
        if deadline_s is not None and likely_s > deadline_s:
            text = f"the answer could begin in {format_seconds(likely_s)}, and the caller waits {format_seconds(deadline_s)}"
            raise RefusedError(Reason.TOO_LATE, text, retry_after_s=max(1.0, likely_s))

    def _why_never(self, model: ModelName) -> str:
        footprint = self._specs[model].footprint
        pinned_bytes = sum(self._bytes_of(m) for m in self.desired if self._is_pinned(m))
        beside = f" beside {format_bytes(pinned_bytes)} of pinned models" if pinned_bytes else ""
        return (
            f"{model} needs {format_bytes(footprint.total_bytes)} ({footprint.source.value}), and the budget is "
            f"{format_bytes(self.rules.budget_bytes)}{beside}; if it needs less, say so with `memory` in its model.toml"
        )

    # Questions.

    def _claims(self, now: float) -> list[tuple[ModelName, int]]:
        """Return who wants to come, with the place of its oldest caller: pinned models, then the oldest first."""
        pinned = [(m, FIRST) for m in self._missing_pinned()]
        heads = ((self._callers.of(m)[0].sequence, m) for m in self._callers.models() if m not in self.desired)
        claims = [*pinned, *((m, sequence) for sequence, m in sorted(heads) if (m, FIRST) not in pinned)]
        return [(m, sequence) for m, sequence in claims if now >= self.record(m).retry_at_s]

    def _missing_pinned(self) -> list[ModelName]:
        return [m for m in self._wishes if self._is_pinned(m) and m not in self.desired and m not in self._unwished]

    def _residents(self, claimant: ModelName | None, sequence: int | None, now: float) -> list[Resident]:
        """Return the desired workers as a claimant whose oldest caller is *sequence* must see them."""
        return [
            Resident(
                model=model,
                memory_bytes=self._bytes_of(model),
                value=self.value(model, now),
                busy=self._is_needed(model, sequence, now),
                pinned=self._is_pinned(model),
                draining=model in self.drains and self.drains[model].claimant == claimant,
            )
            for model in self.desired
        ]

    def _is_needed(self, model: ModelName, sequence: int | None, now: float) -> bool:
        """Somebody uses it, or has the right to before a caller who came as number *sequence*."""
        if self.record(model).leases or now < self._grace_until_s:
            return True
        waiters = self._callers.of(model)
        if not self._is_ready(model):
            return bool(waiters) and sequence != FIRST
        return any(self._passes_gate(w, now) or (sequence is not None and w.sequence < sequence) for w in waiters)

    def _passes_gate(self, waiter: Waiter, now: float) -> bool:
        """Whether a drain, if there is one, still lets this caller in."""
        if waiter.model in self._outdated:
            return False
        drain = self.drains.get(waiter.model)
        if drain is None:
            return True
        head = self._head(drain.claimant)
        if head is None or waiter.sequence < head:
            return True
        record = self.record(waiter.model)
        assert record.ready_since_s is not None, "only who is ready is asked for"
        if waiter.sequence < max(drain.gate, record.gate):
            return now - max(drain.since_s, record.ready_since_s) < self.rules.quantum_s
        return now - record.ready_since_s < self.rules.min_residency_s

    def _head(self, claimant: ModelName | None) -> int | None:
        """Return the place of a claim; nobody's if all its callers have gone."""
        if claimant is None or claimant in self._missing_pinned():
            return FIRST
        return self._callers.head(claimant)

    def _serving_order(self, waiter: Waiter, now: float) -> tuple[bool, int]:
        """Sort interactive callers first; but a batch caller not for longer than it must, and not where its model has to go."""
        steps_back = waiter.batch and waiter.model not in self.drains
        return (steps_back and now - waiter.since_s < self.rules.batch_patience_s, waiter.sequence)

    def _lines(self, model: ModelName, *, before: int | None = None) -> tuple[Line, tuple[Line, ...]]:
        """Return what is in the way of a caller of *model* who came as number *before*, or comes now."""
        involved = {*self._callers.models(), *self.desired, *self._missing_pinned()} - {model}
        return self._line(model, before), tuple(self._line(m, before) for m in sorted(involved))

    def _line(self, model: ModelName, before: int | None) -> Line:
        record, spec = self.record(model), self._specs.get(model)
        return Line(
            model=model,
            waiting=self._callers.count_before(model, before),
            parallel=spec.parallel if spec else 1,
            load_s=record.load_s,
            service_s=record.service_s,
            resident=self._is_ready(model),
            busy=len(record.leases),
            gated=model in self.drains or model in self._outdated,
        )

    def _fits(self, want_bytes: int, *, without: Iterable[ModelName] = ()) -> bool:
        """Whether there is room beside all desired workers but those."""
        staying = self.desired - set(without)
        held_bytes = sum(self._bytes_of(m) for m in staying)
        return held_bytes + want_bytes <= self.rules.budget_bytes and len(staying) < MAX_RESIDENTS

    def _bytes_of(self, model: ModelName) -> int:
        """What a model takes or would take: its label's figure while it runs for us, today's figure until it does."""
        worker = self._workers.get(model)
        if model in self.desired and worker is not None and worker.status is not Status.STOPPED:
            return worker.memory_bytes
        return self._specs[model].footprint.total_bytes if model in self._specs else 0

    def _is_gone(self, model: ModelName) -> bool:
        worker = self._workers.get(model)
        return worker is None or worker.status is Status.STOPPED

    def _is_ready(self, model: ModelName) -> bool:
        worker = self._workers.get(model)
        return model in self.desired and worker is not None and worker.status is Status.READY

    def _is_cold(self, model: ModelName, now: float) -> bool:
        spec, record = self._specs[model], self.record(model)
        if spec.tier is not Tier.LARGE or spec.pinned or self._callers.head(model) is not None:
            return False
        return now - max(record.last_used_s, record.ready_since_s or 0.0) > self.rules.idle_unload_s

    def _is_pinned(self, model: ModelName) -> bool:
        return model in self._specs and self._specs[model].pinned
