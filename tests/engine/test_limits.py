"""Limits that the kernel enforces, and what the driver says about them afterwards."""

import pytest

from bench.disk import drop_pages
from controller.drivers.docker import DockerDriver
from controller.errors import EngineError, EngineUnavailableError
from controller.spec import ModelName
from controller.state import Exit, ExitCause
from controller.units import MIB
from tests.contract.proxy import Line
from tests.engine.conftest import MODEL
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = pytest.mark.engine

FORK = """
import os, signal
children = []
try:
    for _ in range(1000):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as exc:
    print(len(children), exc.strerror)
for child in children:
    os.kill(child, signal.SIGKILL)
"""
FILL = """
import sys
chunk = b"x" * (1 << 20)
with open(sys.argv[1], "wb") as out:
    try:
        for written in range(1000):
            out.write(chunk)
            out.flush()
    except OSError as exc:
        print(written, exc.strerror)
"""


READ = """
import sys
with open(sys.argv[1], "rb") as weights:
    while weights.read(1 << 20):
        pass
"""


TRIES = 3
"""Docker 20.10 was seen to lose the reason of one memory kill in forty; the controller then asks the kernel, a driver cannot."""


async def exit_of(driver: DockerDriver, model: ModelName) -> Exit:
    """Wait until the worker does not run, and return how it ended, as it is shown first."""

    async def look() -> Exit | None:
        return next(container.exit for container in await driver.list() if container.model == model)

    found = await until(f"{model} ends", look)
    assert isinstance(found, Exit)
    return found


async def test_memory_taken_at_start_is_limited(driver: DockerDriver, place: Place) -> None:
    """A worker that wants more than its limit is killed by the kernel, and that is what is said of it."""
    await driver.create(place.spec(MODEL, "--allocate", "200"))

    for _ in range(TRIES):
        await driver.start(MODEL)
        ended = await exit_of(driver, MODEL)
        if ended.cause is ExitCause.OUT_OF_MEMORY:
            break

    assert ended.cause is ExitCause.OUT_OF_MEMORY


async def test_scratch_counts_against_the_limit(driver: DockerDriver, place: Place) -> None:
    """Files in /tmp are memory of the container: they end at the size of /tmp, or the kernel ends whoever writes them."""
    await driver.create(place.spec(MODEL, memory_bytes=128 * MIB))
    await driver.start(MODEL)
    await place.ready(MODEL)

    _, output = place.run_inside(MODEL, "python3", "-I", "-c", FILL, "/tmp/full")

    written, why = output.split(" ", 1)
    assert (int(written) <= 64, why.strip()) == (True, "No space left on device")
    usage = await driver.usage(MODEL)
    assert usage.charged_bytes >= 60 * MIB


async def test_weights_that_do_not_stay_in_memory_are_counted(driver: DockerDriver, place: Place) -> None:
    """What is read for the first time is none of it; what was dropped at the limit and is read again is."""
    await driver.create(place.spec(MODEL, memory_bytes=64 * MIB))
    weights = place.root / "models" / MODEL / "weights"
    weights.write_bytes(b"w" * (96 * MIB))
    drop_pages(weights)  # they were charged to whoever wrote them
    await driver.start(MODEL)
    await place.ready(MODEL)
    await driver.list()
    before = await driver.usage(MODEL)
    for _ in range(2):
        place.run_inside(MODEL, "python3", "-I", "-c", READ, "/model/weights")

    after = await driver.usage(MODEL)

    assert after.refault_bytes - before.refault_bytes >= 32 * MIB
    assert after.charged_bytes >= 0.9 * after.limit_bytes
    assert after.anon_bytes < 32 * MIB


async def test_the_neighbour_lives_on(worker: Place, driver: DockerDriver) -> None:
    """When one worker runs out of memory, the one beside it answers as before."""
    greedy = ModelName("greedy")
    await driver.create(worker.spec(greedy, "--allocate", "200"))

    await driver.start(greedy)
    await exit_of(driver, greedy)

    assert (
        worker.ask(MODEL, "POST", "/v1/completions", {"prompt": "still here"})[1]["choices"][0]["text"] == f"[{MODEL}] still here"
    )


async def test_processes_are_limited(worker: Place) -> None:
    """A fork bomb ends at the limit with an error of its own, and the worker answers while it burns."""
    _, output = worker.run_inside(MODEL, "python3", "-I", "-c", FORK)

    forked, why = output.split(" ", 1)
    assert int(forked) < 32
    assert "unavailable" in why
    assert worker.ask(MODEL, "GET", "/health")[0] == 200


async def test_no_core_is_written(worker: Place) -> None:
    """A crash leaves no core file, which would hold conversations."""
    _, output = worker.run_inside(MODEL, "sh", "-c", "ulimit -H -c")

    assert output.strip() == "0"


async def test_a_worker_that_ignores_sigterm_dies_by_a_kill(driver: DockerDriver, place: Place) -> None:
    """Ending a worker does not depend on its good will."""
    await driver.create(place.spec(MODEL, "--ignore-sigterm"))
    await driver.start(MODEL)
    await place.ready(MODEL)
    place.engine.kill(place.container(MODEL), signal="SIGTERM")

    await driver.kill(MODEL)

    assert (await exit_of(driver, MODEL)).cause is ExitCause.KILLED


async def test_a_stop_by_hand_is_a_stop(driver: DockerDriver, place: Place) -> None:
    """`docker stop` sends SIGTERM, and the worker that follows it was stopped and did not crash."""
    await driver.create(place.spec(MODEL))
    await driver.start(MODEL)
    await place.ready(MODEL)

    place.engine.stop(place.container(MODEL), timeout=10)

    assert (await exit_of(driver, MODEL)).cause is ExitCause.STOPPED


async def test_a_start_that_fails_says_why(driver: DockerDriver, place: Place) -> None:
    """A directory that was taken away after the container was made is named when it is started."""
    spec = place.spec(MODEL)
    await driver.create(spec)
    (place.root / "models" / MODEL).rmdir()

    with pytest.raises(EngineError, match=str(place.root / "models" / MODEL)):
        await driver.start(MODEL)


async def test_a_limit_below_the_smallest_is_rounded_up(driver: DockerDriver, place: Place) -> None:
    """The engine takes nothing below 6 MiB; the label keeps what was asked, which is what the budget counts."""
    await driver.create(place.spec(MODEL, memory_bytes=MIB))

    (shown,) = await driver.list()
    assert shown.memory_bytes == MIB
    assert place.engine.inspect_container(place.container(MODEL))["HostConfig"]["Memory"] == 6 * MIB


async def test_an_engine_that_does_not_answer_is_unavailable(place: Place) -> None:
    """One that accepts connections and says nothing is told from one that refuses, and both are unavailable."""
    line = Line(place.root / "deaf.sock")
    await line.open(deaf=True)
    driver = DockerDriver(place.owner, url=line.url, read_limit_s=1.0)

    with pytest.raises(EngineUnavailableError, match="list the workers"):
        await driver.list()

    await driver.close()
    await line.cut()


async def test_many_stopped_workers_are_listed_quickly(driver: DockerDriver, place: Place) -> None:
    """Containers that do not run cost no call each, and one that is started and ends is seen with its new run and exit."""
    for number in range(12):
        await driver.create(place.spec(f"m{number:02}", "--exit-at-start", "--exit-code", "7"))
    model = ModelName("m03")
    runs = []
    for _ in range(2):
        await driver.start(model)
        await exit_of(driver, model)
        runs.append(next(container.run for container in await driver.list() if container.model == model))

    assert len(set(runs)) == 2
    assert (await exit_of(driver, model)) == Exit(cause=ExitCause.CRASHED, code=7)
