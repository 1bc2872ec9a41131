"""
A sealed worker and a build that get a GPU by NVIDIA's runtime, on an engine of their own.

The runtime is a stand-in, and so is the device: they show that the runtime is asked rightly and that the seal holds beside it.
What the real one adds has not been run here.
"""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import PurePosixPath
from typing import Any

import docker
import pytest

from controller.drivers.docker import DockerDriver
from controller.errors import EngineError
from controller.spec import GROUP_GID, WORKER_UID, JobSpec, ModelName, Mount
from controller.units import MIB
from tests.engine.nvidia_runtime import GROUP, NODE
from tests.engine.private_engine import PrivateEngine, missing, private_engine
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing")]

MODEL = ModelName("gpu")
OPEN = f"""
import errno, os
try:
    os.close(os.open({NODE!r}, os.O_RDWR))
    print("opened")
except OSError as exc:
    print(errno.errorcode[exc.errno])
"""


@pytest.fixture(scope="module")
def private(fake_image: str) -> Iterator[PrivateEngine]:
    """Start an engine whose default runtime is NVIDIA's, as on a Jetson that was set up by the book."""
    with private_engine(fake_image, "--default-runtime=nvidia") as engine:
        yield engine


@pytest.fixture
def corner(private: PrivateEngine, fake_image: str, owner: str) -> Iterator[Place]:
    """Give the test a corner of that engine."""
    client = docker.APIClient(base_url=private.url, version="auto", timeout=60)
    place = Place(client, owner=owner, image=fake_image)
    yield place
    place.clear()
    client.close()


@pytest.fixture
async def driver(private: PrivateEngine, owner: str) -> AsyncIterator[DockerDriver]:
    """Give the test a driver on that engine."""
    here = DockerDriver(owner, url=private.url)
    yield here
    await here.close()


def last_asked(private: PrivateEngine) -> dict[str, str]:
    """Return what the runtime was asked last."""
    asked: dict[str, str] = json.loads(private.asked.read_text().splitlines()[-1])
    return asked


async def started(driver: DockerDriver, corner: Place, **changes: Any) -> None:  # noqa: ANN401 -- any field
    """Make and start a worker."""
    await driver.create(corner.spec(MODEL, **changes))
    await driver.start(MODEL)
    await corner.ready(MODEL)


async def test_the_engine_tells_its_runtimes(driver: DockerDriver) -> None:
    """That is how a box is known to have one of NVIDIA's; it has no folder for CDI, being too old for it, or one."""
    info = await driver.info()

    assert {"nvidia", "runc"} <= set(info.runtimes)


async def test_a_worker_gets_the_gpu_it_asks_for(private: PrivateEngine, driver: DockerDriver, corner: Place) -> None:
    """The runtime hears which, the worker's own user may open the node through its group, and variables say what it is for."""
    await started(driver, corner, devices=("nvidia=0,1",), groups=(GROUP,))

    code, said = corner.run_inside(MODEL, "python3", "-I", "-c", OPEN)
    _, variables = corner.run_inside(MODEL, "env")

    assert (0, "opened") == (code, said.strip())
    assert {"host": "worker", "visible": "0,1"} == last_asked(private)
    assert {"NVIDIA_VISIBLE_DEVICES=0,1", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(variables.splitlines())


async def test_without_the_group_the_node_stays_closed(driver: DockerDriver, corner: Place) -> None:
    """No capability and no other right opens it."""
    await started(driver, corner, devices=("nvidia=all",))

    assert "EACCES" == corner.run_inside(MODEL, "python3", "-I", "-c", OPEN)[1].strip()


async def test_the_seal_holds_beside_a_gpu(driver: DockerDriver, corner: Place) -> None:
    """No network, no capability, no way to one, a root that cannot be written, and no other group than was given."""
    await started(driver, corner, devices=("nvidia=all",), groups=(GROUP,), shm_bytes=96 * MIB, memory_bytes=160 * MIB)

    status = dict(
        line.split(":\t", 1) for line in corner.run_inside(MODEL, "cat", "/proc/1/status")[1].splitlines() if ":\t" in line
    )
    mounts = {line.split()[1]: line.split()[3] for line in corner.run_inside(MODEL, "cat", "/proc/mounts")[1].splitlines()}
    interfaces = corner.run_inside(MODEL, "cat", "/proc/net/route")[1].splitlines()[1:]

    assert {"0" * 16} == {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert ("1", "2") == (status["NoNewPrivs"].strip(), status["Seccomp"].strip())
    assert str(WORKER_UID) == status["Uid"].split()[0]
    assert {str(GROUP_GID), str(GROUP)} >= set(status["Groups"].split()) >= {str(GROUP)}
    assert "ro" in mounts["/"].split(",")
    assert f"size={96 * 1024}k" in mounts["/dev/shm"]
    assert not interfaces


async def test_who_asks_for_no_gpu_gets_none_from_the_default_runtime(
    private: PrivateEngine, driver: DockerDriver, corner: Place
) -> None:
    """The runtime is told to keep away, whatever the image's own variables say."""
    await started(driver, corner, groups=(GROUP,))

    assert {"host": "worker", "visible": "void"} == last_asked(private)
    assert "ENOENT" == corner.run_inside(MODEL, "python3", "-I", "-c", OPEN)[1].strip()


async def test_a_build_gets_it_as_a_worker_does(private: PrivateEngine, driver: DockerDriver, corner: Place) -> None:
    """By the same runtime, and its group opens the node."""
    out = corner.root / "out"
    out.mkdir(mode=0o777)
    job = JobSpec(
        build="one",
        step=0,
        image=corner.image,
        argv=("python3", "-I", "-c", OPEN),
        mounts=(Mount(source=PurePosixPath(out), target=PurePosixPath("/out"), read_only=False),),
        memory_bytes=64 * MIB,
        devices=("nvidia=all",),
        groups=(GROUP,),
    )
    await driver.begin_job(job)

    async def is_over() -> bool:
        return any(found.exit is not None for found in await driver.jobs())

    await until("the build ends", is_over)

    assert "opened\n" == await driver.job_logs("one", tail=1)
    assert {"host": "build", "visible": "all"} == last_asked(private)
    await driver.end_job("one")


@pytest.mark.skipif(shutil.which("nvidia-container-runtime-hook") is not None, reason="this machine has NVIDIA's toolkit")
async def test_an_engine_that_cannot_give_it_says_what_to_do(driver: DockerDriver, corner: Place) -> None:
    """The engine's own request needs NVIDIA's hook, which the engine misses when a container starts, and no sooner."""
    await driver.create(corner.spec(MODEL, devices=("gpus=all",)))

    with pytest.raises(EngineError, match=r"could not select device driver.*toolkit is not installed"):
        await driver.start(MODEL)
