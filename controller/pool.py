"""
The single writer: everything that happens comes in here, one turn decides, and the actions it asks for go out.

A turn is a plain function without an `await`, so nothing changes under it and the core needs no locks. What takes time is done by
the crew, in tasks beside the turns, and wakes the next one.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import structlog

from controller import engines
from controller.budget import Budget
from controller.charges import Charge
from controller.crew import Crew
from controller.drivers.base import Driver
from controller.duties import kept_up, survived
from controller.errors import Reason, RefusedError
from controller.fleet import Fleet
from controller.free_pages import FreePages
from controller.gpu_memory import ReadGpuMemory
from controller.gpu_watch import GpuWatch
from controller.guard import Guard
from controller.host import Host, WorkerSpecs
from controller.lookout import Lookout
from controller.meter import Meter
from controller.pacing import Pacing
from controller.power import QUIET, PowerReading
from controller.probes.memory import Supply, read_supply
from controller.probes.notices import Notices
from controller.readahead import LoadPlan
from controller.reconcile import Action, Hold, LetGo, Start, Stop, diff, prepare
from controller.replicas import expand, model_of
from controller.router import Candidate, choose, unknown_model
from controller.scheduler import Answer, Grant, Notice, Refusal, Revocation, Rules, Scheduler
from controller.shortlist import Shortlist
from controller.spec import ModelName, ModelSpec
from controller.state import ExitCause, Lease, LeaseId, RunId, Status, Worker
from controller.store.conversations import Conversations
from controller.talks import Seat, Talks
from controller.wire import Acquire, Ask, Granted, Loading, Message, Queued, Refused, Release, Renew, Revoked, Route

log: Final = structlog.get_logger()

TICK_S: Final = 0.25
"""The longest a time limit of the core (a quantum, a pause, a deadline) is noticed late."""
MEMORY_POLL_S: Final = 0.01
PREPARE_PAUSE_S: Final = 60.0
"""The pause before a container that could not be made ahead of its first request is tried again."""


class Listener(Protocol):
    """Whoever is told what becomes of a lease: a session of the controller's socket."""

    def send(self, message: Message) -> None:
        """Take one message; never blocks, never raises."""
        ...


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whom a lease belongs to, and what was decided for it; while its slot is prepared, nobody has told it of the grant."""

    listener: Listener
    route: Route | None = None
    waited_s: float = 0.0
    granted_s: float = 0.0
    ask: Ask | None = None
    preparing: bool = False


class Pool:
    """
    The single writer. `run` keeps it going; every other method is called from the same event loop.

    Attributes:
        driver: the container engine.
        host: the box.
        fleet: what the workers are doing.
        meter: what is measured of them.
        scheduler: the decisions.
        models: the registered models.
        workers: the workers, as the last turn saw them.
        budget: the memory they share.
        lookout: who watches what other programs leave of it.
        pacing: who watches power and heat.
        why_absent: why a name is no registered model yet, if somebody knows.
        gave_up: told of a model whose engine is given up for another one, and why.
        turned: told after every turn that came to its end.

    """

    def __init__(
        self,
        *,
        driver: Driver,
        rules: Rules,
        host: Host,
        meter: Meter,
        clock: Callable[[], float],
        floor_bytes: int = 0,
        read_supply: Callable[[], Supply] = read_supply,
        read_gpu_memory: ReadGpuMemory = lambda: None,
        free_pages: FreePages | None = None,
        read_power: Callable[[], PowerReading] = lambda: QUIET,
        conversations: Conversations | None = None,
    ) -> None:
        """Know whom to ask; nothing is asked before `run`."""
        self.driver = driver
        self.host = host
        self.fleet = Fleet()
        self.meter = meter
        self.clock = clock
        self.scheduler = Scheduler(rules, {}, {}, clock())
        self.models: Mapping[ModelName, ModelSpec] = {}
        self.workers: Mapping[ModelName, Worker] = {}
        self._described: Mapping[ModelName, ModelSpec] = {}
        self.budget = Budget(rules.capacity)
        self.why_absent: Callable[[str], RefusedError | None] = lambda _: None
        self.gave_up: Callable[[ModelSpec, str], None] = lambda *_: None
        self.turned: Callable[[], None] = lambda: None
        guard = Guard(budget_bytes=rules.budget_bytes, floor_bytes=floor_bytes)
        gpus = GpuWatch(driver=driver, clock=clock, device=host.device, read=read_gpu_memory)
        self.lookout = Lookout(guard=guard, driver=driver, meter=meter, owner=self, clock=clock, read=read_supply, gpus=gpus)
        self.pacing = Pacing(read=read_power, clock=clock, changed=self.look_again)
        self.talks = Talks(store=conversations, host=host, clock=clock)
        self._crew = Crew(
            driver=driver,
            fleet=self.fleet,
            owner=self,
            clock=clock,
            read=read_supply,
            before_stop=self._before_stop,
            gpus=gpus,
            free_pages=free_pages,
        )
        self._rules = rules
        self._specs = WorkerSpecs({}, host)
        self._shortlist = Shortlist({})
        self._callers: dict[LeaseId, Caller] = {}
        self._wake = asyncio.Event()
        self._adopted = asyncio.Event()
        self._loads = itertools.count(1)
        self._unmade: dict[ModelName, float] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._held_once: set[ModelName] = set()

    # Life.

    async def run(self) -> None:
        """Keep going until cancelled; the containers stay as they are."""
        with contextlib.closing(self._crew):
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._crew.look()
                self.workers = self.fleet.workers()
                self.talks.adopt({model: worker.run for model, worker in self.workers.items()}, tasks)
                self.scheduler = Scheduler(self._rules, self._described, self.workers, self.clock())
                self._specs.follow(self.workers, self.scheduler.places)
                await self.lookout.look()
                self._outdate()
                self._adopted.set()
                log.info("pool.adopted", workers=sorted(self.scheduler.desired))
                tasks.create_task(self._crew.watch())
                tasks.create_task(kept_up(self.lookout.keep_watching))
                tasks.create_task(kept_up(self.pacing.keep_watching))
                tasks.create_task(kept_up(self.meter.keep_flushing))
                tasks.create_task(kept_up(partial(self.talks.keep, self.fleet.ready)))
                while True:
                    self._turn_safely(tasks)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TICK_S):
                            await self._wake.wait()
                    self._wake.clear()

    async def adopted(self) -> None:
        """Wait until the engine has been looked at once: before that, nobody can be answered."""
        await self._adopted.wait()

    def register(self, models: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now."""
        self.models, self._described = models, expand(models)
        self._shortlist = Shortlist(models)
        self._crew.models = self._described
        self._specs = self._crew.specs = WorkerSpecs(self._described, self.host)
        self.scheduler.register(self._described)
        self._specs.follow(self.workers, self.scheduler.places)
        self.talks.register(self._described)
        self._outdate()
        self.look_again()

    # What sessions say.

    def acquire(self, message: Acquire, listener: Listener) -> None:
        """Route a request and queue it; the listener hears what becomes of it."""
        lease = LeaseId(message.id)
        waiting = self._callers.get(lease)
        unheard = waiting is not None and (lease not in self.scheduler.leases or waiting.preparing)
        if waiting is not None and unheard and waiting.listener is not listener:
            waiting.listener = listener  # its old connection is lost, and we do not know yet
            return
        if self._is_taken(lease, listener):
            return
        try:
            route = choose(message.ask, [self._candidate(self.models[name]) for name in self._eligible(message.ask)])
            batch = message.priority == "batch"
            self.scheduler.request(
                lease,
                ModelName(route.model),
                self.clock(),
                batch=batch,
                deadline_s=message.deadline_s,
                waited_s=message.waited_s,
            )
        except RefusedError as refusal:
            exc = self.explain(refusal, message.ask.model)
            listener.send(
                Refused(id=message.id, reason=exc.reason, message=str(exc), retry_after_s=exc.retry_after_s, details=exc.details)
            )
            return
        self._callers[lease] = Caller(listener=listener, route=route, ask=message.ask)
        self._deliver(self.scheduler.serve(ModelName(route.model), self.clock()))
        if lease not in self.scheduler.leases:
            self.look_again()

    def renew(self, message: Renew, listener: Listener) -> None:
        """Take back a lease that a gateway still holds after this controller was restarted."""
        lease, model, run = LeaseId(message.id), ModelName(message.model), RunId(message.run)
        held = self.scheduler.leases.get(lease)
        if held is not None and (held.model, held.run) == (model, run):  # its old connection is lost, and we do not know yet
            self._callers[lease].listener = listener
            listener.send(self._granted(_again(held), None, Seat()))
            return
        if self._is_taken(lease, listener):
            return
        if not self.scheduler.renew(lease, model, run, self.clock()):
            text = f"the worker of {model} that served this is gone"
            listener.send(Refused(id=message.id, reason=Reason.WORKER_FAILED, message=text))
            return
        self._callers[lease] = Caller(listener=listener, granted_s=self.clock())
        held = self.scheduler.leases[lease]
        if held.worker in self._described:
            self.talks.resume(lease, self._described[held.worker], self._specs[held.worker], message)
        listener.send(self._granted(_again(held), None, Seat()))

    def release(self, message: Release, listener: Listener) -> None:
        """Take a lease back, or let a waiting caller go; what is over already, or another's, stays as it is."""
        now, lease = self.clock(), LeaseId(message.id)
        caller, held = self._callers.get(lease), self.scheduler.leases.get(lease)
        if caller is None or caller.listener is not listener:
            return
        del self._callers[lease]
        total_s = 0.0 if held is None else now - held.since_s
        self.scheduler.release(lease, now, served_s=total_s if message.outcome == "ok" else None)
        self.talks.give_back(lease, message)
        if held is not None:
            spec = self.models.get(held.model)
            self.meter.served(spec, held.model, message, waited_s=caller.waited_s, total_s=total_s)
        if held is None or not self.scheduler.is_settled(held.worker):
            self.look_again()

    def leave(self, listener: Listener) -> None:
        """End everything a listener holds or waits for: its connection is gone."""
        now = self.clock()
        for lease in [lease for lease, caller in self._callers.items() if caller.listener is listener]:
            del self._callers[lease]
            self.scheduler.release(lease, now)
            self.talks.give_back(lease)
        self.look_again()

    def _is_taken(self, lease: LeaseId, listener: Listener) -> bool:
        """Refuse an id that somebody waits or holds a lease under: two callers of one name could not be told apart."""
        if lease not in self._callers:
            return False
        text = f"the id {lease[:80]!r} is in use; every request needs one of its own"
        listener.send(Refused(id=lease, reason=Reason.MALFORMED, message=text))
        return True

    # What operators say.

    async def load(self, model: ModelName) -> float:
        """
        Load a model and return the seconds it took.

        Raises:
            RefusedError: it cannot be loaded, with the reason.

        """
        began_s, lease = self.clock(), LeaseId(f"load-{next(self._loads)}")
        waiting = _Waiting()
        self.scheduler.request(lease, model, began_s, load_only=True)
        self._callers[lease] = Caller(listener=waiting)
        self.look_again()
        try:
            await waiting.answered
        finally:
            self._callers.pop(lease, None)
            self.scheduler.release(lease, self.clock())
        return self.clock() - began_s

    def begin_load(self, model: ModelName) -> None:
        """
        Load a model and wait for nothing.

        Raises:
            RefusedError: it cannot be loaded, with the reason.

        """
        self.scheduler.request(LeaseId(f"load-{next(self._loads)}"), model, self.clock(), load_only=True)
        self.look_again()

    async def unload(self, model: ModelName, *, force: bool) -> float:
        """
        Unload a model, wait until its memory is back, and return the seconds it took.

        Raises:
            RefusedError: it is pinned or busy, and *force* is not set.

        """
        began_s = self.clock()
        self._deliver(self.scheduler.unload(model, force=force))
        self.look_again()
        while self.held_bytes(model) and not self.scheduler.is_wanted(model):  # noqa: ASYNC110  # the engine says when
            await asyncio.sleep(MEMORY_POLL_S)
        return self.clock() - began_s

    # What the desk asks.

    @property
    def budget_bytes(self) -> int:
        """What models may take together of the box's memory."""
        return self.budget.left.ram_bytes

    def set_aside(self, what: str, charge: Charge) -> None:
        """Keep that much of the budgets from the models; what they do not hold any more is drained. Nothing gives it back."""
        self.budget.set_aside(what, charge)
        self.scheduler.set_budget(self.budget.left)
        self.look_again()

    def explain(self, refusal: RefusedError, model: str | None) -> RefusedError:
        """Say more than a refusal does where the model is only being built, or memory is only set aside."""
        if refusal.reason is Reason.UNKNOWN_MODEL and model is not None:
            return self.why_absent(model) or refusal
        spec = self.models.get(ModelName(model or ""))
        if spec is None:
            return refusal
        return self.budget.explain(refusal, spec, pinned=self.scheduler.pinned(without=spec.name))

    @property
    def engine_away(self) -> str | None:
        """Why the container engine does not answer; `None` while it does."""
        return self._crew.engine_away

    @property
    def memory_stuck(self) -> Sequence[str]:
        """What memory of workers that have ended did not come back, a sentence each."""
        return [text for _, text in sorted(self._crew.memory_back.stuck.items())]

    def held_bytes(self, model: ModelName) -> int:
        """Return what a model's workers held when the last turn looked, each for itself; what is told agrees with that."""
        return sum(worker.held_bytes for name, worker in self.workers.items() if model_of(name) == model)

    def is_resident(self, model: ModelName) -> bool:
        """Say whether a model is in memory and answers."""
        return bool(self.scheduler.ready_workers(model))

    # What the crew says.

    def look_again(self) -> None:
        """Take another turn soon."""
        self._wake.set()

    def action_failed(self, model: ModelName, why: str) -> None:
        """Count a container that could not be made or started against its model; one nobody asked for is only tried later."""
        if model not in self.scheduler.desired:
            self._unmade[model] = self.clock() + PREPARE_PAUSE_S
            return
        self._deliver(self.scheduler.fail(model, why, self.clock()))
        self.meter.journal.failed()
        self._consider_engine(model)

    def start_planned(self, model: ModelName, plan: LoadPlan) -> None:
        """Note how its weights come into memory."""
        self.meter.swaps.planned(model, plan)

    def container_started(self, model: ModelName) -> None:
        """Note the time."""
        self.meter.swaps.started(model)

    def worker_ready(self, model: ModelName, notices: Notices) -> None:
        """Note the time, and learn how long this model's load takes."""
        if (spec := self._described.get(model)) is not None and self.meter.ready(spec, notices) is not None:
            self.scheduler.loaded(model, self.meter.usual_load_s(spec))

    def private_bytes(self, model: ModelName) -> int:
        """Return what a worker holds that only its end gives back, as last sampled; 0 if it never was."""
        worker = self.workers.get(model)
        return self.lookout.private_bytes(worker) if worker is not None and self.lookout.usage(model) is not None else 0

    def choked(self, model: ModelName) -> str:
        """Say what a worker was seen to lack, if it cannot go on for want of memory; else nothing."""
        worker = self.workers.get(model)
        return self.lookout.choked(worker) if worker is not None else ""

    def on_gpu(self, model: ModelName) -> bool:
        """Say whether a model's worker computes on a GPU."""
        spec = self._specs.get(model)
        return spec is not None and bool(spec.devices)

    def worker_ended(self, model: ModelName, parts: Mapping[str, float], *, returned_bytes: int | None) -> None:
        """Note what ending it was made of."""
        self.meter.swaps.ended(model, parts, returned_bytes=returned_bytes)

    async def _before_stop(self, model: ModelName) -> None:
        await self.lookout.unless_critical(self.talks.before_stop(model))

    # One turn.

    def _turn_safely(self, tasks: asyncio.TaskGroup) -> None:
        """Run one turn; any error is caught here and nowhere else, so that one wrong decision does not end all service."""
        try:
            self._turn(tasks)
            self.turned()
        except Exception:
            log.exception("pool.turn_failed")

    def _turn(self, tasks: asyncio.TaskGroup) -> None:
        now, before = self.clock(), frozenset(self.scheduler.desired)
        self.workers = self.fleet.workers()
        failed = self._note_ends()
        self.scheduler.set_budget(self.budget.left)
        self.scheduler.set_pace(self.pacing.pace)
        self.meter.pace = self.pacing.pace.factor
        self._deliver(self.scheduler.turn(self.workers, now))
        for model in failed:
            self._consider_engine(model)
        self._deliver(self.lookout.after_turn(self.scheduler, before, now))
        self._specs.follow(self.workers, self.scheduler.places)
        desired = frozenset(self.scheduler.desired)
        arriving = self.scheduler.arriving
        self._note_arrivals(desired, before, arriving)
        if self.engine_away is None:
            self._act(desired, arriving, tasks, now)
        self._crew.greet(tasks)

    def _note_arrivals(self, desired: Set[ModelName], before: Set[ModelName], arriving: Collection[ModelName]) -> None:
        swaps, expected = self.meter.swaps, frozenset({*desired, *arriving})
        for model in expected - before:
            if not swaps.is_known(model):
                oldest = next((waiter for waiter in self.scheduler.queue() if waiter.model == model), None)
                swaps.claimed(model, asked_s=oldest.since_s if oldest else None)
        for model in desired - before:
            swaps.wanted(model, tuple(sorted(before - desired)))
        swaps.keep(expected)
        self._held_once &= expected

    def _may_hold(self, model: ModelName) -> bool:
        """Say whether its container may be started before there is room: once for each decision, and if its image knows how."""
        return model not in self._held_once and engines.find(self._described[model].engine).can_be_held

    def _act(self, desired: frozenset[ModelName], arriving: Sequence[ModelName], tasks: asyncio.TaskGroup, now: float) -> None:
        actions = diff(desired, self.workers, self._specs, self.budget.left, arriving=arriving, may_hold=self._may_hold)
        if not actions and not self.fleet.acting:
            self._unmade = {m: until_s for m, until_s in self._unmade.items() if now < until_s}
            spare = prepare(self.workers, self._specs, without=self._unmade.keys())
            actions = () if spare is None else (spare,)
        for action in actions:
            if action.model in self.fleet.acting:
                continue
            self._note_action(action)
            self._crew.perform(action, tasks)
        for model in self.fleet.judged():
            if model not in self.fleet.acting:
                self._crew.perform(Stop(model), tasks)

    def _note_action(self, action: Action) -> None:
        match action:
            case Stop(model) if self.workers[model].status is not Status.HELD:
                self.meter.swaps.told_to_stop(model)
            case Start(model):
                self.meter.swaps.told_to_start(model, held=False)
            case Hold(model):
                self._held_once.add(model)
                self.meter.swaps.told_to_start(model, held=True)
            case LetGo(model):
                self.meter.swaps.told_to_begin(model)

    def _note_ends(self) -> list[ModelName]:
        """Note which workers are not running any more, and return those that were to run."""
        failed = []
        for model, worker in self.workers.items():
            if worker.status is not Status.STOPPED or self.meter.stopped(worker):
                continue
            if model in self.scheduler.desired and worker.exit and worker.run != self.scheduler.record(model).run_before:
                self.meter.failed(worker, self._described.get(model))
                failed.append(model)
        return failed

    def _consider_engine(self, model: ModelName) -> None:
        """Have another engine take over from one that has failed as often as it may and never served."""
        spec, record = self.models.get(model), self.scheduler.record(model)
        if spec is not None and record.leaves(spec):
            self.gave_up(spec, record.how_failed)

    def _deliver(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            caller = self._callers.get(answer.lease)
            if caller is None:  # a load nobody waits for, or a caller that left while the turn ran
                if isinstance(answer, Grant):
                    self.scheduler.release(answer.lease, self.clock())
                continue
            if isinstance(answer, Refusal | Revocation):
                del self._callers[answer.lease]
            if isinstance(answer, Revocation):
                self.talks.give_back(answer.lease)
                self._note_broken(answer, caller)
            if isinstance(answer, Grant):
                self._grant(answer, caller)
            elif isinstance(answer, Revocation) and caller.preparing:  # it never heard that it was granted
                caller.listener.send(Refused(id=answer.lease, reason=Reason.WORKER_FAILED, message=_why_revoked(answer)))
            elif isinstance(answer, Refusal):
                caller.listener.send(_message(self._explained(answer, caller)))
            else:
                caller.listener.send(_message(answer))

    def _grant(self, grant: Grant, caller: Caller) -> None:
        """Tell a caller that it is its turn, as soon as the right conversation is in its slot."""
        caller.waited_s, caller.granted_s = grant.waited_s, self.clock()
        model, seat = self._described.get(grant.worker), Seat()
        if caller.ask is not None and model is not None:
            made = self.talks.seat(grant.lease, model, self._specs[grant.worker], grant.run, caller.ask)
            if made is None:
                assert self._tasks is not None, "nothing is granted before the pool runs"
                caller.preparing = True
                self._tasks.create_task(survived(self._grant_when_ready(grant, caller)))
                return
            seat = made
        caller.listener.send(self._granted(grant, caller.route, seat))

    async def _grant_when_ready(self, grant: Grant, caller: Caller) -> None:
        seat = await self.talks.prepare(grant.lease)
        caller.preparing = False
        if self._callers.get(grant.lease) is not caller:  # it has left meanwhile, or its worker has
            return
        caller.waited_s += self.clock() - caller.granted_s
        caller.listener.send(self._granted(replace(grant, waited_s=caller.waited_s), caller.route, seat))

    def _explained(self, answer: Refusal, caller: Caller) -> Refusal:
        said = RefusedError(answer.reason, answer.message, retry_after_s=answer.retry_after_s)
        exc = self.explain(said, caller.route.model if caller.route else None)
        return replace(answer, reason=exc.reason, message=str(exc), retry_after_s=exc.retry_after_s)

    def _note_broken(self, revocation: Revocation, caller: Caller) -> None:
        report = Release(id=revocation.lease, outcome="error")
        spec, total_s = self.models.get(revocation.model), self.clock() - caller.granted_s
        self.meter.served(spec, revocation.model, report, waited_s=caller.waited_s, total_s=total_s)

    def _granted(self, grant: Grant, route: Route | None, seat: Seat) -> Granted:
        spec = self._specs.get(grant.worker)
        return Granted(
            id=grant.lease,
            model=grant.model,
            socket=str(spec.socket) if spec else "",
            run=grant.run,
            route=route,
            limit_s=self._rules.request_limit_s,
            waited_s=grant.waited_s,
            bound_s=grant.bound_s,
            loaded_s=None if route is None or route.resident else self.meter.last_load_s.get(grant.model),
            slot=seat.slot,
            fields=dict(seat.fields),
        )

    def _eligible(self, ask: Ask) -> Collection[ModelName]:
        """Return whom the router is to weigh: whoever is named, and the likeliest of all others where they may stand in."""
        named = [ModelName(name) for name in (ask.model, *ask.fallback) if name]
        known = dict.fromkeys(name for name in named if name in self.models)
        if ask.mode == "manual" or (ask.mode == "hybrid" and ask.fallback):
            if named and not known:
                raise unknown_model(named[0], self.models)
            return known
        active = {*self.scheduler.desired, *(waiter.model for waiter in self.scheduler.queue())}
        room = self.scheduler.pinned().left(self.budget.left)
        return {**known, **dict.fromkeys(self._shortlist.pick(ask, active=active, room=room))}

    def _candidate(self, spec: ModelSpec) -> Candidate:
        record, resident = self.scheduler.record(spec.name), self.is_resident(spec.name)
        expected_s = self.scheduler.expected_wait_s(spec.name)
        load_s = 0.0 if resident else min(expected_s, record.load_s)
        measured, engine = self.meter.ledger.find(self.host.ledger_key(spec)), engines.find(spec.engine)
        resting = record.resting and self.clock() < record.retry_at_s and not record.leaves(spec)
        return Candidate(
            spec=spec,
            resident=resident,
            wait_s=expected_s - load_s,
            load_s=load_s,
            tokens_per_s=measured.tokens_per_s or None if measured else None,
            pace=self.pacing.pace.factor,
            refused_fields=engine.refused_fields,
            ignored_fields=engine.ignored_fields,
            taken_fields=engine.taken_fields,
            room=self.scheduler.pinned(without=spec.name).left(self.budget.left),
            unavailable_reason=f"it {record.why_resting(spec.name).removeprefix(f'{spec.name} ')}" if resting else "",
            retry_after_s=record.retry_at_s - self.clock() if resting else None,
        )

    def _outdate(self) -> None:
        """Have those loaded anew whose description is not the one they were made from."""
        known = [(m, w) for m, w in self.workers.items() if m in self._specs]
        self.scheduler.outdate(m for m, w in known if w.spec_hash != self._specs[m].spec_hash)


class _Waiting:
    """A listener that waits for a load: the first answer that is not a notice settles it."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, message: Message) -> None:
        """Settle the future."""
        if self.answered.done():
            return
        if isinstance(message, Granted):
            self.answered.set_result(None)
        elif isinstance(message, Refused):
            self.answered.set_exception(RefusedError(message.reason, message.message, retry_after_s=message.retry_after_s))


def _again(held: Lease) -> Grant:
    """Grant once more what is held already."""
    return Grant(lease=held.lease, model=held.model, worker=held.worker, run=held.run, waited_s=0.0, bound_s=0.0)


def _message(answer: Notice | Refusal | Revocation) -> Message:
    match answer:
        case Refusal():
            return Refused(id=answer.lease, reason=answer.reason, message=answer.message, retry_after_s=answer.retry_after_s)
        case Revocation():
            return Revoked(id=answer.lease, cause=str(answer.cause), message=_why_revoked(answer))
        case Notice(loading=True):
            return Loading(id=answer.lease, model=answer.model, eta_s=answer.eta_s, evicting=answer.evicting)
        case Notice():
            return Queued(
                id=answer.lease,
                model=answer.model,
                position=answer.position,
                eta_s=answer.eta_s,
                bound_s=answer.bound_s,
            )


_ENDINGS: Final[Mapping[str, str]] = {
    "time_limit": "the request held {model} for {detail}, which is the longest it may",
    "removed": "the worker of {model} was removed while it answered",
    "memory_short": "the worker of {model} was ended, as other programs take the memory of this box; ask again in a moment",
    "unloaded": "{model} was unloaded by force while it answered",
    ExitCause.OUT_OF_MEMORY: "the worker of {model} ran out of memory and was killed",
    ExitCause.OUT_OF_GPU_MEMORY: "the worker of {model} got no more memory of the GPU: {detail}",
    ExitCause.UNRESPONSIVE: "the worker of {model} was ended: {detail}",
    ExitCause.NEVER_READY: "the worker of {model} was ended: {detail}",
    ExitCause.KILLED: "the worker of {model} was killed from outside",
    ExitCause.STOPPED: "the worker of {model} was stopped from outside",
    ExitCause.CRASHED: "the worker of {model} crashed: {detail}",
}


def _why_revoked(revocation: Revocation) -> str:
    return _ENDINGS[revocation.cause].format(model=revocation.model, detail=revocation.detail)
