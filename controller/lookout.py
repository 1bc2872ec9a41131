"""
The guard's eyes: they look at the memory of the box and of every worker, as often as it takes to see a program grow in time.

Nothing is decided here. What was seen goes to the guard, which is pure, and what follows from it is done in the turns.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from controller.budget import Budget
from controller.drift import Drift, Drifts, Reading, is_choked
from controller.drivers.base import Driver, Usage
from controller.errors import EngineError
from controller.gpu_watch import POLL_S, GpuWatch
from controller.guard import Guard, Level, Sample
from controller.meter import Meter
from controller.probes.memory import Supply, read_supply
from controller.scheduler import Answer, Scheduler
from controller.spec import ModelName, ModelSpec
from controller.state import RunId, Status, Worker
from controller.units import GIB, format_bytes

log: Final = structlog.get_logger()

PATIENCE_S: Final = 0.05
"""How long an engine may take to say what its workers hold, before the figures from the last time must do."""
LOADING: Final = (Status.HELD, Status.STARTING)
"""They read weights, and may wait for memory by themselves."""
RUNNING: Final = (Status.STARTING, Status.READY, Status.STOPPING)


class Owner(Protocol):
    """The single writer, as far as the lookout must know it."""

    scheduler: Scheduler
    budget: Budget

    @property
    def models(self) -> Mapping[ModelName, ModelSpec]:
        """The registered models."""
        ...

    @property
    def workers(self) -> Mapping[ModelName, Worker]:
        """The workers as the last turn saw them."""
        ...

    def on_gpu(self, model: ModelName) -> bool:
        """Say whether a model's worker computes on a GPU."""
        ...

    def look_again(self) -> None:
        """Take another turn."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The memory of one run, and when it was read."""

    run: RunId
    at_s: float
    usage: Usage
    refault_bytes_per_s: float


class Lookout:
    """
    Looks, tells the guard, and does what it says.

    Attributes:
        guard: who decides.
        stopped: how many idle workers were stopped because the budget had shrunk.
        ended: how many busy ones were ended.
        gpus: what workers hold on GPUs.

    """

    def __init__(
        self,
        *,
        guard: Guard,
        driver: Driver,
        meter: Meter,
        owner: Owner,
        clock: Callable[[], float],
        read: Callable[[], Supply] = read_supply,
        gpus: GpuWatch | None = None,
    ) -> None:
        """Know whom to ask and whom to tell."""
        self.gpus = gpus or GpuWatch(driver=driver, clock=clock)
        self.guard = guard
        self.stopped = 0
        self.ended = 0
        self._driver = driver
        self._meter = meter
        self._owner = owner
        self._clock = clock
        self._read = read
        self._seen: dict[ModelName, _Seen] = {}
        self._drifts = Drifts()
        self._ask = asyncio.Event()
        self._told = asyncio.Event()
        self._critical = asyncio.Event()
        self._stalled: tuple[float, float] | None = None

    async def keep_watching(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_asking())
            if self.gpus.device.has_gpu:
                tasks.create_task(self._keep_watching_gpus())
            while True:
                self._told.clear()
                self._ask.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_S):
                        await self._told.wait()
                await self.look()
                await asyncio.sleep(self.guard.verdict.look_again_s)

    async def look(self) -> None:
        """Look at the box once, and have a turn taken if something follows from it."""
        # The workers were asked before: what one of them gives back between the two readings is counted twice, which harms
        # nobody, and the other way round it would be missed, and another worker would go for it.
        supply = await asyncio.to_thread(self._read)
        now, before = self._clock(), self.guard.verdict
        verdict = self.guard.see(
            Sample(
                at_s=now,
                available_bytes=supply.available_bytes,
                private_bytes=self._private_bytes(),
                committed_bytes=self._owner.scheduler.committed_bytes,
                stall_share=self._stall_share(supply, now),
                refault_bytes_per_s=sum(self._refaults(m) for m, w in self._owner.workers.items() if w.status is Status.READY),
                loading=any(w.status in LOADING for w in self._owner.workers.values()),
            )
        )
        if verdict.level is not before.level:
            log.warning("guard.level", level=verdict.level.value, was=before.level.value, reason=verdict.reason)
            (self._critical.set if verdict.level is Level.CRITICAL else self._critical.clear)()
        if verdict.budget_bytes != self._owner.budget.allowed_bytes or verdict.level is Level.CRITICAL:
            self._owner.budget.allow(verdict.budget_bytes, shortage=verdict.reason)
            self._owner.look_again()

    def usage(self, model: ModelName) -> Usage | None:
        """Return the memory of a running worker, as it was seen last."""
        seen = self._seen.get(model)
        return seen.usage if seen else None

    def private_bytes(self, worker: Worker) -> int:
        """
        Return what one holds privately; of one that nobody could ask yet, what it is expected to.

        What a GPU that shares the box's memory holds for it is seen seldom, and in between it must not look like somebody else's:
        until it was seen at rest, the worker counts for no less than it is expected to hold.
        """
        seen, spec = self._seen.get(worker.model), self._owner.models.get(worker.model)
        expected_bytes = spec.footprint.private_bytes if spec else 0
        if seen is None:
            return expected_bytes
        if self.gpus.device.unified and self._owner.on_gpu(worker.model) and not self.gpus.is_current(seen.usage, worker):
            return max(seen.usage.private_bytes, expected_bytes)
        return seen.usage.private_bytes

    def choked(self, worker: Worker) -> str:
        """Say what a worker was seen to lack, if it cannot go on for want of memory; else nothing."""
        seen = self._seen.get(worker.model)
        if seen is None:
            return ""
        usage, memory_bytes = seen.usage, worker.memory_bytes
        if not is_choked(usage.private_bytes, memory_bytes=memory_bytes, oom_kills=usage.oom_kills):
            return ""
        held = f"{format_bytes(usage.private_bytes)} of {format_bytes(memory_bytes)} held privately"
        return f"{held}, {usage.oom_kills} of its processes killed" if usage.oom_kills else held

    def drift(self, model: ModelName) -> Drift | None:
        """Return how the worker of a model has outgrown its figure, if it has."""
        worker = self._owner.workers.get(model)
        return None if worker is None or worker.status is not Status.READY else self._drifts.of(model, worker.run)

    async def unless_critical(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what is worth doing before a worker ends, but not for one moment in which the box has less than its floor."""
        async with asyncio.TaskGroup() as tasks:
            both = tasks.create_task(work), tasks.create_task(_until(self._critical))
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()

    # What a turn asks, when it has decided.

    def after_turn(self, scheduler: Scheduler, before: frozenset[ModelName], now: float) -> list[Answer]:
        """Count who was stopped for want of memory, and end a busy worker if that was not enough."""
        workers = self._owner.workers
        held_bytes = sum(workers[m].held_bytes for m in before if m in workers)
        if held_bytes > self.guard.verdict.budget_bytes and self.guard.verdict.reason:
            for model in sorted(before - scheduler.desired):
                self.stopped += 1
                log.warning("guard.stopped", model=model, reason=self.guard.verdict.reason)
        leaving = any(w.status in RUNNING and m not in scheduler.desired for m, w in workers.items())
        victim = self.guard.victim(scheduler.residents(now), leaving=leaving, now=now)
        if victim is None:
            return []
        self.ended += 1
        log.warning("guard.ended", model=victim, reason=self.guard.verdict.reason)
        return scheduler.sacrifice(victim)

    # How it looks.

    async def _keep_asking(self) -> None:
        """Ask for the memory of every worker at once, whenever a look is due; whoever answers late is counted the next time."""
        while True:
            await self._ask.wait()
            self._ask.clear()
            running = {m: w.run for m, w in self._owner.workers.items() if w.status in RUNNING}
            self._seen = {m: seen for m, seen in self._seen.items() if running.get(m) == seen.run}
            await asyncio.gather(*(self._ask_worker(model, run) for model, run in running.items()))
            self._told.set()

    async def _keep_watching_gpus(self) -> None:
        """Look at the GPUs whenever that is due, and no more often."""
        while True:
            workers = [worker for model, worker in self._owner.workers.items() if self._owner.on_gpu(model)]
            if self.gpus.is_due(workers):
                await self.gpus.look(workers)
                self._allow_cards()
            await asyncio.sleep(POLL_S)

    def _allow_cards(self) -> None:
        """Let models take of the cards what other programs leave of them."""
        cards = self.gpus.allowed(self._owner.budget.total.cards)
        if cards != self._owner.budget.allowed.cards:
            log.info("cards.allowed", gib={card: round(size_bytes / GIB, 1) for card, size_bytes in cards})
            self._owner.budget.allow_cards(cards)
            self._owner.look_again()

    async def _ask_worker(self, model: ModelName, run: RunId) -> None:
        try:
            usage = await self._driver.usage(model)
        except EngineError:  # it may end while it is asked
            return
        if (asked := self._owner.workers.get(model)) is not None and self._owner.on_gpu(model):
            usage = self.gpus.completed(usage, asked)
        now, before = self._clock(), self._seen.get(model)
        rate = 0.0
        if before is not None and before.run == run and now > before.at_s:
            rate = max(0, usage.refault_bytes - before.usage.refault_bytes) / (now - before.at_s)
        self._seen[model] = _Seen(run=run, at_s=now, usage=usage, refault_bytes_per_s=rate)
        worker, spec = self._owner.workers.get(model), self._owner.models.get(model)
        if worker is not None and worker.status is Status.READY and worker.run == run and spec is not None:
            self._meter.saw_memory(spec, usage, cards=len(worker.cards))
            self._watch_drift(worker, spec, self._seen[model])

    def _watch_drift(self, worker: Worker, spec: ModelSpec, seen: _Seen) -> None:
        """Have a model that needs more than its figure charged more, and loaded anew if it cannot work with what it has."""
        reading = Reading(
            private_bytes=seen.usage.private_bytes,
            charged_bytes=seen.usage.charged_bytes,
            refault_bytes_per_s=seen.refault_bytes_per_s,
            weights_bytes=spec.footprint.weights_bytes,
            memory_bytes=worker.memory_bytes,
        )
        news = self._drifts.see(spec.name, worker.run, reading, now=seen.at_s)
        if news is not None:
            log.warning("model.drifted", model=spec.name, why=news.why, thrashes=news.thrashes)
            self._meter.drifted(spec, worker, news)
        drift = self._drifts.of(spec.name, worker.run)
        if drift is not None and drift.thrashes and spec.footprint.total_bytes > worker.memory_bytes:
            self._owner.scheduler.outdate([spec.name])
            self._owner.look_again()

    def _private_bytes(self) -> int:
        """Add up what the workers hold privately."""
        return sum(self.private_bytes(worker) for worker in self._owner.workers.values() if worker.status in RUNNING)

    def _refaults(self, model: ModelName) -> float:
        seen = self._seen.get(model)
        return seen.refault_bytes_per_s if seen else 0.0

    def _stall_share(self, supply: Supply, now: float) -> float:
        before, self._stalled = self._stalled, (now, supply.stalled_s)
        if before is None or now <= before[0]:
            return 0.0
        return max(0.0, supply.stalled_s - before[1]) / (now - before[0])


async def _until(event: asyncio.Event) -> None:
    await event.wait()
