"""A step of a build: the container it gets, and what it said of the cause when it failed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import cast

import pytest

from controller.charges import Cards, OnCard
from controller.config import BuildSettings
from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.drivers.memory import MemoryDriver
from controller.engines.builds import BuildRecipe, BuildStep
from controller.forge.tickets import Ticket
from controller.forge.work import StepError, Workshop, told_reason
from controller.spec import JobSpec, Mount
from controller.store.engine_files import EngineFiles
from controller.store.fingerprint import BuildKey
from controller.store.orders import Order
from controller.units import GIB
from tests.controller.rig import model


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"event": "build.failed", "reason": "tokenizer.json is missing"}', "tokenizer.json is missing"),
        ('{"event": "build.done"}', ""),
        ('{"reason": 3}', ""),
        ('["reason"]', ""),
        ('{"event": "build.failed", "reason": "cut o', ""),
        ("main: failed to quantize model", ""),
    ],
)
def test_the_reason_is_taken_from_the_builder_s_last_line(line: str, reason: str) -> None:
    """As it was told, without the JSON around it; another tool's last line has none."""
    assert reason == told_reason(line)


def _job(step: BuildStep, device: Device, cards: Cards = ()) -> JobSpec:
    """Describe a step's container on a box."""
    recipe = BuildRecipe(
        engine="llama-cpp", quantization=None, steps=(step,), output=PurePosixPath("x"), estimate_bytes=1, scratch_bytes=0
    )
    spec = model("m")
    key = BuildKey.of(recipe, source="s", images={"llama-cpp": "tag"}, device="cpu")
    order = Order(model=spec.name, source=PurePosixPath("/models/m"), key=key, recipe=recipe, reason="", spec=spec)
    with ThreadPoolExecutor(1) as slow:
        shop = Workshop(
            driver=MemoryDriver(),
            files=cast(EngineFiles, None),
            settings=BuildSettings(),
            images=lambda engine: f"windlass/{engine}",
            slow=slow,
            clock=lambda: 0.0,
            device=device,
        )
    return shop.job(Ticket(order=order, cards=cards), 0, step, PurePosixPath("/engines/out"))


ORIN = Device(
    family=Family.ORIN, gpus=(Gpu(index=0, name="Orin", sm="87"),), access=GpuAccess.RUNTIME, gpu_groups=(44, 104), l4t="39.2.0"
)
STEP = BuildStep(title="build the engine", image="llama-cpp", argv=("build",), memory_bytes=GIB)


def test_a_step_that_needs_the_gpu_gets_all_of_it() -> None:
    """With the groups that may open it; one that does not need it gets nothing, though it is there."""
    gpu, plain = _job(replace(STEP, gpu=True), ORIN), _job(STEP, ORIN)

    assert (gpu.devices, gpu.groups) == (("nvidia=all",), (44, 104))
    assert (plain.devices, plain.groups) == ((), ())


def test_a_step_gets_the_card_that_was_set_aside_for_its_build() -> None:
    """No other one: models lie there. Its label says it, for a controller that finds it running."""
    cards = (Gpu(index=0, name="A", sm="89", memory_bytes=8 * GIB), Gpu(index=1, name="B", sm="89", memory_bytes=8 * GIB))
    box = Device(family=Family.DISCRETE, gpus=cards, access=GpuAccess.CDI)
    job = _job(replace(STEP, gpu=True), box, cards=(OnCard(1, 7 * GIB),))

    assert (job.devices, job.cards) == (("nvidia.com/gpu=1",), (OnCard(1, 7 * GIB),))


def test_a_step_sees_files_of_the_host_where_they_are() -> None:
    """Read-only, at the same path, beside its source and what it makes."""
    release = PurePosixPath("/etc/nv_tegra_release")

    mounts = _job(replace(STEP, host_files=(release,)), ORIN).mounts

    assert [mount for mount in mounts if mount.source == release] == [Mount(source=release, target=release, read_only=True)]
    assert len(mounts) == 3


def test_a_step_that_needs_a_gpu_is_not_begun_without_one() -> None:
    """It would only fail, or build for the wrong device."""
    with pytest.raises(StepError, match="needs a GPU, and this box has none"):
        _job(replace(STEP, gpu=True), NO_GPU)
