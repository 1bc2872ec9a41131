"""
The hands of the pool: they do what a turn has decided, and look after the workers between turns.

Nothing is decided here. What was done and what was seen goes into the fleet, and whoever owns the crew is told to look again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from controller import engines
from controller.complaints import LINES, gpu_memory_complaint
from controller.drivers.base import Container, Driver
from controller.duties import kept_up, survived
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError, StoreError
from controller.fleet import Fleet
from controller.free_pages import FreePages
from controller.gpu_watch import GpuWatch
from controller.memory_back import MemoryBack
from controller.probes import readiness
from controller.probes.kernel import read_memory_kills
from controller.probes.memory import Supply, read_supply
from controller.probes.notices import Notices
from controller.readahead import LoadPlan
from controller.reconcile import Action, Create, Hold, LetGo, Remove, Start, Stop
from controller.spec import ModelName, ModelSpec, WorkerSpec
from controller.starts import Starts
from controller.state import Exit, ExitCause, RunId, Status
from controller.store import workdirs

log: Final = structlog.get_logger()

RESYNC_S: Final = 10.0
"""How often the engine is asked although nothing was heard of it."""
AWAY_PAUSE_S: Final = 1.0
"""The pause before an engine that was away is asked again."""
LAST_WORDS_S: Final = 3.0
"""How long the log of a worker that has crashed is waited for."""
LIVENESS_S: Final = 3.0
"""How often a ready worker is asked whether it still answers, and how long it may take to."""
LIVENESS_STRIKES: Final = 3
"""So many times in a row without an answer, and it is ended."""
READ_BYTES_PER_S: Final = 50_000_000
"""The slowest medium a model may lie on (an SD card), for the time a worker may take to become ready."""


class Owner(Protocol):
    """Whoever decides: it is told what happened, and looks again."""

    def look_again(self) -> None:
        """Take another turn: something in the fleet has changed."""
        ...

    def action_failed(self, model: ModelName, why: str) -> None:
        """Hear that a container could not be made or started."""
        ...

    def container_started(self, model: ModelName) -> None:
        """Hear that the engine has started a container."""
        ...

    def start_planned(self, model: ModelName, plan: LoadPlan) -> None:
        """Hear how the weights of a model whose container is about to start come into memory."""
        ...

    def worker_ready(self, model: ModelName, notices: Notices) -> None:
        """Hear that a worker answers for the first time in its run, and what it said of itself."""
        ...

    def private_bytes(self, model: ModelName) -> int:
        """Say what a worker holds that only its end gives back; 0 if nobody knows."""
        ...

    def choked(self, model: ModelName) -> str:
        """Say what a worker was seen to lack, if it cannot go on for want of memory; else nothing."""
        ...

    def worker_ended(self, model: ModelName, parts: Mapping[str, float], *, returned_bytes: int | None) -> None:
        """Hear that a worker was ended and its memory is back, and what the time went into."""
        ...


class Crew:
    """
    Performs actions and watches workers, in tasks of one group.

    Attributes:
        engine_away: why the container engine does not answer; `None` while it does.
        models: the registered models.
        specs: their containers.
        memory_back: who waits for the memory of those that have ended.

    """

    def __init__(
        self,
        *,
        driver: Driver,
        fleet: Fleet,
        owner: Owner,
        clock: Callable[[], float],
        count_memory_kills: Callable[[], int] = read_memory_kills,
        before_stop: Callable[[ModelName], Awaitable[None]] | None = None,
        read: Callable[[], Supply] = read_supply,
        starts: Starts | None = None,
        gpus: GpuWatch | None = None,
        free_pages: FreePages | None = None,
    ) -> None:
        """Know whom to ask and whom to tell; `before_stop` saves what is worth it, in a time that it bounds itself."""
        self.engine_away: str | None = None
        self.models: Mapping[ModelName, ModelSpec] = {}
        self.specs: Mapping[ModelName, WorkerSpec] = {}
        self._driver = driver
        self._fleet = fleet
        self._owner = owner
        self._clock = clock
        self._gpus = gpus or GpuWatch(driver=driver, clock=clock)
        self._free_pages = free_pages or FreePages()
        self.memory_back = MemoryBack(read=read, gpus=self._gpus, clock=clock)
        self._count_memory_kills = count_memory_kills
        self._memory_kills = count_memory_kills()
        self._before_stop = before_stop
        self._stale = asyncio.Event()
        self._starts = starts or Starts(read)
        self._probing: set[tuple[ModelName, RunId]] = set()
        self._strikes: dict[tuple[ModelName, RunId], int] = {}

    async def look(self) -> None:
        """Ask the engine for all containers, as long as it takes until it answers."""
        while True:
            number = self._fleet.begin_listing()
            try:
                containers = await self._driver.list()
            except EngineError as exc:
                self._went_away(str(exc))
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if self.engine_away is not None:
                log.info("engine.back")
                self.engine_away = None
            killed_before, self._memory_kills = self._memory_kills, self._count_memory_kills()
            await self._hear_complaints(containers)
            held = [c.model for c in containers if c.running and c.model in self.specs and workdirs.is_held(self.specs[c.model])]
            self._fleet.end_listing(number, containers, memory_kills=self._memory_kills - killed_before, held=held)
            self._owner.look_again()
            return

    async def _hear_complaints(self, containers: Sequence[Container]) -> None:
        """Read the last words of those who have just crashed on a GPU: that it had no memory for them, nobody else tells."""
        crashed = [c for c in self._fleet.just_crashed(containers) if c.model in self.specs and self.specs[c.model].devices]
        await asyncio.gather(*(self._hear(container) for container in crashed))

    async def _hear(self, container: Container) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                log_text = await self._driver.logs(container.model, tail=LINES)
        except (EngineError, TimeoutError):
            return
        if complaint := gpu_memory_complaint(log_text):
            self._fleet.explain(container, ExitCause.OUT_OF_GPU_MEMORY, complaint)

    async def watch(self) -> None:
        """Keep the fleet true until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for duty in (self._listen, self._keep_looking, self._keep_alive):
                tasks.create_task(kept_up(duty))

    def close(self) -> None:
        """Listen to nobody any more; workers stay as they are."""
        self._starts.close()

    def perform(self, action: Action, tasks: asyncio.TaskGroup) -> None:
        """Begin an action; one model has at most one under way."""
        self._fleet.begin(action, self._clock())
        tasks.create_task(survived(self._perform(action)))

    def greet(self, tasks: asyncio.TaskGroup) -> None:
        """Wait for the first answer of every run that is up and has not answered."""
        for model, run in self._fleet.unready():
            if (model, run) not in self._probing and model in self.models:
                self._probing.add((model, run))
                tasks.create_task(survived(self._await_ready(self.models[model], run)))

    async def _perform(self, action: Action) -> None:
        model = action.model
        verb = type(action).__name__.lower()
        try:
            match action:
                case Create():
                    await asyncio.to_thread(workdirs.prepare, self.specs[model])
                    await self._driver.create(self.specs[model])
                case Start() | Hold():
                    await self._start(model, held=isinstance(action, Hold))
                case LetGo():
                    await self._free_pages_for(model)
                    self._owner.start_planned(model, await self._starts.let_go(self.models[model], self.specs[model]))
                case Stop():
                    await self._stop(model)
                case Remove():
                    await self._driver.remove(model)
                    self._starts.forget(model)  # one that ended by itself was never told to stop
        except EngineUnavailableError as exc:
            self._went_away(str(exc))
        except (ContainerMissingError, KeyError):  # removed by hand, or its model left the catalog meanwhile: look again
            log.info("container.missing", model=model, action=verb)
        except (EngineError, StoreError) as exc:
            log.warning("container.failed", model=model, action=verb, error=str(exc))
            if isinstance(action, Create | Start | Hold | LetGo):
                self._owner.action_failed(model, str(exc))
            else:  # those pause by themselves, the core says for how long; what must end is asked for again
                await asyncio.sleep(AWAY_PAUSE_S)
        finally:
            self._fleet.settle(model)
            self._stale.set()

    async def _start(self, model: ModelName, *, held: bool) -> None:
        spec = self.models[model]
        # Whoever is about to leave still answers, and has all its weights in memory until it does.
        in_memory = [m for m, w in self._fleet.workers().items() if w.held_bytes and m in self.models and m != model]
        mapped_bytes = sum(self.models[m].weights_bytes for m in in_memory)
        plan = await self._starts.prepare(spec, self.specs[model], held=held, mapped_bytes=mapped_bytes)
        self._owner.start_planned(model, plan)
        if not held:
            await self._free_pages_for(model)
        await self._driver.start(model)
        self._owner.container_started(model)

    async def _free_pages_for(self, model: ModelName) -> None:
        """Before a load on a GPU that shares the box's memory, have others' weights leave the page cache, if it takes that."""
        if not self._gpus.device.unified or not self.specs[model].devices:
            return
        workers = self._fleet.workers()
        # Of those that run on the GPU nobody reads the pages any more: they go first.
        others = sorted(
            (m for m in workers if m != model and m in self.models), key=lambda m: workers[m].status is Status.STOPPED
        )
        await self._free_pages.make(self.models[model].footprint.private_bytes, [self.models[m] for m in others])

    async def _stop(self, model: ModelName) -> None:
        """Save what is worth it, kill, and come back when the memory has: the engine's word alone is not enough."""
        begun_s = self._clock()
        if self._before_stop is not None and model not in self._fleet.judged():
            await self._before_stop(model)
        saved_s, before_bytes = self._clock(), self.memory_back.available_bytes()
        held = self._gpus.held(model, self._fleet.run(model))
        await self._driver.kill(model)
        killed_s = self._clock()
        returned_bytes = await self.memory_back.wait(
            model,
            before_bytes=before_bytes,
            private_bytes=self._owner.private_bytes(model),
            on_gpu=model in self.specs and bool(self.specs[model].devices),
            held=held,
        )
        self._starts.forget(model)
        parts = {"save_s": saved_s - begun_s, "kill_s": killed_s - saved_s, "back_s": self._clock() - killed_s}
        self._owner.worker_ended(model, parts, returned_bytes=returned_bytes)

    async def _await_ready(self, model: ModelSpec, run: RunId) -> None:
        def wanted() -> bool:
            return (model.name, run) in self._fleet.unready()

        try:
            engine, spec = engines.find(model.engine), self.specs[model.name]
            limit_s = engine.start_timeout_s + model.weights_bytes / READ_BYTES_PER_S
            notices = await self._starts.notices(spec)
            said = notices.ready if engine.says_ready else None
            if await readiness.wait_ready(spec.socket, timeout_s=limit_s, still_wanted=wanted, said=said):
                self._fleet.note_ready(model.name, run, self._clock())
                self._owner.worker_ready(model.name, notices)
                self._starts.forget(model.name)
            elif wanted():
                self._give_up(model.name, run, ExitCause.NEVER_READY, f"it did not answer within {limit_s:.0f} s")
        finally:
            self._probing.discard((model.name, run))
            self._owner.look_again()

    def _give_up(self, model: ModelName, run: RunId, cause: ExitCause, detail: str) -> None:
        """Note that this run is to end; the turns that follow ask for it until it has."""
        log.warning("worker.given_up", model=model, cause=cause.value, detail=detail)
        self._fleet.judge(model, run, Exit(cause=cause, code=137, detail=detail))
        self._owner.look_again()

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_S):
                    await self._stale.wait()
            self._stale.clear()
            await self.look()

    async def _listen(self) -> None:
        """Listen to the engine: it tells of a death sooner than any question would."""
        while True:
            try:
                events = self._driver.events()
                self._stale.set()  # whatever happened before, nobody told of it
                async for _ in events:
                    self._stale.set()
            except EngineError as exc:
                self._went_away(str(exc))
            await asyncio.sleep(AWAY_PAUSE_S)

    async def _keep_alive(self) -> None:
        """Find workers that run and answer nothing: stuck, or frozen from outside."""
        while True:
            await asyncio.sleep(LIVENESS_S)
            ready = [(model, run) for model, run in self._fleet.ready() if model in self.specs]
            sockets = [self.specs[model].socket for model, _ in ready]
            answers = await asyncio.gather(*(readiness.health(socket, timeout_s=LIVENESS_S) for socket in sockets))
            silent = [worker for worker, status in zip(ready, answers, strict=True) if status is None]
            self._strikes = {worker: self._strikes.get(worker, 0) + 1 for worker in silent}
            for model, run in silent:
                if self._strikes[model, run] >= LIVENESS_STRIKES and (model, run) in self._fleet.ready():
                    lack = self._owner.choked(model)
                    cause = ExitCause.OUT_OF_MEMORY if lack else ExitCause.UNRESPONSIVE
                    self._give_up(model, run, cause, f"it stopped answering, with {lack}" if lack else "it stopped answering")

    def _went_away(self, why: str) -> None:
        if self.engine_away is None:
            log.warning("engine.away", error=why)
        self.engine_away = why
        self._stale.set()
