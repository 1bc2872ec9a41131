"""
The single writer: everything that happens comes in here, one turn decides, and the actions it asks for go out.

A turn is a plain function without an `await`, so nothing changes under it and the core needs no locks. What takes time runs
beside it in tasks of one group (listing, starting, stopping, waiting for an answer) and wakes the next turn when it is done.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from controller import engines
from controller.drivers.base import Driver, Usage
from controller.engines.base import Site
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError, Reason, RefusedError, StoreError
from controller.fleet import Fleet
from controller.journal import Journal, Load, Served, Unload
from controller.probes import readiness
from controller.reconcile import Action, Create, Remove, Start, Stop, diff, prepare
from controller.router import Candidate, choose
from controller.scheduler import Answer, Grant, Notice, Refusal, Revocation, Rules, Scheduler
from controller.spec import ModelName, ModelSpec, WorkerSpec
from controller.state import Exit, ExitCause, LeaseId, RunId, Status, Worker
from controller.store import workdirs
from controller.store.ledger import Ledger, LedgerKey
from controller.wire import Acquire, Granted, Loading, Message, Queued, Refused, Release, Renew, Revoked, Route

log: Final = structlog.get_logger()

TICK_S: Final = 0.25
"""The longest a time limit of the core (a quantum, a pause, a deadline) is noticed late."""
RESYNC_S: Final = 10.0
"""How often the engine is asked although nothing was heard of it."""
AWAY_PAUSE_S: Final = 1.0
"""The pause before an engine that was away is asked again."""
LIVENESS_S: Final = 5.0
"""How often a ready worker is asked whether it still answers, and how long it may take."""
LIVENESS_STRIKES: Final = 3
"""So many times in a row without an answer, and it is ended."""
MEMORY_SAMPLE_S: Final = 2.0
READ_BYTES_PER_S: Final = 50_000_000
"""The slowest medium a model may lie on (an SD card), for the time a worker may take to become ready."""
FLUSH_S: Final = 15.0
RETRY_SOON_S: Final = 1.0


class Listener(Protocol):
    """Whoever is told what becomes of a lease: a session of the controller's socket."""

    def send(self, message: Message) -> None:
        """Take one message; never blocks, never raises."""
        ...


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whom a lease belongs to, and what it was asked with."""

    listener: Listener
    route: Route | None = None
    granted_s: float | None = None
    waited_s: float = 0.0
    model: ModelName | None = None


@dataclass(slots=True, kw_only=True)
class Arrival:
    """A load under way: when it was decided, when its container was told to start, and who left for it."""

    decided_s: float
    started_s: float | None = None
    running_s: float | None = None
    evicted: tuple[ModelName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the pool knows of the box: a site for each engine, and the name measurements hold for."""

    sites: Mapping[str, Site]
    device: str
    images: Mapping[str, str] = field(default_factory=dict)

    def worker(self, model: ModelSpec) -> WorkerSpec:
        """Describe the container that serves *model* here."""
        return engines.find(model.engine).worker(model, self.sites[model.engine])

    def ledger_key(self, model: ModelSpec) -> LedgerKey:
        """Return what a measurement of *model* holds for here."""
        return LedgerKey.of(model, image=self.sites[model.engine].image, device=self.device)


class WorkerSpecs(Mapping[ModelName, WorkerSpec]):
    """The containers of all registered models, described when somebody looks: there may be ten thousand."""

    def __init__(self, models: Mapping[ModelName, ModelSpec], host: Host) -> None:
        """Describe nothing yet."""
        self._models = models
        self._host = host
        self._known: dict[ModelName, WorkerSpec] = {}

    def __getitem__(self, model: ModelName) -> WorkerSpec:
        """Describe one."""
        found = self._known.get(model)
        if found is None:
            found = self._known[model] = self._host.worker(self._models[model])
        return found

    def __iter__(self) -> Iterator[ModelName]:
        """Iterate over the models."""
        return iter(self._models)

    def __len__(self) -> int:
        """Count the models."""
        return len(self._models)


class Pool:
    """The single writer. `run` keeps it going; every other method is called from the same event loop."""

    def __init__(self, *, driver: Driver, rules: Rules, host: Host, ledger: Ledger, clock: Callable[[], float]) -> None:
        """Know whom to ask; nothing is asked before `run`."""
        self.driver = driver
        self.host = host
        self.ledger = ledger
        self.journal = Journal()
        self.fleet = Fleet()
        self.models: Mapping[ModelName, ModelSpec] = {}
        self.workers: Mapping[ModelName, Worker] = {}
        self.usage: dict[ModelName, Usage] = {}
        self.engine_away: str | None = None
        self.clock = clock
        self.started_s = clock()
        self.scheduler = Scheduler(rules, {}, {}, self.started_s)
        self._rules = rules
        self._specs: Mapping[ModelName, WorkerSpec] = {}
        self._callers: dict[LeaseId, Caller] = {}
        self._arrivals: dict[ModelName, Arrival] = {}
        self._departures: dict[ModelName, float] = {}
        self._probing: set[tuple[ModelName, RunId]] = set()
        self._strikes: dict[ModelName, int] = {}
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()
        self._adopted = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._internal = itertools.count(1)
        self._on_measured: Callable[[], None] = lambda: None

    # Life.

    async def run(self) -> None:
        """Keep going until cancelled; the containers stay as they are."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._watch_engine())
            await self._list()
            self.workers = self.fleet.workers()
            self.scheduler = Scheduler(self._rules, self.models, self.workers, self.clock())
            self._outdate()
            self._adopted.set()
            log.info("pool.adopted", workers=sorted(self.scheduler.desired))
            tasks.create_task(self._keep_listing())
            tasks.create_task(self._keep_alive())
            tasks.create_task(self._keep_measuring())
            while True:
                self._turn_safely()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
                self._wake.clear()

    async def adopted(self) -> None:
        """Wait until the engine has been looked at once: before that, nobody can be answered."""
        await self._adopted.wait()

    def on_measured(self, hook: Callable[[], None]) -> None:
        """Call *hook* when a measurement may have changed a footprint."""
        self._on_measured = hook

    def register(self, models: Mapping[ModelName, ModelSpec]) -> None:
        """Take the catalog as it is now."""
        self.models = models
        self._specs = WorkerSpecs(models, self.host)
        self.scheduler.register(models)
        self._outdate()
        self._wake.set()

    # What sessions say.

    def acquire(self, message: Acquire, listener: Listener) -> None:
        """Route a request and queue it; the listener hears what becomes of it."""
        now, lease = self.clock(), LeaseId(message.id)
        try:
            route = choose(message.ask, self._candidates(message.ask.mode, message.ask.model))
            self.scheduler.request(
                lease, ModelName(route.model), now, batch=message.priority == "batch", deadline_s=message.deadline_s
            )
        except RefusedError as exc:
            listener.send(
                Refused(
                    id=message.id, reason=exc.reason, message=str(exc), retry_after_s=exc.retry_after_s, details=_details(exc)
                )
            )
            return
        self._callers[lease] = Caller(listener=listener, route=route, model=ModelName(route.model))
        self._wake.set()

    def renew(self, message: Renew, listener: Listener) -> None:
        """Take back a lease that a gateway still holds after this controller was restarted."""
        now, lease = self.clock(), LeaseId(message.id)
        model, run = ModelName(message.model), RunId(message.run)
        if not self.scheduler.renew(lease, model, run, now):
            listener.send(Refused(id=message.id, reason=Reason.WORKER_FAILED, message=f"the worker of {model} is gone"))
            return
        self._callers[lease] = Caller(listener=listener, granted_s=now, model=model)
        listener.send(
            Granted(
                id=message.id,
                model=model,
                socket=str(self._specs[model].socket) if model in self._specs else "",
                run=run,
                limit_s=self._rules.request_limit_s,
                waited_s=0.0,
                bound_s=0.0,
            )
        )

    def release(self, message: Release) -> None:
        """Take a lease back, or let a waiting caller go."""
        now, lease = self.clock(), LeaseId(message.id)
        caller = self._callers.pop(lease, None)
        held = self.scheduler.leases.get(lease)
        total_s = None if held is None else now - held.since_s
        self.scheduler.release(lease, now, served_s=total_s if message.outcome == "ok" else None)
        if caller is not None and held is not None and total_s is not None:
            self._note_served(held.model, caller, message, total_s, now)
        self._wake.set()

    def leave(self, listener: Listener) -> None:
        """End everything a listener holds or waits for: its connection is gone."""
        now = self.clock()
        for lease in [lease for lease, caller in self._callers.items() if caller.listener is listener]:
            del self._callers[lease]
            self.scheduler.release(lease, now)
        self._wake.set()

    # What operators say.

    async def load(self, model: str) -> float:
        """
        Load a model and return the seconds it took.

        Raises:
            RefusedError: it cannot be loaded, with the reason.

        """
        began_s, lease = self.clock(), LeaseId(f"load-{next(self._internal)}")
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.scheduler.request(lease, ModelName(model), began_s, load_only=True)
        self._callers[lease] = Caller(listener=_Waiting(answered))
        self._wake.set()
        try:
            await answered
        finally:
            self._callers.pop(lease, None)
            self.scheduler.release(lease, self.clock())
        return self.clock() - began_s

    def begin_load(self, model: str) -> None:
        """
        Load a model and wait for nothing.

        Raises:
            RefusedError: it cannot be loaded, with the reason.

        """
        lease = LeaseId(f"load-{next(self._internal)}")
        self.scheduler.request(lease, ModelName(model), self.clock(), load_only=True)
        self._wake.set()

    async def unload(self, model: str, *, force: bool) -> float:
        """
        Unload a model, wait until its memory is back, and return the seconds it took.

        Raises:
            RefusedError: it is pinned or busy, and *force* is not set.

        """
        began_s, name = self.clock(), ModelName(model)
        self._deliver(self.scheduler.unload(name, force=force))
        self._wake.set()
        while self._holds_memory(name) and name not in self.scheduler.desired:
            await asyncio.sleep(0.01)
        return self.clock() - began_s

    def _holds_memory(self, model: ModelName) -> bool:
        worker = self.fleet.workers().get(model)
        return worker is not None and worker.held_bytes > 0

    # One turn.

    def _turn_safely(self) -> None:
        """Run one turn; the one place where any error is caught, so that a fault in one decision does not end all service."""
        try:
            self._turn()
        except Exception:
            log.exception("pool.turn_failed")

    def _turn(self) -> None:
        now = self.clock()
        before = frozenset(self.scheduler.desired)
        self.workers = self.fleet.workers()
        for model, worker in self.workers.items():
            self._note_exit(model, worker)
        self._deliver(self.scheduler.turn(self.workers, now))
        desired = frozenset(self.scheduler.desired)
        for model in desired - before:
            self._arrivals[model] = Arrival(decided_s=now, evicted=tuple(sorted(before - desired)))
            log.info("model.wanted", model=model, evicting=sorted(before - desired))
        for model in before - desired:
            self._arrivals.pop(model, None)
        if self.engine_away is not None:
            return
        actions = diff(desired, self.workers, self._specs, self._rules.budget_bytes)
        if not actions and not self.fleet.acting and (spare := prepare(self.workers, self._specs)) is not None:
            actions = (spare,) if self.scheduler.record(spare.model).retry_at_s <= now else ()
        for action in actions:
            if action.model not in self.fleet.acting:
                self._spawn(action, now)
        for model, run in self.fleet.unready():
            if (model, run) not in self._probing:
                self._probing.add((model, run))
                self._background(self._await_ready(model, run))

    def _deliver(self, answers: Iterable[Answer]) -> None:
        now = self.clock()
        for answer in answers:
            caller = self._callers.get(answer.lease)
            if caller is None:
                if isinstance(answer, Grant):
                    self.scheduler.release(answer.lease, now)
                continue
            match answer:
                case Grant():
                    caller.granted_s, caller.waited_s = now, answer.waited_s
                    caller.listener.send(self._granted(answer, caller))
                case Notice():
                    caller.listener.send(_waiting_message(answer))
                case Refusal():
                    del self._callers[answer.lease]
                    caller.listener.send(
                        Refused(id=answer.lease, reason=answer.reason, message=answer.message, retry_after_s=answer.retry_after_s)
                    )
                case Revocation():
                    del self._callers[answer.lease]
                    caller.listener.send(Revoked(id=answer.lease, cause=str(answer.cause), message=_why_revoked(answer)))

    def _granted(self, grant: Grant, caller: Caller) -> Granted:
        return Granted(
            id=grant.lease,
            model=grant.model,
            socket=str(self._specs[grant.model].socket),
            run=grant.run,
            route=caller.route,
            limit_s=self._rules.request_limit_s,
            waited_s=grant.waited_s,
            bound_s=grant.bound_s,
        )

    def _candidates(self, mode: str, wanted: str | None) -> list[Candidate]:
        """Return what the router may choose from: just the one model where there is nothing to choose."""
        if mode == "manual" and wanted is not None and (spec := self.models.get(ModelName(wanted))) is not None:
            return [self._candidate(spec)]
        return [self._candidate(spec) for spec in self.models.values()]

    def _candidate(self, spec: ModelSpec) -> Candidate:
        record = self.scheduler.record(spec.name)
        worker = self.workers.get(spec.name)
        resident = spec.name in self.scheduler.desired and worker is not None and worker.status is Status.READY
        expected_s = self.scheduler.expected_wait_s(spec.name)
        load_s = 0.0 if resident else min(expected_s, record.load_s)
        measured = self.ledger.find(self.host.ledger_key(spec))
        resting = record.resting and self.clock() < record.retry_at_s
        return Candidate(
            spec=spec,
            resident=resident,
            wait_s=expected_s - load_s,
            load_s=load_s,
            tokens_per_s=measured.tokens_per_s or None if measured else None,
            refused_fields=engines.find(spec.engine).refused_fields,
            room_bytes=self.room_bytes(spec.name),
            unavailable_reason=f"it failed {record.failures} times in a row" if resting else "",
        )

    def room_bytes(self, model: ModelName) -> int:
        """Return the most the budget can ever give a model: all of it, but for what is pinned elsewhere."""
        pinned = [m for m in self.scheduler.desired if m != model and m in self.models and self.models[m].pinned]
        return self._rules.budget_bytes - sum(self.models[m].footprint.total_bytes for m in pinned)

    @property
    def budget_bytes(self) -> int:
        """The memory that models may take together."""
        return self._rules.budget_bytes

    # Actions.

    def _spawn(self, action: Action, now: float) -> None:
        self.fleet.begin(action, now)
        if isinstance(action, Stop):
            self._departures[action.model] = now
        if isinstance(action, Start) and (arrival := self._arrivals.get(action.model)) is not None:
            arrival.started_s = now
        self._background(self._perform(action))

    async def _perform(self, action: Action) -> None:
        model = action.model
        try:
            match action:
                case Create():
                    spec = self._specs[model]
                    await asyncio.to_thread(workdirs.prepare, spec)
                    await self.driver.create(spec)
                case Start():
                    await asyncio.to_thread(workdirs.prepare, self._specs[model])
                    await self.driver.start(model)
                    if (arrival := self._arrivals.get(model)) is not None:
                        arrival.running_s = self.clock()
                case Stop():
                    await self.driver.kill(model)
                case Remove():
                    await self.driver.remove(model)
        except EngineUnavailableError as exc:
            self._engine_went_away(str(exc))
        except (ContainerMissingError, KeyError):
            log.info("container.missing", model=model, action=type(action).__name__.lower())
        except (EngineError, StoreError) as exc:
            log.warning("container.failed", model=model, action=type(action).__name__.lower(), error=str(exc))
            if isinstance(action, Create | Start):
                self._deliver(self.scheduler.fail(model, str(exc), self.clock()))
                self.journal.failed()
        finally:
            self.fleet.settle(model)
            self._stale.set()

    async def _await_ready(self, model: ModelName, run: RunId) -> None:
        spec = self.models.get(model)
        worker_spec = self._specs.get(model)
        if spec is None or worker_spec is None:
            self._probing.discard((model, run))
            return
        limit_s = engines.find(spec.engine).start_timeout_s + spec.weights_bytes / READ_BYTES_PER_S

        def wanted() -> bool:
            return (model, run) in self.fleet.unready()

        try:
            if await readiness.wait_ready(worker_spec.socket, timeout_s=limit_s, still_wanted=wanted):
                self.fleet.note_ready(model, run, self.clock())
                self._note_ready(spec)
            elif wanted():
                await self._end(model, run, ExitCause.NEVER_READY, f"it did not answer within {limit_s:.0f} s")
        finally:
            self._probing.discard((model, run))
            self._wake.set()

    async def _end(self, model: ModelName, run: RunId, cause: ExitCause, detail: str) -> None:
        log.warning("worker.ended", model=model, cause=cause.value, detail=detail)
        self.fleet.judge(model, run, Exit(cause=cause, code=137, detail=detail))
        try:
            await self.driver.kill(model)
        except EngineError as exc:
            log.warning("container.failed", model=model, action="kill", error=str(exc))
        self._stale.set()

    # What goes on beside the turns.

    async def _list(self) -> None:
        while True:
            number = self.fleet.begin_listing()
            try:
                containers = await self.driver.list()
            except EngineError as exc:
                self._engine_went_away(str(exc))
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if self.engine_away is not None:
                log.info("engine.back")
                self.engine_away = None
            self.fleet.end_listing(number, containers)
            self._wake.set()
            return

    async def _keep_listing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_S):
                    await self._stale.wait()
            self._stale.clear()
            await self._list()

    async def _watch_engine(self) -> None:
        """Listen to the engine: it tells of a death sooner than any question would."""
        while True:
            try:
                async for _ in self.driver.events():
                    self._stale.set()
            except EngineError as exc:
                self._engine_went_away(str(exc))
            self._stale.set()
            await asyncio.sleep(AWAY_PAUSE_S)

    async def _keep_alive(self) -> None:
        """Find workers that run and answer nothing: stuck, or frozen from outside."""
        while True:
            await asyncio.sleep(LIVENESS_S)
            ready = self.fleet.ready()
            self._strikes = {m: n for m, n in self._strikes.items() if m in dict(ready)}
            for model, run in ready:
                spec = self._specs.get(model)
                if spec is None or await readiness.health(spec.socket, timeout_s=LIVENESS_S) is not None:
                    self._strikes.pop(model, None)
                    continue
                self._strikes[model] = self._strikes.get(model, 0) + 1
                if self._strikes[model] >= LIVENESS_STRIKES and (model, run) in self.fleet.ready():
                    await self._end(model, run, ExitCause.UNRESPONSIVE, "it stopped answering")

    async def _keep_measuring(self) -> None:
        flushed_s = self.clock()
        while True:
            await asyncio.sleep(MEMORY_SAMPLE_S)
            ready = dict(self.fleet.ready())
            self.usage = {m: u for m, u in self.usage.items() if m in ready}
            for model in ready:
                with contextlib.suppress(EngineError):
                    usage = self.usage[model] = await self.driver.usage(model)
                    if (spec := self.models.get(model)) is not None:
                        self.ledger.saw_memory(
                            self.host.ledger_key(spec), anon_bytes=usage.anon_bytes, peak_bytes=usage.peak_bytes
                        )
            if self.clock() - flushed_s >= FLUSH_S:
                flushed_s = self.clock()
                await self._flush()

    async def _flush(self) -> None:
        try:
            if await asyncio.to_thread(self.ledger.flush):
                self._on_measured()
        except StoreError as exc:
            log.warning("ledger.not_written", error=str(exc))

    # Notes.

    def _outdate(self) -> None:
        """Have those loaded anew whose description is not the one they were made from."""
        self.scheduler.outdate(m for m, w in self.workers.items() if m in self._specs and w.spec_hash != self._specs[m].spec_hash)

    def _engine_went_away(self, why: str) -> None:
        if self.engine_away is None:
            log.warning("engine.away", error=why)
        self.engine_away = why
        self._stale.set()

    def _note_ready(self, spec: ModelSpec) -> None:
        now = self.clock()
        arrival = self._arrivals.pop(spec.name, None)
        if arrival is None or arrival.started_s is None:
            log.info("worker.ready", model=spec.name)
            return
        running_s = arrival.running_s or arrival.started_s
        load = Load(
            model=spec.name,
            at_s=now,
            weights_bytes=spec.weights_bytes,
            room_s=arrival.started_s - arrival.decided_s,
            start_s=running_s - arrival.started_s,
            ready_s=now - running_s,
            evicted=arrival.evicted,
        )
        self.journal.add(load)
        self.scheduler.loaded(spec.name, load.start_s + load.ready_s)
        self.ledger.saw_load(self.host.ledger_key(spec), load_s=load.start_s + load.ready_s)
        log.info(
            "worker.ready",
            model=spec.name,
            took_s=round(load.total_s, 3),
            room_s=round(load.room_s, 3),
            start_s=round(load.start_s, 3),
            ready_s=round(load.ready_s, 3),
        )

    def _note_exit(self, model: ModelName, worker: Worker) -> None:
        if worker.status is not Status.STOPPED:
            return
        if (since_s := self._departures.pop(model, None)) is not None:
            now = self.clock()
            self.journal.add(Unload(model=model, at_s=now, seconds=now - since_s, memory_bytes=worker.memory_bytes))
            log.info("worker.stopped", model=model, took_s=round(now - since_s, 3))
        elif (
            model in self.scheduler.desired and worker.exit is not None and worker.run != self.scheduler.record(model).run_before
        ):
            self.journal.failed()
            log.warning(
                "worker.failed", model=model, cause=worker.exit.cause.value, code=worker.exit.code, detail=worker.exit.detail
            )
            if worker.exit.cause is ExitCause.OUT_OF_MEMORY and (spec := self.models.get(model)) is not None:
                self.ledger.saw_out_of_memory(self.host.ledger_key(spec), limit_bytes=worker.memory_bytes)
                self._on_measured()

    def _note_served(self, model: ModelName, caller: Caller, message: Release, total_s: float, now: float) -> None:
        self.journal.add(
            Served(
                model=model,
                at_s=now,
                outcome=message.outcome,
                waited_s=caller.waited_s,
                first_token_s=message.first_token_s,
                total_s=total_s,
                prompt_tokens=message.prompt_tokens,
                completion_tokens=message.completion_tokens,
            )
        )
        spec = self.models.get(model)
        if spec is None or message.outcome != "ok":
            return
        decoding_s = (message.total_s or 0.0) - (message.first_token_s or 0.0)
        speed = (message.completion_tokens - 1) / decoding_s if message.completion_tokens > 1 and decoding_s > 0 else 0.0
        self.ledger.saw_request(
            self.host.ledger_key(spec), tokens=message.prompt_tokens + message.completion_tokens, tokens_per_s=speed
        )

    def _background(self, work: Awaitable[None]) -> None:
        assert self._tasks is not None, "the pool acts only while it runs"
        self._tasks.create_task(_shielded(work))


class _Waiting:
    """A listener that waits for a load: the first answer that is not a notice settles it."""

    def __init__(self, answered: asyncio.Future[None]) -> None:
        self._answered = answered

    def send(self, message: Message) -> None:
        """Settle the future."""
        if self._answered.done():
            return
        if isinstance(message, Granted):
            self._answered.set_result(None)
        elif isinstance(message, Refused):
            self._answered.set_exception(RefusedError(message.reason, message.message, retry_after_s=message.retry_after_s))


async def _shielded(work: Awaitable[None]) -> None:
    """Keep one failing task from ending the whole group; what it could not do, the next turn asks for again."""
    try:
        await work
    except Exception:
        log.exception("pool.task_failed")


def _waiting_message(notice: Notice) -> Queued | Loading:
    if notice.loading:
        return Loading(id=notice.lease, model=notice.model, eta_s=notice.eta_s, evicting=notice.evicting)
    return Queued(id=notice.lease, model=notice.model, position=notice.position, eta_s=notice.eta_s, bound_s=notice.bound_s)


def _why_revoked(revocation: Revocation) -> str:
    match revocation.cause:
        case "time_limit":
            return f"the request held {revocation.model} for {revocation.detail}, which is the longest it may"
        case "removed":
            return f"the worker of {revocation.model} was removed while it answered"
        case "unloaded":
            return f"{revocation.model} was unloaded by force while it answered"
        case ExitCause.OUT_OF_MEMORY:
            return f"the worker of {revocation.model} ran out of memory and was killed by the kernel"
        case ExitCause.UNRESPONSIVE | ExitCause.NEVER_READY:
            return f"the worker of {revocation.model} was ended: {revocation.detail}"
        case ExitCause.KILLED:
            return f"the worker of {revocation.model} was killed from outside"
        case _:
            return f"the worker of {revocation.model} ended by itself ({revocation.cause}) {revocation.detail}".rstrip()


def _details(refused: RefusedError) -> dict[str, Any]:
    return getattr(refused, "details", {})
