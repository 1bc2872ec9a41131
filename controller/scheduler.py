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
   evicts the idle workers of the lowest value. If not enough is idle, it drains the least valuable busy ones: those go on serving
   callers who are older than the claimant's, then whoever had come when the drain began or the model became ready, for one
   quantum at most, then nobody.
5. Younger claimants go ahead where they fit beside what the older ones have reserved; behind one who cannot reserve, nobody does.
6. Who has left comes back only when its worker is gone: so what a desired worker does is what became of this decision.
7. A box that is slowed down serves fewer callers of a worker at once; who came before that is served as it was promised.
8. A model may have several workers. Where its callers wait and memory is free, one more is loaded; a caller is sent to the one
   that serves the fewest. Only the first of them is kept for callers that wait, so that the others are in nobody's way.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Literal

from controller import refusals
from controller.admission import Admission
from controller.answers import Answer, Grant, Notice, Refusal, Revocation
from controller.callers import Callers, Waiter
from controller.charges import Account, Capacity, Cards
from controller.drains import FIRST, Drain, Drains
from controller.errors import Reason, RefusedError
from controller.forecast import Line, bound_s, eta_s
from controller.pace import FULL, Pace
from controller.placement import Choice
from controller.planner import Refuse, Resident, Start
from controller.records import Record
from controller.replicas import model_of, names
from controller.residency import RUNNING, Residency
from controller.rules import Rules
from controller.spec import ModelName, ModelSpec
from controller.state import Exit, ExitCause, Lease, LeaseId, RunId, Status, Worker
from controller.units import format_seconds

__all__ = ["Answer", "Grant", "Notice", "Record", "Refusal", "Revocation", "Rules", "Scheduler", "Waiter"]


class Scheduler:
    """Decide; never act."""

    def __init__(
        self, rules: Rules, specs: Mapping[ModelName, ModelSpec], workers: Mapping[ModelName, Worker], now: float
    ) -> None:
        """Adopt what runs, even if that is too much: restart is the same as start, and what must go is drained."""
        self.leases: dict[LeaseId, Lease] = {}
        self._residency = Residency(rules, specs, workers, now)
        self._callers = Callers()
        self._pace = FULL
        self._drains = Drains(self._residency, self._callers)
        self._admission = Admission(self._residency, self._callers, self._drains)

    # What callers and operators say.

    def register(self, specs: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now: models that left are drained, and a model that changed is given another chance."""
        self._residency.register(specs)

    def set_budget(self, capacity: Capacity) -> None:
        """Change the budgets: what they do not hold any more goes at once if it is idle, and is drained if it is not."""
        self._residency.rules = replace(self.rules, budget_bytes=capacity.ram_bytes, cards=capacity.cards)

    def set_pace(self, pace: Pace) -> None:
        """Take how fast the box is now: it says how many callers a worker serves at once, and how long that takes."""
        self._pace = pace

    def outdate(self, models: Iterable[ModelName]) -> None:
        """Load these anew: what runs was made from a description that has changed. Their callers wait for the new one."""
        self._residency.outdate(models)

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
        waited_s: float = 0.0,
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
            waited_s: how long it has waited already, at a controller that is no more.

        Raises:
            RefusedError: no such model, no room in the queue, a model that can never fit or rests, or a deadline nobody can meet.

        """
        self._check_unknown(model)
        self._residency.ask_for(model)
        if load_only:
            self.record(model).forgive()
        self._check_hopeless(model, now)
        own, others = self._lines(model)
        left_s = None if deadline_s is None else deadline_s - waited_s
        self._check_crowd(eta_s(own, others), left_s)
        patience_s = self.rules.batch_patience_s if batch else None
        limits = {"quantum_s": self.rules.quantum_s, "request_limit_s": self.rules.request_limit_s}
        waiter = Waiter(
            lease=lease,
            model=model,
            sequence=self._callers.ticket(),
            since_s=now - waited_s,
            bound_s=waited_s + bound_s(own, others, patience_s=patience_s, **limits),
            batch=batch,
            load_only=load_only,
            until_s=None if left_s is None else now + left_s,
            places=own.parallel,
        )
        self._callers.add(waiter)

    def renew(self, lease: LeaseId, model: ModelName, run: RunId, now: float) -> bool:
        """Take back a lease that was granted before a restart; false if its worker is not there any more."""
        worker = next((w for w in self._inside(model) if self._residency.is_running(w, run)), None)
        if worker is None:
            return False
        self._hold(lease, model, worker, run, now)
        return True

    def release(self, lease: LeaseId, now: float, *, served_s: float | None = None) -> None:
        """Let a caller go, queued or served. `served_s` says that it was answered to the end, and how long that took."""
        if self._callers.remove(lease) or (held := self.leases.pop(lease, None)) is None:
            return
        record = self.record(held.worker)
        record.leases.discard(lease)
        record.last_used_s = now
        if served_s is not None:
            for name in {held.worker, held.model}:
                self.record(name).serve(served_s * self._pace.factor)

    def unload(self, model: ModelName, *, force: bool) -> list[Answer]:
        """
        Let a model go.

        Raises:
            RefusedError: it is pinned or busy, or nobody can tell yet, and *force* is not set.

        """
        self._check_unknown(model)
        inside = self._inside(model)
        if not force and self._residency.is_pinned(model):
            raise refusals.pinned(model)
        if not force and (callers := sum(len(self.record(w).leases) for w in inside)):
            raise refusals.busy(model, callers)
        if not force and (grace_s := max((self._residency.grace_s(w) for w in inside), default=0.0)) > 0:
            raise refusals.adopted(model, grace_s)
        self._residency.renounce(model)
        return [answer for worker in inside for answer in self._cut(worker, "unloaded")]

    def sacrifice(self, worker: ModelName) -> list[Answer]:
        """End a worker whoever uses it: the box runs out of memory."""
        return self._cut(worker, "memory_short")

    def loaded(self, model: ModelName, load_s: float) -> None:
        """Learn how long a load of this worker usually takes."""
        self.record(model).load_s = load_s

    # What the pool asks.

    @property
    def drains(self) -> Mapping[ModelName, Drain]:
        """Who must go although somebody uses it, and for whom."""
        return self._drains.current

    @property
    def arriving(self) -> tuple[ModelName, ...]:
        """
        Who comes as soon as memory is back: who is wanted and has not been started, then those for whom others are drained.

        A guess that helps to get ready: a drain ends without an arrival if the claimant's callers go.
        """
        entered = sorted(m for m in self.desired if self._residency.is_gone(m))
        claimants = (d.claimant for d in self.drains.values() if d.claimant is not None)
        return tuple(dict.fromkeys([*entered, *claimants]))

    @property
    def rules(self) -> Rules:
        """The rules as they are now."""
        return self._residency.rules

    def residents(self, now: float) -> list[Resident]:
        """Return the desired workers, and what each is worth."""
        return self._drains.residents(None, FIRST, now)

    @property
    def desired(self) -> Set[ModelName]:
        """The workers that are to be in memory: models, and replicas by names of their own."""
        return self._residency.desired

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._callers)

    def is_wanted(self, model: ModelName) -> bool:
        """Say whether any worker of this model is to be in memory."""
        return bool(self._inside(model))

    def ready_workers(self, model: ModelName) -> list[ModelName]:
        """Return the workers of this model that are wanted and answer."""
        return [worker for worker in self._residency.workers_of(model) if self._residency.is_ready(worker)]

    def has_callers(self, model: ModelName) -> bool:
        """Say whether somebody waits for this model."""
        return self._callers.head(model) is not None

    @property
    def places(self) -> Mapping[ModelName, Cards]:
        """Where on the cards those are to lie who come: who is wanted, and who will be as soon as others have left."""
        return {**self._admission.coming, **self._residency.places}

    @property
    def committed(self) -> Account:
        """What the desired workers take from the budgets."""
        return self._residency.committed

    def pinned(self, *, without: ModelName | None = None) -> Account:
        """Return what the desired workers take that never go, but for one."""
        pinned = (m for m in self.desired if m != without and self._residency.is_pinned(m))
        return Account(map(self._residency.charge, pinned))

    @property
    def committed_bytes(self) -> int:
        """What they take of the box's memory."""
        return self.committed.total_bytes

    def queue(self) -> list[Waiter]:
        """Return everybody who waits, in the order they came."""
        return self._callers.in_order()

    def record(self, model: ModelName) -> Record:
        """Return what is remembered of a model."""
        return self._residency.record(model)

    def notice(self, waiter: Waiter, position: int, now: float) -> Notice:
        """Say where a caller stands."""
        own, others = self._lines(waiter.model, before=waiter.sequence)
        return Notice(
            lease=waiter.lease,
            model=waiter.model,
            position=position,
            eta_s=eta_s(own, others),
            bound_s=max(0.0, waiter.bound_s - (now - waiter.since_s)),
            loading=not self._residency.is_served(waiter.model) and self._residency.principal(waiter.model) is not None,
            evicting=self._drains.of(waiter.model),
        )

    def expected_wait_s(self, model: ModelName) -> float:
        """Return what a caller of *model* who came now would probably wait."""
        return eta_s(*self._lines(model))

    def preview(self, model: ModelName, now: float) -> Choice:
        """Say where *model* lies or would lie, and what loading it now would do to the others, and do nothing."""
        if here := self._residency.workers_of(model):
            return Choice(charge=self._residency.charge(here[0]), plan=Start())
        return self._admission.choose(model, self._drains.residents(model, None, now))

    def value(self, model: ModelName, now: float) -> float:
        """Return what keeping a model is worth; the least goes first."""
        return self._residency.value(model, now)

    def turn(self, workers: Mapping[ModelName, Worker], now: float) -> list[Answer]:
        """Take the engine's facts; answer whom we can; update `desired`."""
        self._residency.observe(workers, now)
        answers = [*self._end_leases(now), *self._settle_failures(now), *self._settle_queue(now)]
        self._let_go(now)
        answers += self._grant(now)
        for model in self._admission.admit(now):
            answers += self._refuse_all(model, Reason.NEVER_FITS, str(self._never_fits(model)))
        self._admission.multiply(now)
        self._admission.wish(now)
        answers += [self.notice(waiter, position, now) for position, waiter in self._callers.to_tell(now)]
        return answers

    def serve(self, model: ModelName, now: float) -> list[Answer]:
        """
        Serve whom *model* can serve as the last turn saw it, which is a step of every turn.

        A caller who finds a resident model with a free place need not wait for the next one.
        """
        ready = self.ready_workers(model)
        if not ready:
            return []
        answers: list[Answer] = []
        for waiter in sorted(self._callers.of(model), key=lambda w: self._serving_order(w, now)):
            worker = ready[0]
            if not waiter.load_only:
                free = [w for w in ready if self._has_place(w) and self._drains.lets_in(waiter, w, now)]
                if not free:
                    continue
                worker = min(free, key=lambda w: len(self.record(w).leases))
                self._hold(waiter.lease, model, worker, self._residency.workers[worker].run, now)
            self._callers.remove(waiter.lease)
            run, waited_s = self._residency.workers[worker].run, now - waiter.since_s
            answers.append(
                Grant(lease=waiter.lease, model=model, worker=worker, run=run, waited_s=waited_s, bound_s=waiter.bound_s)
            )
        return answers

    def is_settled(self, worker: ModelName) -> bool:
        """Say whether a lease of *worker* that ends changes nothing: nobody waits, and nothing has to leave."""
        gated = self._residency.is_outdated(worker) or worker not in self._residency.specs
        return not (gated or self._callers or self._drains.current)

    # One turn, step by step.

    def _end_leases(self, now: float) -> Iterator[Answer]:
        for lease in list(self.leases.values()):
            worker = self._residency.workers.get(lease.worker)
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
            worker, record = self._residency.workers.get(model), self.record(model)
            if worker is not None and worker.status is Status.READY:
                if record.ready_since_s is None:
                    record.ready_since_s, record.gate = now, self._callers.ticket()
                continue
            record.ready_since_s = None
            if worker is not None and worker.status is Status.STOPPED and worker.exit and worker.run != record.run_before:
                answers += self._count_failure(model, worker.exit, now)
        return answers

    def _count_failure(self, worker: ModelName, ended: Exit, now: float) -> list[Answer]:
        model = model_of(worker)
        if worker in self.desired and worker == model:
            self._residency.lose(model)
        self._leave(worker)
        record = self.record(worker)
        record.fail(ended, now, backoff_s=self.rules.backoff_s, max_failures=self.rules.max_failures)
        if not record.resting or worker != model or self._residency.workers_of(model) or self._changes_engine(model):
            return []
        return self._refuse_all(model, Reason.WORKER_FAILED, record.why_resting(model), retry_after_s=record.retry_at_s - now)

    def _settle_queue(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for model in self._callers.models():
            if model not in self._residency.specs:
                answers += self._refuse_all(model, Reason.UNKNOWN_MODEL, f"{model} was removed while the request waited")
        for waiter in self._callers.overdue(now):
            text = f"the caller was willing to wait {format_seconds(now - waiter.since_s)}, and that is over"
            retry_after_s = max(1.0, self.expected_wait_s(waiter.model))
            self._callers.remove(waiter.lease)
            answers.append(Refusal(lease=waiter.lease, reason=Reason.TOO_LATE, message=text, retry_after_s=retry_after_s))
        return answers

    def _let_go(self, now: float) -> None:
        """Drop what nobody wants any more: removed, changed, or idle for too long; but not before its leases could be renewed."""
        for model in sorted(self.desired):
            if self.record(model).leases or self._residency.grace_s(model) > 0:
                continue
            changed = model not in self._residency.specs or self._residency.is_outdated(model)
            if changed or (self._residency.is_cold(model, now) and not self.has_callers(model_of(model))):
                self._leave(model)

    def _grant(self, now: float) -> list[Answer]:
        return [answer for model in self._callers.models() for answer in self.serve(model, now)]

    # What the steps do.

    def _hold(self, lease: LeaseId, model: ModelName, worker: ModelName, run: RunId, now: float) -> None:
        self._residency.call(worker, now)
        self.record(worker).leases.add(lease)
        limit_s = self.rules.request_limit_s
        self.leases[lease] = Lease(lease=lease, model=model, worker=worker, run=run, since_s=now, limit_s=limit_s)

    def _leave(self, model: ModelName) -> None:
        self._residency.leave(model)
        self._drains.current.pop(model, None)

    def _cut(self, worker: ModelName, cause: Literal["unloaded", "memory_short"]) -> list[Answer]:
        """Take the leases of a worker from whoever holds them, and let it go."""
        held = self.record(worker).leases
        answers: list[Answer] = [Revocation(lease=lease, model=model_of(worker), cause=cause) for lease in sorted(held)]
        for lease in held:
            del self.leases[lease]
        held.clear()
        self._leave(worker)
        return answers

    # Refusals.

    def _refuse_all(self, model: ModelName, reason: Reason, text: str, *, retry_after_s: float | None = None) -> list[Answer]:
        waiters = self._callers.of(model)
        for waiter in waiters:
            self._callers.remove(waiter.lease)
        return [Refusal(lease=w.lease, reason=reason, message=text, retry_after_s=retry_after_s) for w in waiters]

    def _check_unknown(self, model: ModelName) -> None:
        if model not in self._residency.specs or model != model_of(model):
            raise refusals.unknown(model)

    def _check_hopeless(self, model: ModelName, now: float) -> None:
        if self._residency.workers_of(model):
            return
        record = self.record(model)
        if record.resting and now < record.retry_at_s and not self._changes_engine(model):
            raise refusals.resting(model, record, now)
        if model not in self.desired:
            pinned = [r for r in self._drains.residents(model, None, now) if r.pinned]
            if isinstance(self._admission.choose(model, pinned).plan, Refuse):
                raise self._never_fits(model)

    def _check_crowd(self, likely_s: float, deadline_s: float | None) -> None:
        if self.waiting >= self.rules.queue_limit:
            raise refusals.queue_full(self.waiting, limit=self.rules.queue_limit, likely_s=likely_s)
        if deadline_s is not None and likely_s > deadline_s:
            raise refusals.too_late(likely_s=likely_s, deadline_s=deadline_s)

    def _never_fits(self, model: ModelName) -> RefusedError:
        return refusals.never_fits(self._residency.specs[model], capacity=self.rules.capacity, pinned=self.pinned())

    # Questions.

    def _inside(self, model: ModelName) -> list[ModelName]:
        """Return all workers of a model that are wanted, those included that it should not have any more."""
        return sorted(worker for worker in self.desired if model_of(worker) == model)

    def _changes_engine(self, model: ModelName) -> bool:
        """Say whether a model that rests is about to be described anew, for another engine: its callers wait for that."""
        spec = self._residency.specs.get(model)
        return spec is not None and self.record(model).leaves(spec)

    def _has_place(self, worker: ModelName) -> bool:
        """Say whether a worker may serve one more: by the pace, or because somebody waits whose bound counts on it."""
        model = model_of(worker)
        places = max((self._places(model), *self._callers.promised(model)))
        return len(self.record(worker).leases) < min(places, self._residency.specs[worker].parallel)

    def _places(self, model: ModelName) -> int:
        """Return how many callers a worker of *model* serves at once at this pace."""
        spec = self._residency.specs.get(model)
        return self._pace.places(spec.parallel) if spec else 1

    def _serving_order(self, waiter: Waiter, now: float) -> tuple[bool, int]:
        """Sort interactive callers first; but a batch caller not for longer than it must, and not where its model has to go."""
        steps_back = waiter.batch and self._residency.principal(waiter.model) not in self._drains
        return (steps_back and now - waiter.since_s < self.rules.batch_patience_s, waiter.sequence)

    def _lines(self, model: ModelName, *, before: int | None = None) -> tuple[Line, tuple[Line, ...]]:
        """Return what is in the way of a caller of *model* who came as number *before*, or comes now."""
        involved = {*self._callers.models(), *self.desired, *self._residency.missing(pinned=True)}
        involved -= {model, *names(model, self._residency.specs)}
        return self._line(model, before), tuple(self._line(m, before) for m in sorted(involved))

    def _line(self, model: ModelName, before: int | None) -> Line:
        record = self.record(model)
        inside = self._residency.workers_of(model)
        ready = self.ready_workers(model)
        serving = [w for w in ready if w not in self._drains and not self._residency.is_outdated(w)]
        return Line(
            model=model,
            waiting=self._callers.count_before(model, before),
            parallel=min((self._places(model), *self._callers.promised(model))),
            load_s=record.load_s,
            service_s=record.service_s / self._pace.factor,
            resident=bool(ready),
            busy=sum(len(self.record(w).leases) for w in inside),
            gated=not serving,
            replicas=max(1, len(serving)),
        )
