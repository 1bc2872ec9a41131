"""
Who is served, and who is resident. Pure: time and the engine's facts come in as arguments.

It never speaks of containers. It owns the queue, the leases and the desired set; one writer calls it, and it has no locks.

The rules, in the order they apply:

1. A lease ends when its worker is gone, when its time is up, or when it is given back.
2. A desired worker that ran and ended has failed. It is tried again after a pause that doubles; after `max_failures` in a row
   its callers are told why, and it rests.
3. A ready worker serves its callers in the order they came, interactive before batch, but no batch caller waits longer than
   `batch_patience_s` for that reason alone.
4. A model with callers that is not resident is a *claimant*; the one with the oldest caller is the first. It evicts the idle
   workers of the lowest value (GDSF: Cherkasova, *Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency
   Caching*, HP Labs, 1998). If not enough is idle, it drains the least valuable busy ones: those go on serving callers who are
   older than the claimant's, then whoever had come when the drain began, for one quantum at most, then nobody.
5. Younger claimants go ahead only where the older ones lose nothing by it.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from controller.errors import Reason, RefusedError
from controller.forecast import Line, bound_s, eta_s
from controller.planner import Refuse, Resident, Start, Wait, plan
from controller.spec import ModelName, ModelSpec, Tier
from controller.state import NEVER_RAN, Exit, ExitCause, Lease, LeaseId, RunId, Status, Worker
from controller.units import format_bytes, format_seconds

MAX_BACKOFF_S: Final = 30.0
REST_S: Final = 300.0
"""How long a model that keeps failing is left alone before one more try."""
PUBLISH_S: Final = 1.0
"""A waiting caller hears of its place no more often than this."""
FREQUENCY_HALF_LIFE_S: Final = 600.0
"""After this long without a call, a model's popularity counts half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The knobs, as `[scheduler]` in the configuration sets them; each is described there."""

    budget_bytes: int
    queue_limit: int = 512
    quantum_s: float = 10.0
    request_limit_s: float = 300.0
    min_residency_s: float = 2.0
    idle_unload_s: float = 300.0
    max_failures: int = 5
    backoff_s: float = 0.5
    batch_patience_s: float = 30.0
    adoption_grace_s: float = 3.0
    """After a start nothing adopted is evicted for this long: gateways renew the leases they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """One caller in the queue. `sequence` is the order of arrival; `load_only` wants the model loaded and no lease."""

    lease: LeaseId
    model: ModelName
    sequence: int
    since_s: float
    bound_s: float
    batch: bool = False
    load_only: bool = False
    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """This caller may talk to the worker. `waited_s` is what it took, `bound_s` what had been promised at most."""

    lease: LeaseId
    model: ModelName
    run: RunId
    waited_s: float
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """This caller gets an error, before anything was sent to it."""

    lease: LeaseId
    reason: Reason
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """This caller's lease is over while it was in use."""

    lease: LeaseId
    model: ModelName
    cause: ExitCause | Literal["time_limit", "removed", "unloaded"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """This caller still waits: its place, counted from 1, and how long it will be."""

    lease: LeaseId
    model: ModelName
    position: int
    eta_s: float
    bound_s: float
    loading: bool
    evicting: tuple[ModelName, ...] = ()


Answer = Grant | Refusal | Revocation | Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A resident that must go so that *claimant* can come."""

    claimant: ModelName
    since_s: float
    gate: int
    """The last caller who had come when the drain began."""


@dataclass(slots=True, kw_only=True)
class Record:
    """What is remembered of one model between turns."""

    load_s: float
    service_s: float = 1.0
    frequency: float = 0.0
    last_used_s: float = 0.0
    floor: float = 0.0
    """The age of the cache when the model was last used: the L of GDSF."""
    run_before: RunId = NEVER_RAN
    """The run the container showed when the model became desired: a later run that has ended is a failure."""
    ready_since_s: float | None = None
    failures: int = 0
    retry_at_s: float = 0.0
    resting: bool = False
    last_exit: Exit | None = None
    served: int = 0
    leases: set[LeaseId] = field(default_factory=set)


class Scheduler:
    """Decide; never act."""

    def __init__(
        self, rules: Rules, specs: Mapping[ModelName, ModelSpec], workers: Mapping[ModelName, Worker], now: float
    ) -> None:
        """Adopt what runs: restart is the same as start."""
        self.rules = rules
        self.desired: set[ModelName] = set()
        self.leases: dict[LeaseId, Lease] = {}
        self.drains: dict[ModelName, Drain] = {}
        self._specs = specs
        self._workers = workers
        self._queues: dict[ModelName, list[Waiter]] = {}
        self._records: dict[ModelName, Record] = {}
        self._sequence = itertools.count(1)
        self._floor = 0.0
        self._grace_until_s = now + rules.adoption_grace_s
        self._published_s: dict[LeaseId, float] = {}
        self._unwished: set[ModelName] = set()
        self._wishes: tuple[ModelName, ...] = ()
        self._outdated: set[ModelName] = set()
        for model, worker in workers.items():
            if (
                worker.status in (Status.STARTING, Status.READY)
                and self._held_bytes() + worker.memory_bytes <= rules.budget_bytes
            ):
                self.desired.add(model)
                self._record(model).run_before = NEVER_RAN
        self.register(specs)

    # What callers and operators say.

    def register(self, specs: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now: models that left are drained, and a model that changed is given another chance."""
        for model, record in self._records.items():
            if model in specs and model in self._specs and specs[model].digest != self._specs[model].digest:
                record.failures, record.resting, record.retry_at_s = 0, False, 0.0
        self._specs = specs
        wished = [s for s in specs.values() if s.pinned or s.tier is Tier.SMALL]
        wished.sort(key=lambda s: (not s.pinned, -s.priority, s.footprint.total_bytes, s.name))
        self._wishes = tuple(s.name for s in wished)

    def outdate(self, models: Iterable[ModelName]) -> None:
        """Load these anew: what runs was made from a description that has changed. Their callers wait for the new one."""
        self._outdated |= self.desired & set(models)

    def fail(self, model: ModelName, detail: str, now: float) -> list[Answer]:
        """Count a container that could not even be made or started as a failure of its model."""
        self.desired.discard(model)
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
        if model not in self._specs:
            raise RefusedError(Reason.UNKNOWN_MODEL, f"no model {model!r} is registered")
        self._unwished.discard(model)
        record = self._record(model)
        if load_only:
            record.failures, record.resting = 0, False
        self._refuse_hopeless(model, record, now)
        own, others = self._lines(model)
        limits = {"quantum_s": self.rules.quantum_s, "request_limit_s": self.rules.request_limit_s}
        wait_bound_s = bound_s(own, others, **limits) + (self.rules.batch_patience_s if batch else 0.0)
        likely_s = eta_s(own, others)
        if self.waiting >= self.rules.queue_limit:
            text = f"{self.waiting} callers are waiting, and no more than {self.rules.queue_limit} may; ask again later"
            raise RefusedError(Reason.QUEUE_FULL, text, retry_after_s=max(1.0, likely_s))
        if deadline_s is not None and likely_s > deadline_s:
            text = f"the answer could begin in {format_seconds(likely_s)}, and the caller waits {format_seconds(deadline_s)}"
            raise RefusedError(Reason.TOO_LATE, text, retry_after_s=max(1.0, likely_s))
        waiter = Waiter(
            lease=lease,
            model=model,
            sequence=next(self._sequence),
            since_s=now,
            bound_s=wait_bound_s,
            batch=batch,
            load_only=load_only,
            until_s=None if deadline_s is None else now + deadline_s,
        )
        self._queues.setdefault(model, []).append(waiter)

    def renew(self, lease: LeaseId, model: ModelName, run: RunId, now: float) -> bool:
        """Take back a lease that was granted before a restart; false if its worker is not there any more."""
        worker = self._workers.get(model)
        if worker is None or worker.run != run or worker.status not in (Status.STARTING, Status.READY):
            return False
        if model not in self.desired:
            return False
        self._hold(lease, model, run, now)
        return True

    def release(self, lease: LeaseId, now: float, *, served_s: float | None = None) -> None:
        """Let a caller go, queued or served. `served_s` says that it was answered to the end, and how long that took."""
        for queue in self._queues.values():
            queue[:] = [w for w in queue if w.lease != lease]
        self._published_s.pop(lease, None)
        if (held := self.leases.pop(lease, None)) is None:
            return
        record = self._record(held.model)
        record.leases.discard(lease)
        record.last_used_s = now
        if served_s is not None:
            record.failures, record.resting = 0, False
            record.service_s += 0.2 * (served_s - record.service_s)
            record.served += 1

    def unload(self, model: ModelName, *, force: bool) -> list[Answer]:
        """
        Let a model go.

        Raises:
            RefusedError: it is pinned or busy, and *force* is not set.

        """
        if model not in self._specs:
            raise RefusedError(Reason.UNKNOWN_MODEL, f"no model {model!r} is registered")
        busy = len(self._record(model).leases)
        if not force and self._is_pinned(model):
            raise RefusedError(Reason.CONFLICT, f"{model} is pinned; force the unload, or take `pinned` out of its model.toml")
        if not force and busy:
            raise RefusedError(Reason.CONFLICT, f"{model} is answering {busy} callers; wait for them, or force the unload")
        self._unwished.add(model)
        return self._dismiss(model, "unloaded")

    # What the pool asks.

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return sum(len(queue) for queue in self._queues.values())

    def has_callers(self, model: ModelName) -> bool:
        """Say whether somebody waits for this model."""
        return bool(self._queues.get(model))

    @property
    def committed_bytes(self) -> int:
        """What the desired workers take from the budget."""
        return self._held_bytes()

    def queue(self) -> list[Waiter]:
        """Return everybody who waits, in the order they came."""
        return sorted(itertools.chain.from_iterable(self._queues.values()), key=lambda w: w.sequence)

    def notice(self, waiter: Waiter, position: int, now: float) -> Notice:
        """Say where a caller stands."""
        own, others = self._lines(waiter.model, before=waiter.sequence)
        loading = waiter.model in self.desired and not self._is_ready(waiter.model)
        return Notice(
            lease=waiter.lease,
            model=waiter.model,
            position=position,
            eta_s=eta_s(own, others),
            bound_s=max(0.0, waiter.bound_s - (now - waiter.since_s)),
            loading=loading,
            evicting=tuple(sorted(m for m, d in self.drains.items() if d.claimant == waiter.model)),
        )

    def record(self, model: ModelName) -> Record:
        """Return what is remembered of a model."""
        return self._record(model)

    def expected_wait_s(self, model: ModelName) -> float:
        """Return what a caller of *model* who came now would probably wait."""
        own, others = self._lines(model)
        return eta_s(own, others)

    def preview(self, model: ModelName, now: float) -> Start | Wait | Refuse:
        """Say what loading *model* now would do to the others, and do nothing."""
        if model in self.desired:
            return Start()
        return plan(self.rules.budget_bytes, self._residents(now, sequence=None, claimant=model), self._want_bytes(model))

    def loaded(self, model: ModelName, load_s: float) -> None:
        """Learn how long a load took."""
        self._record(model).load_s = load_s

    def value(self, model: ModelName, now: float) -> float:
        """
        Return what keeping a model is worth: `H = L + frequency * cost / size` of GDSF.

        The cost is the seconds a reload takes, the size is in GiB, and `priority` in `model.toml` doubles the worth at each step.
        """
        record, spec = self._record(model), self._specs.get(model)
        decay = 0.5 ** ((now - record.last_used_s) / FREQUENCY_HALF_LIFE_S)
        worth = record.frequency * decay * record.load_s / (max(1, self._want_bytes(model)) / 2**30)
        return float(record.floor + worth * 2.0 ** (spec.priority if spec else 0))

    def turn(self, workers: Mapping[ModelName, Worker], now: float) -> list[Answer]:
        """Take the engine's facts; answer whom we can; update `desired`."""
        self._workers = workers
        answers: list[Answer] = []
        answers += self._end_leases(now)
        answers += self._settle_failures(now)
        answers += self._settle_queue(now)
        self._let_go(now)
        answers += self._grant(now)
        answers += self._admit(now)
        answers += self._publish(now)
        return answers

    # One turn, step by step.

    def _end_leases(self, now: float) -> Iterator[Answer]:
        for lease in list(self.leases.values()):
            worker = self._workers.get(lease.model)
            ours = worker is not None and worker.run == lease.run
            if ours and worker is not None and worker.status in (Status.STARTING, Status.READY):
                if now - lease.since_s < lease.limit_s:
                    continue
                revocation = Revocation(
                    lease=lease.lease, model=lease.model, cause="time_limit", detail=format_seconds(lease.limit_s)
                )
            elif ours and worker is not None and worker.exit is not None:
                revocation = Revocation(lease=lease.lease, model=lease.model, cause=worker.exit.cause, detail=worker.exit.detail)
            else:
                revocation = Revocation(lease=lease.lease, model=lease.model, cause="removed")
            self.release(lease.lease, now)
            yield revocation

    def _settle_failures(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in sorted(self.desired):
            worker, record = self._workers.get(model), self._record(model)
            if worker is not None and worker.status is Status.READY:
                record.ready_since_s = now if record.ready_since_s is None else record.ready_since_s
                continue
            record.ready_since_s = None
            if worker is None or worker.status is not Status.STOPPED or worker.run == record.run_before or worker.exit is None:
                continue
            answers += self._count_failure(model, worker.exit, now)
        return answers

    def _count_failure(self, model: ModelName, ended: Exit, now: float) -> list[Answer]:
        self._leave(model)
        record = self._record(model)
        record.failures += 1
        record.last_exit = ended
        record.retry_at_s = now + min(MAX_BACKOFF_S, self.rules.backoff_s * 2.0 ** (record.failures - 1))
        if record.failures < self.rules.max_failures:
            return []
        record.resting, record.retry_at_s = True, now + REST_S
        return self._refuse_all(model, Reason.WORKER_FAILED, self._why_resting(model, record), retry_after_s=REST_S)

    def _settle_queue(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in [m for m in self._queues if m not in self._specs]:
            text = f"{model} was removed while the request waited"
            answers += self._refuse_all(model, Reason.UNKNOWN_MODEL, text)
        for waiter in [w for q in self._queues.values() for w in q if w.until_s is not None and now >= w.until_s]:
            text = f"the caller was willing to wait {format_seconds(now - waiter.since_s)}, and that is over"
            answers.append(Refusal(lease=waiter.lease, reason=Reason.TOO_LATE, message=text, retry_after_s=waiter.bound_s))
            self.release(waiter.lease, now)
        self._queues = {m: q for m, q in self._queues.items() if q}
        return answers

    def _let_go(self, now: float) -> None:
        """Drop what nobody wants any more: removed, changed, idle for too long, or more than the budget holds."""
        for model in sorted(self.desired):
            if self._record(model).leases:
                continue
            if model not in self._specs or model in self._outdated or self._is_cold(model, now):
                self._leave(model)
        idle = [m for m in self.desired if not self._record(m).leases and not self._is_pinned(m)]
        for model in sorted(idle, key=lambda m: (self.value(m, now), m)):
            if self._held_bytes() <= self.rules.budget_bytes:
                break
            self._leave(model)

    def _grant(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model, queue in self._queues.items():
            worker, record = self._workers.get(model), self._record(model)
            if model not in self.desired or worker is None or worker.status is not Status.READY:
                continue
            for waiter in sorted(queue, key=lambda w: self._turn_order(w, now)):
                if not waiter.load_only:
                    if len(record.leases) >= self._specs[model].parallel or not self._passes_gate(waiter, now):
                        continue
                    self._hold(waiter.lease, model, worker.run, now)
                queue.remove(waiter)
                self._published_s.pop(waiter.lease, None)
                answers.append(
                    Grant(lease=waiter.lease, model=model, run=worker.run, waited_s=now - waiter.since_s, bound_s=waiter.bound_s)
                )
        self._queues = {m: q for m, q in self._queues.items() if q}
        return answers

    def _admit(self, now: float) -> list[Answer]:
        """Let claimants in, the one with the oldest caller first; who must wait reserves what it waits for."""
        answers: list[Answer] = []
        drains: dict[ModelName, Drain] = {}
        gone: set[ModelName] = set()
        coming: list[Resident] = []
        for model, sequence in self._claimants(now):
            standing = [r for r in self._residents(now, sequence=sequence, claimant=model) if r.model not in gone]
            want_bytes = self._want_bytes(model)
            reserved = Resident(model=model, memory_bytes=want_bytes, value=0.0, busy=True, pinned=True)
            match plan(self.rules.budget_bytes, [*standing, *coming], want_bytes):
                case Refuse():
                    if not coming:
                        answers += self._refuse_all(model, Reason.NEVER_FITS, self._why_never(model))
                case Start(evict=evict):
                    if self._fits(want_bytes, evict):
                        gone |= set(evict)
                        self._enter(model, evict, now)
                    else:
                        coming.append(reserved)
                case Wait(drain=victims):
                    gone |= set(victims)
                    drains |= {victim: self._drain(victim, model, now) for victim in victims}
                    coming.append(reserved)
        self.drains = {m: d for m, d in drains.items() if m in self.desired}
        self._wish(now)
        return answers

    def _drain(self, victim: ModelName, claimant: ModelName, now: float) -> Drain:
        """Begin to drain, or go on with the drain that this claimant began."""
        drain = self.drains.get(victim)
        if drain is not None and drain.claimant == claimant:
            return drain
        return Drain(claimant=claimant, since_s=now, gate=next(self._sequence))

    def _publish(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        if not self._queues:
            return answers
        for position, waiter in enumerate(self.queue(), start=1):
            if now - self._published_s.get(waiter.lease, -PUBLISH_S) >= PUBLISH_S:
                self._published_s[waiter.lease] = now
                answers.append(self.notice(waiter, position, now))
        return answers

    # The parts.

    def _claimants(self, now: float) -> list[tuple[ModelName, int]]:
        """Return the models that have callers and are not desired, with their oldest caller, the oldest first."""
        heads = [
            (min(w.sequence for w in queue), model)
            for model, queue in self._queues.items()
            if model not in self.desired and now >= self._record(model).retry_at_s
        ]
        return [(model, sequence) for sequence, model in sorted(heads)]

    def _residents(self, now: float, *, sequence: int | None, claimant: ModelName) -> list[Resident]:
        """Return the desired workers as a claimant whose oldest caller is *sequence* must see them."""
        return [
            Resident(
                model=model,
                memory_bytes=self._held_by(model),
                value=self.value(model, now),
                busy=self._is_needed(model, sequence, now),
                pinned=self._is_pinned(model),
                draining=model in self.drains and self.drains[model].claimant == claimant,
            )
            for model in self.desired
        ]

    def _is_needed(self, model: ModelName, sequence: int | None, now: float) -> bool:
        """Somebody uses it, or has the right to before a caller who came as number *sequence*."""
        if self._record(model).leases or now < self._grace_until_s:
            return True
        queue = self._queues.get(model, ())
        if not self._is_ready(model):
            return bool(queue)
        return any(self._passes_gate(w, now) or (sequence is not None and w.sequence < sequence) for w in queue)

    def _passes_gate(self, waiter: Waiter, now: float) -> bool:
        drain = self.drains.get(waiter.model)
        if drain is None:
            return waiter.model not in self._outdated
        head = min((w.sequence for w in self._queues.get(drain.claimant, ())), default=None)
        if head is None or waiter.sequence < head:
            return True
        if waiter.sequence < drain.gate:
            return now - drain.since_s < self.rules.quantum_s
        ready_since_s = self._record(waiter.model).ready_since_s
        return ready_since_s is not None and now - ready_since_s < self.rules.min_residency_s

    def _turn_order(self, waiter: Waiter, now: float) -> tuple[bool, int]:
        patient = waiter.batch and now - waiter.since_s < self.rules.batch_patience_s
        return (patient, waiter.sequence)

    def _fits(self, want_bytes: int, evict: Iterable[ModelName]) -> bool:
        return self._held_bytes() - sum(self._held_by(m) for m in evict) + want_bytes <= self.rules.budget_bytes

    def _enter(self, model: ModelName, evict: Iterable[ModelName], now: float) -> None:
        for victim in evict:
            self._floor = max(self._floor, self.value(victim, now))
            self._leave(victim)
        record, worker = self._record(model), self._workers.get(model)
        ended = worker is not None and worker.status in (Status.STOPPED, Status.STOPPING)
        record.run_before = worker.run if worker is not None and ended else NEVER_RAN
        record.ready_since_s = None
        record.floor = self._floor
        record.resting = False
        record.last_used_s = now
        self.desired.add(model)

    def _leave(self, model: ModelName) -> None:
        self.desired.discard(model)
        self.drains.pop(model, None)
        self._outdated.discard(model)
        self._record(model).ready_since_s = None

    def _dismiss(self, model: ModelName, cause: Literal["unloaded"]) -> list[Answer]:
        answers: list[Answer] = []
        for lease in sorted(self._record(model).leases):
            answers.append(Revocation(lease=lease, model=model, cause=cause))
            self.leases.pop(lease, None)
        self._record(model).leases.clear()
        self._leave(model)
        return answers

    def _wish(self, now: float) -> None:
        """Load what is wanted without being asked for: pinned models even at the cost of others, small ones where they fit."""
        if self._queues:
            return
        for model in self._wishes:
            record = self._record(model)
            if model in self.desired or model in self._unwished or now < record.retry_at_s:
                continue
            want_bytes = self._want_bytes(model)
            if self._fits(want_bytes, ()):
                self._enter(model, (), now)
            elif self._is_pinned(model):
                answer = plan(self.rules.budget_bytes, self._residents(now, sequence=None, claimant=model), want_bytes)
                if isinstance(answer, Start):
                    self._enter(model, answer.evict, now)

    def _hold(self, lease: LeaseId, model: ModelName, run: RunId, now: float) -> None:
        record = self._record(model)
        decay = 0.5 ** ((now - record.last_used_s) / FREQUENCY_HALF_LIFE_S)
        record.frequency = record.frequency * decay + 1.0
        record.last_used_s = now
        record.floor = self._floor
        record.leases.add(lease)
        self.leases[lease] = Lease(lease=lease, model=model, run=run, since_s=now, limit_s=self.rules.request_limit_s)

    def _refuse_all(self, model: ModelName, reason: Reason, text: str, *, retry_after_s: float | None = None) -> list[Answer]:
        waiters = self._queues.pop(model, [])
        for waiter in waiters:
            self._published_s.pop(waiter.lease, None)
        return [Refusal(lease=w.lease, reason=reason, message=text, retry_after_s=retry_after_s) for w in waiters]

    def _refuse_hopeless(self, model: ModelName, record: Record, now: float) -> None:
        if record.resting and now < record.retry_at_s:
            raise RefusedError(Reason.UNAVAILABLE, self._why_resting(model, record), retry_after_s=record.retry_at_s - now)
        if model not in self.desired and isinstance(
            plan(self.rules.budget_bytes, self._pinned(), self._want_bytes(model)), Refuse
        ):
            raise RefusedError(Reason.NEVER_FITS, self._why_never(model))

    def _pinned(self) -> list[Resident]:
        return [
            Resident(model=m, memory_bytes=self._held_by(m), value=0.0, busy=True, pinned=True)
            for m in self.desired
            if self._is_pinned(m)
        ]

    def _why_never(self, model: ModelName) -> str:
        footprint = self._specs[model].footprint
        pinned_bytes = sum(r.memory_bytes for r in self._pinned())
        beside = f" beside {format_bytes(pinned_bytes)} of pinned models" if pinned_bytes else ""
        return (
            f"{model} needs {format_bytes(footprint.total_bytes)} ({footprint.source.value}), and the budget is "
            f"{format_bytes(self.rules.budget_bytes)}{beside}; if it needs less, say so with `memory` in its model.toml"
        )

    def _why_resting(self, model: ModelName, record: Record) -> str:
        ended = record.last_exit
        how = f"{ended.cause.value}, status {ended.code}{': ' + ended.detail if ended.detail else ''}" if ended else "unknown"
        return (
            f"{model} failed {record.failures} times in a row, the last time by: {how}; it is not started again for now. "
            f"See `windlass logs {model}`, then `windlass load {model}`"
        )

    def _lines(self, model: ModelName, *, before: int | None = None) -> tuple[Line, tuple[Line, ...]]:
        """Return what is in the way of a caller of *model* who came as number *before*, or comes now."""
        involved = {*self._queues, *self.desired, model}
        lines = {
            m: Line(
                model=m,
                waiting=sum(1 for w in self._queues.get(m, ()) if before is None or w.sequence < before),
                parallel=self._specs[m].parallel if m in self._specs else 1,
                load_s=self._record(m).load_s,
                service_s=self._record(m).service_s,
                resident=self._is_ready(m),
                busy=len(self._record(m).leases),
            )
            for m in involved
        }
        return lines.pop(model), tuple(lines.values())

    def _idle_s(self, model: ModelName, now: float) -> float:
        record = self._record(model)
        return now - max(record.last_used_s, record.ready_since_s or 0.0)

    def _is_ready(self, model: ModelName) -> bool:
        worker = self._workers.get(model)
        return model in self.desired and worker is not None and worker.status is Status.READY

    def _is_cold(self, model: ModelName, now: float) -> bool:
        spec = self._specs[model]
        if spec.tier is not Tier.LARGE or spec.pinned or model in self._queues:
            return False
        return self._idle_s(model, now) > self.rules.idle_unload_s

    def _is_pinned(self, model: ModelName) -> bool:
        return model in self._specs and self._specs[model].pinned

    def _want_bytes(self, model: ModelName) -> int:
        return self._specs[model].footprint.total_bytes if model in self._specs else self._held_by(model)

    def _held_by(self, model: ModelName) -> int:
        """What a desired worker takes: its label's figure while it runs, today's figure until it does."""
        worker = self._workers.get(model)
        if worker is not None and worker.status is not Status.STOPPED:
            return worker.memory_bytes
        return self._specs[model].footprint.total_bytes if model in self._specs else 0

    def _held_bytes(self) -> int:
        return sum(self._held_by(m) for m in self.desired)

    def _record(self, model: ModelName) -> Record:
        record = self._records.get(model)
        if record is None:
            spec = self._specs.get(model)
            record = self._records[model] = Record(load_s=spec.load_s if spec else 1.0)
        return record


def with_budget(rules: Rules, budget_bytes: int) -> Rules:
    """Return the same rules with another budget."""
    return replace(rules, budget_bytes=budget_bytes)
