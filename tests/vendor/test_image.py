"""
The image itself, made from its own Dockerfile on the plain base: with the package for these processors, and one of its payloads.

On a Jetson only the base, the wheels and the payload are others. It runs up to where it needs a GPU, and says so.
"""

import os
from dataclasses import replace
from pathlib import PurePosixPath

import docker
import pytest

from controller.drivers.docker import DockerDriver
from controller.engines.builds import recipe
from controller.ops import recipes
from controller.ops.images import Builder
from controller.ops.recipes import recipes_for
from controller.ops.targets import CPU, DEBIAN, ORIN
from controller.spec import JobSpec, Mount
from tests.fakeworker.place import Place
from tests.unit.test_edge_llm import SOURCE, WANT
from tests.vendor import place as vendor
from tests.vendor.test_sealed import ENGINE, NAME, driver, on_image
from tests.waiting import until

__all__ = ["driver"]

pytestmark = [pytest.mark.vendor, pytest.mark.engine, pytest.mark.timeout(1200)]

PAYLOAD = "x86-ubuntu2404-cu13-sm86"
TAG = "windlass/tensorrt-edge-llm-test:latest"


@pytest.fixture(scope="module")
def tag(engine: docker.APIClient) -> str:
    """Make the image; what has not changed comes from the engine's cache."""
    made = replace(recipes_for(ORIN)[ENGINE.name], variant="test", targets=(CPU,), base=DEBIAN, arguments=(("PAYLOAD", PAYLOAD),))
    builder = Builder(vendor.PROJECT, environ=os.environ, target=CPU)
    context = builder._stage(made)
    argv = recipes.build_argv(
        tags=(TAG,),
        context=str(context),
        arguments={"BASE": builder.ensure_base(), **dict(made.arguments)},
        environ=os.environ,
    )
    vendor.run(*argv)
    return TAG


async def test_it_runs_up_to_the_gpu(tag: str, place: Place, driver: DockerDriver) -> None:
    """Sealed as any worker: the engine file is found, and the package looks for the GPU of the Jetson it is told it is on."""
    await driver.create(on_image(place, tag))
    await driver.start(NAME)

    async def ended() -> list[int]:
        return [one.exit.code for one in await driver.list() if one.exit is not None]

    assert [1] == await until("the worker to end", ended, deadline_s=60)
    log = await driver.logs(NAME, tail=60)
    assert "Cannot load the CUDA driver API" in log, log


async def test_its_builder_starts(tag: str, place: Place, driver: DockerDriver) -> None:
    """The step of a build finds its program, and that program what it lacks here."""
    (step,) = recipe(SOURCE, WANT).steps
    out = place.root / "out"
    out.mkdir()
    out.chmod(0o777)
    spec = JobSpec(
        build="b",
        step=0,
        image=tag,
        argv=step.argv,
        mounts=(
            Mount(source=PurePosixPath(place.root), target=PurePosixPath("/source"), read_only=True),
            Mount(source=PurePosixPath(out), target=PurePosixPath("/out"), read_only=False),
        ),
        memory_bytes=2**30,
        env=step.env,
    )
    await driver.begin_job(spec)

    async def ended() -> list[int]:
        return [one.exit.code for one in await driver.jobs() if one.exit is not None]

    assert [1] == await until("the job to end", ended, deadline_s=60)
    log = await driver.job_logs("b", tail=60)
    await driver.end_job("b")
    assert "TensorRT Python bindings are required" in log, log


def test_one_payload_is_left(tag: str, engine: docker.APIClient) -> None:
    """And neither pip nor a compiler, in a container that is not root."""
    packages = "/opt/venv/lib/python3/site-packages"
    asked = f"id -u; ls {packages}/tensorrt_edgellm/_native/payloads; ls {packages} | grep -c ^pip; command -v gcc; true"
    sealed = engine.create_host_config(network_mode="none")
    made = engine.create_container(tag, entrypoint=["sh", "-c", asked], host_config=sealed)
    try:
        engine.start(made["Id"])
        engine.wait(made["Id"])
        said = engine.logs(made["Id"]).decode().split()
    finally:
        engine.remove_container(made["Id"], force=True)

    assert ["64001", PAYLOAD, "0"] == said
