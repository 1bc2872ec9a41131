"""The wait for memory after the end of a worker: how long at most, what is enough, and what is said of the rest."""

import asyncio
from collections.abc import Mapping

import pytest

from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.drivers.memory import MemoryDriver
from controller.gpu_memory import GpuReading
from controller.gpu_watch import POLL_S, GpuWatch, Held
from controller.memory_back import CARD_POLL_S, GPU_LIMIT_S, GPU_STILL_S, LIMIT_S, MEMORY_POLL_S, MemoryBack
from controller.probes.memory import Supply
from controller.spec import ModelName
from controller.state import RunId
from controller.units import GIB, MIB
from tests.controller.rig import Machine

pytestmark = pytest.mark.looptime

A = ModelName("a")
ORIN = Device(family=Family.ORIN, gpus=(Gpu(index=0, name="Orin", sm="87"),), access=GpuAccess.RUNTIME)
CARD = Device(family=Family.DISCRETE, gpus=(Gpu(index=0, name="card", sm="89", memory_bytes=GIB),), access=GpuAccess.RUNTIME)
HELD = Held(run=RunId("run"), at_s=0.0, gpus_bytes={0: 512 * MIB}, pids=frozenset({7}))
BEFORE_BYTES = GIB


@pytest.fixture(autouse=True)
def _at_once(machine: Machine) -> None:
    """Have threads take no time, as they do beside that engine."""


class World:
    """Memory that comes back as time goes by."""

    def __init__(self, device: Device = NO_GPU, *, ram: Mapping[float, int], gpu_free_s: float | None = 0.0) -> None:
        """Have so much more memory from each moment on; *gpu_free_s* is when the driver lists nothing any more, if ever."""
        self.clock = asyncio.get_running_loop().time
        self.began_s = self.clock()
        self._ram = ram
        self._gpu_free_s = gpu_free_s
        self.looks = 0
        watch = GpuWatch(driver=MemoryDriver(), clock=self.clock, device=device, read=self.reading)
        self.back = MemoryBack(read=self.supply, gpus=watch, clock=self.clock)

    @property
    def passed_s(self) -> float:
        """How long it has been going."""
        return self.clock() - self.began_s

    def supply(self) -> Supply:
        """Return what is available now."""
        more_bytes = [size_bytes for at_s, size_bytes in sorted(self._ram.items()) if at_s <= self.passed_s + 1e-6]
        return Supply(available_bytes=BEFORE_BYTES + (more_bytes or [0])[-1], stalled_s=0.0)

    def reading(self) -> GpuReading:
        """Return what the driver lists now."""
        self.looks += 1
        is_free = self._gpu_free_s is not None and self.passed_s >= self._gpu_free_s - 1e-6
        return GpuReading(held_bytes={} if is_free else {7: {0: 512 * MIB}, 8: {0: MIB}})

    async def wait(self, private_bytes: int, *, on_gpu: bool = False) -> tuple[int, float]:
        """Wait, and return what came back and how long that took."""
        returned_bytes = await self.back.wait(
            A, before_bytes=BEFORE_BYTES, private_bytes=private_bytes, on_gpu=on_gpu, held=HELD if on_gpu else None
        )
        return returned_bytes, round(self.passed_s, 3)


@pytest.mark.parametrize(
    ("ram", "returned_bytes", "took_s"),
    [
        ({0.0: 100 * MIB}, 100 * MIB, 0.0),
        ({0.0: 89 * MIB, 0.005: 90 * MIB}, 90 * MIB, MEMORY_POLL_S),
        ({0.0: 30 * MIB, 0.02: 100 * MIB}, 30 * MIB, MEMORY_POLL_S),
        ({}, 0, LIMIT_S),
    ],
)
async def test_without_a_gpu_it_is_over_soon(ram: Mapping[float, int], returned_bytes: int, took_s: float) -> None:
    """Nine tenths are enough, or that no more of it comes; and a tenth of a second is the most."""
    world = World(ram=ram)

    assert (returned_bytes, took_s) == await world.wait(100 * MIB)
    assert (0, {}) == (world.looks, world.back.stuck)


@pytest.mark.parametrize(
    ("ram", "took_s", "looks", "stuck"),
    [
        ({0.0: 512 * MIB}, 0.0, 0, False),
        ({0.5: 512 * MIB}, 0.5, 0, False),
        ({0.0: 300 * MIB, 0.2: 512 * MIB}, 0.2, 0, False),
        ({0.0: 300 * MIB}, GPU_STILL_S, 0, False),
        ({}, GPU_LIMIT_S, 1, True),
    ],
)
async def test_a_jetson_s_gpu_gives_back_in_its_own_time(
    ram: Mapping[float, int], took_s: float, looks: int, stuck: bool
) -> None:
    """It may pause; its driver is asked only if most is missing, and then somebody is told."""
    world = World(ORIN, ram=ram)

    assert took_s == pytest.approx((await world.wait(512 * MIB, on_gpu=True))[1], abs=0.011)
    assert (looks, stuck) == (world.looks, A in world.back.stuck)


@pytest.mark.parametrize(
    ("device", "gpu_free_s", "took_s", "stuck"),
    [
        (CARD, 0.0, 0.0, ""),
        (CARD, 0.5, 3 * CARD_POLL_S, ""),
        (CARD, None, GPU_LIMIT_S, "still keeps 512 MiB for it"),
        (ORIN, GPU_LIMIT_S + 0.5, GPU_LIMIT_S + POLL_S, "did not come back"),
        (ORIN, None, 2 * GPU_LIMIT_S, "still keeps 512 MiB for it"),
    ],
)
async def test_the_driver_is_asked_until_it_lists_nothing(
    device: Device, gpu_free_s: float | None, took_s: float, stuck: str
) -> None:
    """On cards always, on a Jetson if its memory stays away, and seldom there; for a bounded time, and others do not count."""
    world = World(device, ram={0.0: 10 * MIB} if device is CARD else {}, gpu_free_s=gpu_free_s)

    assert took_s == pytest.approx((await world.wait(10 * MIB if device is CARD else 512 * MIB, on_gpu=True))[1], abs=0.011)
    assert (stuck in world.back.stuck[A]) if stuck else not world.back.stuck


async def test_what_came_back_the_next_time_is_forgotten() -> None:
    """The report is of now."""
    world = World(ORIN, ram={4.0: 512 * MIB}, gpu_free_s=None)
    await world.wait(512 * MIB, on_gpu=True)
    first = dict(world.back.stuck)
    await world.wait(512 * MIB, on_gpu=True)

    assert A in first
    assert not world.back.stuck
