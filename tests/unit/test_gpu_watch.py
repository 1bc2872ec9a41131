"""When the GPUs are looked at, what is kept of a look, and what it says of a worker and of a card."""

from dataclasses import replace

import pytest

from controller.charges import OnCard
from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.drivers.base import Usage
from controller.drivers.memory import MemoryDriver, MemoryEngine
from controller.gpu_memory import GpuReading
from controller.gpu_watch import CALM_S, POLL_S, SETTLE_S, STEP_BYTES, GpuWatch
from controller.spec import ModelName
from controller.state import NEVER_RAN, RunId, Status, Worker
from controller.units import GIB, MIB
from tests.contract.rigs import MemoryRig

A, B = ModelName("a"), ModelName("b")
CARDS = Device(
    family=Family.DISCRETE,
    gpus=tuple(Gpu(index=index, name="card", sm="89", memory_bytes=24 * GIB) for index in (0, 1)),
    access=GpuAccess.RUNTIME,
)
ORIN = Device(family=Family.ORIN, gpus=(Gpu(index=0, name="Orin", sm="87"),), access=GpuAccess.RUNTIME)
USAGE = Usage(limit_bytes=9 * GIB, anon_bytes=100, file_bytes=10, refault_bytes=0, kernel_bytes=7)


class Watched:
    """A watch on an engine in memory, with a clock that the test sets."""

    def __init__(self, device: Device = CARDS) -> None:
        self.now = 100.0
        self.blind = False
        self.rig = MemoryRig("watch")
        self.engine: MemoryEngine = self.rig.engine
        self.engine.cards = {gpu.index: gpu.memory_bytes for gpu in device.gpus if gpu.memory_bytes}
        self.driver: MemoryDriver = self.rig.driver
        self.watch = GpuWatch(driver=self.driver, clock=lambda: self.now, device=device, read=self.read)

    def read(self) -> GpuReading | None:
        """Read the engine's GPUs."""
        return None if self.blind else self.engine.read_gpu_memory()

    async def begin(self, model: ModelName, **held: int) -> Worker:
        """Start a worker that holds so much of each GPU."""
        await self.driver.create(self.rig.spec(model))
        await self.driver.start(model)
        self.driver.allocate_on_gpu(model, {int(name[3:]): size_bytes for name, size_bytes in held.items()})
        (shown,) = [container for container in await self.driver.list() if container.model == model]
        return worker(model, run=shown.run)


def worker(model: ModelName = A, *, run: RunId = NEVER_RAN, status: Status = Status.READY, ready_s: float | None = 0.0) -> Worker:
    """Describe a worker."""
    return Worker(model=model, status=status, memory_bytes=GIB, spec_hash="", run=run, ready_since_s=ready_s)


@pytest.mark.parametrize(
    ("seen", "after_s", "due"),
    [
        (worker(status=Status.STARTING, ready_s=None), POLL_S, True),
        (worker(status=Status.STARTING, ready_s=None), POLL_S - 0.1, False),
        (worker(status=Status.STOPPING, ready_s=None), POLL_S, True),
        (worker(status=Status.STOPPED, ready_s=None), CALM_S, False),
        (worker(ready_s=100.0), POLL_S, True),
        (worker(ready_s=100.0 - SETTLE_S), POLL_S, False),
        (worker(ready_s=0.0), CALM_S - 0.1, False),
        (worker(ready_s=0.0), CALM_S, True),
    ],
)
async def test_it_looks_often_while_memory_moves_and_seldom_otherwise(seen: Worker, after_s: float, due: bool) -> None:
    """While workers load and leave and for a while after; never twice in a second."""
    watched = Watched(ORIN)
    await watched.watch.look([seen])
    watched.now += after_s

    assert due is watched.watch.is_due([seen])


@pytest.mark.parametrize(("device", "due"), [(CARDS, True), (ORIN, False), (NO_GPU, False)])
async def test_cards_are_looked_at_although_nobody_is_there(device: Device, due: bool) -> None:
    """Others may be: what they hold is to be known before the first load."""
    watched = Watched(device)

    assert due is watched.watch.is_due([])
    await watched.watch.look([])
    watched.now += CALM_S
    assert due is watched.watch.is_due([])


async def test_what_a_worker_holds_on_cards_is_beside_the_box_s_memory() -> None:
    """All of its cards together; what it holds privately of the box stays what it was."""
    watched = Watched()
    seen = await watched.begin(A, gpu0=3 * GIB, gpu1=GIB)
    await watched.watch.look([seen])

    found = watched.watch.completed(USAGE, seen)

    assert (4 * GIB, 0, 100, False) == (found.gpu_bytes, found.unified_bytes, found.private_bytes, found.gpu_unseen)


async def test_what_a_worker_holds_for_a_jetson_s_gpu_is_the_box_s_memory() -> None:
    """It is private; that the kernel may have charged it as well is not counted a second time."""
    watched = Watched(replace(ORIN, gpu_memory_charged=True))
    seen = await watched.begin(A, gpu0=3 * GIB)
    await watched.watch.look([seen])

    found = watched.watch.completed(USAGE, seen)

    assert (0, 3 * GIB, 3 * GIB + 100, 117) == (found.gpu_bytes, found.unified_bytes, found.private_bytes, found.charged_bytes)


@pytest.mark.parametrize(
    ("charged", "kernel_bytes", "private_bytes", "unseen"),
    [(True, 7, 107, False), (True, 0, 100, True), (False, 7, 100, True), (None, 7, 100, True)],
)
async def test_where_the_driver_tells_nothing_the_kernel_may(
    charged: bool | None,
    kernel_bytes: int,
    private_bytes: int,
    unseen: bool,
) -> None:
    """If it charges the container with the GPU's memory, that is in what it holds for it; else nobody knows."""
    watched = Watched(replace(ORIN, gpu_memory_charged=charged))
    watched.blind = True
    seen = await watched.begin(A, gpu0=GIB)
    await watched.watch.look([seen])

    found = watched.watch.completed(replace(USAGE, kernel_bytes=kernel_bytes), seen)

    assert (private_bytes, unseen) == (found.private_bytes, found.gpu_unseen)


async def test_another_run_is_not_what_was_seen() -> None:
    """What its predecessor held says nothing of a worker."""
    watched = Watched()
    seen = await watched.begin(A, gpu0=GIB)
    await watched.watch.look([seen])

    assert watched.watch.completed(USAGE, replace(seen, run=RunId("another"))).gpu_unseen


async def test_a_figure_from_before_it_was_ready_is_old() -> None:
    """A worker that loads takes a gigabyte between two looks."""
    watched = Watched(ORIN)
    seen = await watched.begin(A, gpu0=GIB)
    await watched.watch.look([seen])
    found = watched.watch.completed(USAGE, seen)
    current = [watched.watch.is_current(found, replace(seen, ready_since_s=ready_s)) for ready_s in (99.0, 100.0, 101.0, None)]

    assert [True, True, False, False] == current


async def test_the_kernel_s_own_figure_is_never_old_and_none_is_none() -> None:
    """Where nothing was seen, only what the kernel counts is current."""
    watched = Watched(ORIN)

    assert [True, False] == [watched.watch.is_current(replace(USAGE, gpu_unseen=unseen), worker()) for unseen in (False, True)]


async def test_what_others_hold_is_the_less_of_two_looks() -> None:
    """A worker that begins in the moment of a look is somebody else's in that one, and ours in the next."""
    watched = Watched()
    seen = await watched.begin(A, gpu0=2 * GIB)
    watched.engine.others_on_cards = {0: GIB, 1: 3 * GIB}
    told = []
    for workers in ([seen], [], [seen], [seen]):
        await watched.watch.look(workers)
        told.append(dict(watched.watch.others_bytes))

    assert [{0: GIB, 1: 3 * GIB}] * 4 == told


@pytest.mark.parametrize(
    ("others_bytes", "left_bytes"),
    [
        (0, 20 * GIB),
        (4 * GIB, 20 * GIB),
        (4 * GIB + 1, 20 * GIB - STEP_BYTES),
        (10 * GIB, 14 * GIB),
        (23 * GIB + 1, GIB - STEP_BYTES),
        (25 * GIB, 0),
    ],
)
async def test_models_may_take_what_others_leave(others_bytes: int, left_bytes: int) -> None:
    """Of each card alone, in whole steps, and never more than is configured; what is unknown is as configured."""
    watched = Watched()
    budget = (OnCard(0, 20 * GIB), OnCard(1, 8 * GIB))
    before = watched.watch.allowed(budget)
    watched.engine.others_on_cards = {0: others_bytes}
    await watched.watch.look([])

    assert budget == before
    assert (OnCard(0, left_bytes), OnCard(1, 8 * GIB)) == watched.watch.allowed(budget)


async def test_a_driver_that_falls_silent_leaves_nothing_behind() -> None:
    """What was seen before is not what is now."""
    watched = Watched()
    seen = await watched.begin(A, gpu0=GIB)
    watched.engine.others_on_cards = {0: 20 * GIB}
    await watched.watch.look([seen])
    watched.blind = True
    await watched.watch.look([seen])

    assert watched.watch.held(A, seen.run) is None
    assert (OnCard(0, 20 * GIB),) == watched.watch.allowed((OnCard(0, 20 * GIB),))


async def test_one_that_ends_while_it_is_asked_costs_the_others_nothing() -> None:
    """It is left out, and they are seen."""
    watched = Watched()
    first, second = await watched.begin(A, gpu0=GIB), await watched.begin(B, gpu0=512 * MIB)
    await watched.driver.kill(A)
    await watched.watch.look([first, second])
    held = watched.watch.held(B, second.run)

    assert watched.watch.held(A, first.run) is None
    assert held is not None
    assert 512 * MIB == held.total_bytes
