"""
What each worker holds on GPUs: asked of their driver now and then, kept between two answers.

To ask is not free: on a Jetson it holds up whoever allocates in that moment, elsewhere it starts a program. So workers are looked
at while they load and leave and for a while after, which is when they take and give back nearly all, and rarely otherwise.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from controller.charges import Cards, OnCard
from controller.device import NO_GPU, Device
from controller.drivers.base import Driver, Usage
from controller.errors import EngineError
from controller.gpu_memory import GpuReading, Pid, ReadGpuMemory
from controller.spec import ModelName
from controller.state import RunId, Status, Worker
from controller.units import MIB

log: Final = structlog.get_logger()

POLL_S: Final = 1.0
"""The shortest pause between two looks."""
SETTLE_S: Final = 10.0
"""So long after it became ready a worker is still looked at often: the first requests have it load the last of its code."""
STEP_BYTES: Final = 64 * MIB
"""What others leave of a card is a multiple of this, so that it does not move with every window on a desktop."""
RUNNING: Final = (Status.STARTING, Status.READY, Status.STOPPING)
CALM_S: Final = 60.0
"""How often workers are looked at that do nothing of the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one run of a worker held when it was looked at, by the index of the GPU, and the processes that held it."""

    run: RunId
    at_s: float
    gpus_bytes: Mapping[int, int]
    pids: frozenset[Pid] = frozenset()

    @property
    def total_bytes(self) -> int:
        """On all of them."""
        return sum(self.gpus_bytes.values())


class GpuWatch:
    """
    Remembers the last look.

    Attributes:
        device: the box.
        others_bytes: what programs that are no workers of ours hold of each card, by its index. It is the less of what the last
            two looks have shown: a worker that begins in the very moment of one would look like somebody else.

    """

    def __init__(
        self,
        *,
        driver: Driver,
        clock: Callable[[], float],
        device: Device = NO_GPU,
        read: ReadGpuMemory = lambda: None,
    ) -> None:
        """Know whom to ask."""
        self.device = device
        self.others_bytes: Mapping[int, int] = {}
        self._driver = driver
        self._clock = clock
        self._read = read
        self._held: dict[ModelName, Held] = {}
        self._others_before: Mapping[int, int] = {}
        self._looked_s = float("-inf")

    def is_due(self, workers: Iterable[Worker]) -> bool:
        """Say whether it is time to look at these, which all compute on a GPU."""
        now = self._clock()
        running = [w for w in workers if w.status in RUNNING]
        if now - self._looked_s < POLL_S or not (running or self._has_cards):
            return False
        return now - self._looked_s >= CALM_S or any(_is_moving(worker, now) for worker in running)

    async def look(self, workers: Iterable[Worker]) -> None:
        """Look at all GPUs once, and note what each of these workers holds."""
        self._looked_s = self._clock()
        running = {w.model: w.run for w in workers if w.status in RUNNING}
        reading, processes = await asyncio.gather(self.read(), asyncio.gather(*(self._pids(model) for model in running)))
        now = self._clock()
        known = {m: pids for m, pids in zip(running, processes, strict=True) if pids is not None}
        self._held = {m: held for m, held in self._held.items() if running.get(m) == held.run}
        if reading is None:
            self._held.clear()
            self.others_bytes = self._others_before = {}
            return
        for model, pids in known.items():
            self._held[model] = Held(run=running[model], at_s=now, gpus_bytes=reading.of(pids), pids=pids)
        self._note_others(reading)

    def allowed(self, budget: Cards) -> Cards:
        """
        Return what other programs leave of a budget of cards.

        What the driver itself takes of a card is among the others, and is what a budget leaves free anyway.
        """
        sizes = {gpu.index: gpu.memory_bytes for gpu in self.device.gpus}
        free = {card: sizes.get(card, 0) - others for card, others in self.others_bytes.items()}
        return tuple(
            OnCard(
                card, size_bytes if free.get(card, size_bytes) >= size_bytes else max(0, free[card]) // STEP_BYTES * STEP_BYTES
            )
            for card, size_bytes in budget
        )

    @property
    def _has_cards(self) -> bool:
        return self.device.has_gpu and not self.device.unified

    async def read(self) -> GpuReading | None:
        """Ask the driver of the GPUs, now."""
        return await asyncio.to_thread(self._read)

    def held(self, model: ModelName, run: RunId) -> Held | None:
        """Return what this run of a worker held at the last look; `None` if it was not seen."""
        held = self._held.get(model)
        return held if held is not None and held.run == run else None

    def completed(self, usage: Usage, worker: Worker) -> Usage:
        """Add to what the cgroup of a worker that computes on a GPU counts what it holds there."""
        held = self.held(worker.model, worker.run)
        if held is not None:
            if self.device.unified:
                return replace(usage, unified_bytes=held.total_bytes)
            return replace(usage, gpu_bytes=held.total_bytes)
        if self.device.unified and self.device.gpu_memory_charged and usage.kernel_bytes:
            return replace(usage, unified_bytes=usage.kernel_bytes)  # page tables are in there too, which are private as well
        return replace(usage, gpu_unseen=True)

    def is_current(self, usage: Usage, worker: Worker) -> bool:
        """
        Say whether what is told of a worker is what it holds now.

        What was looked at while it loaded is old when it is told; what the kernel counts is not.
        """
        held = self.held(worker.model, worker.run)
        if held is None:
            return not usage.gpu_unseen
        return worker.ready_since_s is not None and held.at_s >= worker.ready_since_s

    async def _pids(self, model: ModelName) -> frozenset[Pid] | None:
        try:
            return await self._driver.pids(model)
        except EngineError:  # it may end while it is asked
            return None

    def _note_others(self, reading: GpuReading) -> None:
        ours: Counter[int] = Counter()
        for held in self._held.values():
            ours.update(held.gpus_bytes)
        others = {card: max(0, used_bytes - ours[card]) for card, used_bytes in reading.used_bytes.items()}
        self.others_bytes = {card: min(held, self._others_before.get(card, held)) for card, held in others.items()}
        self._others_before = others


def _is_moving(worker: Worker, now: float) -> bool:
    """Whether a worker takes memory or gives it back, as far as anyone can tell."""
    return worker.status is not Status.READY or worker.ready_since_s is None or now - worker.ready_since_s < SETTLE_S
