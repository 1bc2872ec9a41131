"""A sealed worker of TensorRT Edge-LLM as a Jetson runs it, but for the native code: entry programs, server, gateway."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import docker
import pytest

from controller import engines
from controller.device import NO_GPU
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.engines.tensorrt_edge_llm import RELEASE_FILE
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec, Mount, WorkerSpec
from controller.units import GIB
from tests.checkpoints import CONFIG, write_checkpoint_folder
from tests.fakeworker.place import Place
from tests.forwarder import image
from tests.gateway.conftest import World, direct
from tests.gateway.fakes import CHAT, card
from tests.unit.test_edge_llm import ORIN
from tests.unit.test_engines import model
from tests.vendor import place as vendor
from tests.vendor.test_edge_llm import write_engine_file
from tests.waiting import until

pytestmark = [pytest.mark.vendor, pytest.mark.engine, pytest.mark.timeout(900)]

ENGINE = engines.find("tensorrt-edge-llm")
NAME = ModelName("mini")


@pytest.fixture
async def driver(owner: str) -> AsyncIterator[DockerDriver]:
    """Give the test a driver of its own."""
    here = DockerDriver(owner)
    yield here
    await here.close()


def on_image(place: Place, tag: str, *, context_tokens: int = 512) -> WorkerSpec:
    """Describe the worker as the engine does, of a checkpoint and an engine file for 512 tokens; without the GPU's devices."""
    place.spec(NAME)  # makes the run and the KV directory
    source = write_checkpoint_folder(place.root, "source", config={**CONFIG, "model_type": "qwen2"})
    engine_file = write_engine_file(place.root / "engine")
    release = place.root / "nv_tegra_release"
    release.write_text("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today\n")
    for path in (source, engine_file, release, *source.iterdir(), *engine_file.iterdir()):
        path.chmod(0o755)
    spec: ModelSpec = model(
        name=NAME,
        engine=ENGINE.name,
        folder=PurePosixPath(engine_file),
        source=PurePosixPath(source),
        context_tokens=context_tokens,
        parallel=1,
        api_paths=frozenset({ApiPath.CHAT}),
        footprint=Footprint(total_bytes=GIB, weights_bytes=0, private_bytes=GIB, source=FootprintSource.OVERRIDE),
    )
    run_root, kv_root = (PurePosixPath(place.root / name) for name in ("workers", "kv"))
    worker = ENGINE.worker(spec, Site(image=tag, run_root=run_root, kv_root=kv_root, threads=1, device=ORIN))
    mounts = (replace(one, source=PurePosixPath(release)) if one.target == RELEASE_FILE else one for one in worker.mounts)
    return replace(worker, mounts=tuple(mounts), devices=NO_GPU.requests(), groups=())


def described(place: Place, tag: str, *, context_tokens: int = 512) -> WorkerSpec:
    """Describe the same on an image with our entry programs alone, and the package mounted into it."""
    worker = on_image(place, tag, context_tokens=context_tokens)
    (packages,) = (vendor.python().parents[1] / "lib").glob("python3*/site-packages")
    beside = {
        packages: "/vendor/packages",
        vendor.OURS: "/vendor/ours",
        vendor.DRIVER.parent: "/vendor/driver",
    }
    mounts = [Mount(source=PurePosixPath(there), target=PurePosixPath(here), read_only=True) for there, here in beside.items()]
    return replace(
        worker,
        argv=("/vendor/driver/driver.py", "worker", json.dumps(worker.argv)),
        env={**worker.env, "PYTHONPATH": "/vendor/packages:/vendor/ours"},
        mounts=(*worker.mounts, *mounts),
    )


@pytest.fixture
async def near(tmp_path: Path) -> AsyncIterator[World]:
    """Make a gateway without a server in between."""
    async with direct(tmp_path) as made:
        yield made


async def test_a_worker_answers_through_everything(
    engine: docker.APIClient, place: Place, driver: DockerDriver, near: World
) -> None:
    """It finds what was built, on mounts that it cannot write to, becomes ready, answers our gateway, and ends in order."""
    worker = described(place, image.ensure(engine))
    await driver.create(worker)
    await driver.start(NAME)
    await place.ready(NAME)
    near.controller.models["mini"] = card("mini", engine=ENGINE.name, api_paths=(CHAT,))
    near.controller.sockets["mini"] = Path(worker.socket)
    near.controller.announce()
    await until("the catalog", lambda: near.session.known().models["mini"].engine == ENGINE.name)
    whole = await near.chat(user="me", n=1)
    streamed = await near.chat(stream=True)
    code, laid_out = place.run_inside(NAME, "sh", "-c", f"find {worker_cache(worker)} -type l")
    engine.kill(place.container(NAME), "SIGTERM")

    async def ended() -> list[int]:
        return [one.exit.code for one in await driver.list() if one.exit is not None]

    assert (200, "said hi") == (whole.status_code, whole.json()["choices"][0]["message"]["content"]), whole.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert (0, 3) == (code, len(laid_out.split()))
    assert [128 + 15] == await until("the worker to end", ended), "its server ends itself by the signal, once all is done"
    assert "released" in (place.root / "workers" / NAME / "log").read_text().split()


async def test_a_worker_without_its_engine_ends_with_a_sentence(
    engine: docker.APIClient, place: Place, driver: DockerDriver
) -> None:
    """What was built for 512 tokens does not serve 1024: nothing is built in the model's memory, and the log says why."""
    await driver.create(described(place, image.ensure(engine), context_tokens=1024))
    await driver.start(NAME)

    async def ended() -> list[int]:
        return [one.exit.code for one in await driver.list() if one.exit is not None]

    assert [1] == await until("the worker to end", ended)
    assert "wanted an engine for /source with 1 x 1024 tokens" in await driver.logs(NAME, tail=20)


def worker_cache(worker: WorkerSpec) -> str:
    """Return where the server was told to look."""
    argv: list[str] = json.loads(worker.argv[-1])
    return argv[argv.index("--cache-dir") + 1]
