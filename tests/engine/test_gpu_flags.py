"""What a GPU's workers are told, told to the real servers without one: all flags are known, and a missing GPU is an error."""

import asyncio
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from controller import engines
from controller.charges import OnCard
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.probes.device import read_device
from controller.spec import WorkerSpec
from controller.store import workdirs
from controller.units import GIB
from tests.devices import recorded
from tests.engine.test_real_workers import PATIENCE_S, described
from tests.fakeworker import client
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def asked_of(place: Place, where: str, weights: str) -> WorkerSpec:
    """Describe the built-in model's worker on a recorded box, and leave out the GPU itself, which this engine does not have."""
    model, settings = described(place, weights)
    recording = recorded(where)
    site = Site(
        image=settings.engine(model.engine).image,
        run_root=PurePosixPath(place.root / "workers"),
        kv_root=PurePosixPath(place.root / "kv"),
        threads=2,
        device=read_device(recording.system, recording.engine),
    )
    cards = () if site.device.unified else (OnCard(0, GIB), OnCard(1, GIB))
    spec = engines.find(model.engine).worker(replace(model, cards=cards), site)
    assert spec.devices
    return replace(spec, devices=(), groups=(), memory_bytes=GIB)


@pytest.mark.parametrize(
    ("weights", "said"),
    [("gguf", "invalid device: CUDA0"), ("safetensors", "the torch of this image is built for processors alone")],
)
async def test_without_its_gpu_a_worker_does_not_begin(place: Place, driver: DockerDriver, weights: str, said: str) -> None:
    """An image without CUDA is told of a GPU: it ends by itself and says what is missing; the processors do not stand in."""
    spec = asked_of(place, "discrete-2", weights)
    workdirs.prepare(spec)
    await driver.create(spec)
    await driver.start(spec.model)

    async def ended() -> bool:
        return not any(container.running for container in await driver.list())

    await until("it ends", ended, deadline_s=PATIENCE_S)

    assert said in await driver.logs(spec.model, tail=50)


@pytest.mark.parametrize("where", ["discrete-2", "orin-nano-jp7.2"])
async def test_llama_cpp_takes_every_other_flag(place: Place, driver: DockerDriver, where: str) -> None:
    """With the name of the GPU replaced by none, the same command line loads past the page cache, and answers."""
    spec = asked_of(place, where, "gguf")
    named = spec.argv.index("--device") + 1
    spec = replace(spec, argv=(*spec.argv[:named], "none", *spec.argv[named + 1 :]))
    workdirs.prepare(spec)
    await driver.create(spec)
    await driver.start(spec.model)
    await until("it answers", lambda: client.is_ready(Path(spec.socket)), deadline_s=PATIENCE_S)

    status, body = await asyncio.to_thread(
        client.ask, Path(spec.socket), "POST", "/v1/completions", {"prompt": "The", "max_tokens": 4}, timeout_s=PATIENCE_S
    )

    assert (200, 4) == (status, body["usage"]["completion_tokens"])
