"""How llama.cpp's own image starts: held until it is let go, heard when it answers, and its weights read ahead."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from bench.disk import drop_pages
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.engines.llama_cpp import LlamaCpp
from controller.readahead import LoadMode
from controller.spec import ApiPath, Footprint, FootprintSource, ModelSpec, Tier, WorkerSpec
from controller.starts import Starts
from controller.units import GIB
from tests.controller.rig import model
from tests.fakeworker.place import Place

pytestmark = pytest.mark.engine

SHIPPED = Path(__file__).parents[2] / "images" / "windlass-mini" / "gguf"
HEARD_S = 30.0


def described(place: Place) -> tuple[ModelSpec, WorkerSpec]:
    """Describe the built-in model and its worker on the real image."""
    weights = next(SHIPPED.glob("*.gguf"))
    spec = replace(
        model("mini"),
        folder=PurePosixPath(place.root / "models" / "mini"),
        weights=PurePosixPath(weights.name),
        weights_bytes=weights.stat().st_size,
        context_tokens=256,
        tier=Tier.MEDIUM,
        api_paths=frozenset({ApiPath.COMPLETIONS}),
        footprint=Footprint(
            total_bytes=GIB // 2, weights_bytes=GIB // 4, private_bytes=GIB // 4, source=FootprintSource.OVERRIDE
        ),
    )
    folder = Path(spec.folder)
    folder.mkdir(parents=True)
    (folder / weights.name).write_bytes(weights.read_bytes())
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    site = Site(
        image=os.environ["WINDLASS_IMAGE_LLAMA_CPP"],
        run_root=PurePosixPath(place.root / "run"),
        kv_root=PurePosixPath(place.root / "kv"),
        threads=1,
    )
    return spec, LlamaCpp().worker(spec, site)


def listens(worker: WorkerSpec) -> bool:
    """Say whether its server has made its socket."""
    return Path(worker.socket).exists()


async def test_a_cold_model_is_held_read_and_let_go(driver: DockerDriver, place: Place) -> None:
    """It reads while it waits, does not answer before it is let go, says so when it does, and every part has its time."""
    spec, worker = described(place)
    drop_pages(Path(spec.folder) / spec.weights)
    starts = Starts()
    try:
        plan = await starts.prepare(spec, worker, held=True, mapped_bytes=0)
        await driver.create(worker)
        await driver.start(spec.name)
        notices = await starts.notices(worker)
        for _ in range(100):
            if notices.reading is not None:
                break
            await asyncio.sleep(0.1)

        assert LoadMode.READ_AHEAD is plan.mode
        assert notices.reading is not None, "it reads while it is held"
        assert notices.reading.read_bytes >= 0.9 * spec.weights_bytes
        assert not listens(worker)
        assert not notices.ready.is_set()

        await starts.let_go(spec, worker)
        async with asyncio.timeout(HEARD_S):
            await notices.ready.wait()

        assert listens(worker)
        assert ["main", "listening", "header", "vocabulary", "tensors", "context", "ready"] == list(notices.marks)
        assert sorted(notices.marks.values()) == list(notices.marks.values())
    finally:
        starts.close()


async def test_a_warm_model_is_mapped_at_once(driver: DockerDriver, place: Place) -> None:
    """What was just written is in the page cache: nothing is read ahead, and nothing waits."""
    spec, worker = described(place)
    starts = Starts()
    try:
        plan = await starts.prepare(spec, worker, held=False, mapped_bytes=0)
        await driver.create(worker)
        await driver.start(spec.name)
        notices = await starts.notices(worker)
        async with asyncio.timeout(HEARD_S):
            await notices.ready.wait()

        assert LoadMode.MAPPED is plan.mode
        assert notices.reading is None
    finally:
        starts.close()
