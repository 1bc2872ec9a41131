"""A whole controller with models whose engine is left to it: what becomes of them when the first choice fails."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controller.app import SOCKET_NAME, serve
from controller.drivers.memory import MemoryDriver
from controller.errors import EngineError, Reason
from controller.spec import JobSpec, ModelName
from controller.state import ExitCause
from controller.units import GIB, MIB
from controller.wire import Failed
from tests.checkpoints import gguf, write_checkpoint_folder
from tests.controller.rig import OWNER
from tests.controller.test_app import settings
from tests.controller.test_builds import (
    OLD,
    WITHIN_S,
    Smithy,
    becomes,
    controller,
    fail,
    half_made,
    hang,
    row,
    smithy,
    starve,
    state,
    well,
)
from tests.controller.wire_client import Client, connected
from tests.devices import recorded
from tests.waiting import until

__all__ = ["smithy"]

AUTO = 'engine = "auto"\n'
THOR = "agx-thor-jp7.2"
BUDGET = {"memory": {"budget": 1024 * MIB}}
NEW_IMAGE = {"engines": {"llama-cpp": {"image": "windlass/llama-cpp:new"}}}


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """Return what is logged."""
    with capture_logs() as logs:
        yield logs


@contextlib.asynccontextmanager
async def on_thor(folder: Path, jetson: Smithy, **changes: object) -> AsyncIterator[Client]:
    """Run a controller on a recorded board, with memory for one try of a TensorRT engine's build and not for a larger one."""
    (folder / "r").mkdir(exist_ok=True)
    (folder / "r" / SOCKET_NAME).unlink(missing_ok=True)
    wanted = settings(folder, **{"memory": {"budget": 5 * GIB // 2}, "builds": {"keep_free": 0}, **changes})
    serving = asyncio.create_task(serve(wanted, MemoryDriver(OWNER, engine=jetson), recorded(THOR).system))
    try:
        await until("it listens", lambda: serving.done() or (folder / "r" / SOCKET_NAME).exists())
        if serving.done():
            await serving
        async with connected(folder / "r" / SOCKET_NAME) as client:
            await until("the greeting", client.catalogs)
            yield client
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def runs_by(client: Client, name: str, engine: str) -> dict[str, Any]:
    """Wait until a model is one of this engine's, and return its row."""
    found: dict[str, Any] = {}

    async def is_so() -> bool:
        found.clear()
        found.update(await row(client, name))
        return found["engine"] == engine

    await until(f"{name} runs by {engine}", is_so, deadline_s=WITHIN_S)
    return found


async def answers(client: Client, name: str, *, lease: str) -> None:
    """Have a model answer once, and wait until that is noted."""
    await client.granted(name, lease=lease)
    client.release(lease, outcome="ok", completion_tokens=3)

    async def is_noted() -> bool:
        return bool((await row(client, name))["requests"])

    await until("the answer is noted", is_noted)


def events(heard: list[Any], event: str) -> list[dict[str, Any]]:
    """Return what was logged of one kind."""
    return [entry for entry in heard if entry["event"] == event]


def drop(folder: Path, name: str, *, with_gguf: bool = False) -> None:
    """Drop a checkpoint; with a GGUF of the same model beside it two engines serve the folder as it is."""
    hidden = write_checkpoint_folder(folder / "models", f".{name}")
    (hidden / "tokenizer.json").write_text("{}")
    (hidden / "chat_template.jinja").write_text("{{ messages }}")
    if with_gguf:
        (hidden / "model.gguf").write_bytes(gguf())
    (hidden / "model.toml").write_text(AUTO)
    for path in (*hidden.iterdir(), hidden):
        os.utime(path, OLD)
    hidden.rename(folder / "models" / name)


async def test_what_cannot_be_built_goes_to_the_next_engine(folder: Path, smithy: Smithy, heard: list[Any]) -> None:
    """It is said aloud, holds over a restart, and ends with another image; callers are refused for that long at most."""
    smithy.deeds += [hang, starve, starve, starve, starve]
    drop(folder, "m")
    async with controller(folder, smithy, **BUDGET) as client:
        await becomes(client, "m", "building")
        client.ask("m", lease="1")
        refused = await client.refused("1")
        smithy.job_ended(OWNER, smithy.begun[0][0], code=137, cause=ExitCause.OUT_OF_MEMORY)
        fallen = await runs_by(client, "m", "transformers")
        await client.granted("m", lease="2")
        tries, health = len(smithy.begun), await client.call("health")

        assert (Reason.UNAVAILABLE, True) == (refused.reason, (refused.retry_after_s or 0) > 0)
        assert "it needs more memory than its limit" in fallen["engine_choice"]["reason"]
        assert fallen["engine_choice"]["fell_back"]
        assert "unknown" == await state(client, "m")
        assert "ok" == health["state"]
        assert [] == half_made(folder)
    (passed_on,) = events(heard, "engine.failed")
    (changed,) = events(heard, "engine.changed")
    assert ("llama-cpp", "transformers", "build") == (passed_on["engine"], passed_on["successor"], passed_on["at"])
    assert ("llama-cpp", "transformers") == (changed["before"], changed["engine"])

    async with controller(folder, smithy, **BUDGET) as client:
        again = await row(client, "m")

        assert ("transformers", tries) == (again["engine"], len(smithy.begun))
    assert 1 == len(events(heard, "engine.failed"))

    smithy.deeds.clear()
    async with controller(folder, smithy, **BUDGET, **NEW_IMAGE) as client:
        await becomes(client, "m", "built")
        await runs_by(client, "m", "llama-cpp")
        await client.granted("m", lease="3")


async def test_a_build_that_would_need_more_than_there_is_is_given_up_at_once(folder: Path, smithy: Smithy) -> None:
    """Waiting for memory that the box does not have would have no end."""
    smithy.deeds += [starve]
    drop(folder, "m")
    limits = {"builds": {"keep_free": 0}, "memory": {"budget": 600 * MIB}}
    async with controller(folder, smithy, **limits) as client:
        await runs_by(client, "m", "transformers")

    assert 1 == len(smithy.begun)


async def test_what_failed_is_tried_again_by_hand(folder: Path, smithy: Smithy) -> None:
    """`windlass build` forgets the failures, and the next file that is built is served."""
    smithy.deeds += [fail] * 3
    drop(folder, "m")
    async with controller(folder, smithy, **BUDGET) as client:
        await runs_by(client, "m", "transformers")
        told = await client.call("build", model="m")
        await becomes(client, "m", "built")
        after = await runs_by(client, "m", "llama-cpp")
        await client.granted("m", lease="1")

        assert ("llama-cpp", "m") == (told["engine"], told["model"])
        assert not after["engine_choice"]["fell_back"]


async def test_what_has_answered_goes_on_while_the_first_choice_is_tried_again(folder: Path, smithy: Smithy) -> None:
    """Nobody is refused for a build that a new image has begun."""
    smithy.deeds += [fail] * 3
    drop(folder, "m")
    async with controller(folder, smithy, **BUDGET) as client:
        await runs_by(client, "m", "transformers")
        await answers(client, "m", lease="1")
    smithy.deeds.append(hang)
    async with controller(folder, smithy, **BUDGET, **NEW_IMAGE) as client:
        await becomes(client, "m", "building")
        meanwhile = await row(client, "m")
        await client.granted("m", lease="2")
        client.release("2", outcome="ok", completion_tokens=3)
        build, _ = smithy.begun[-1]
        well(smithy, smithy.bench(OWNER, build).spec, folder / "engines" / f".building-{build}" / "out")
        await becomes(client, "m", "built")
        await client.granted("m", lease="3")
        after = await row(client, "m")

        assert ("transformers", "llama-cpp") == (meanwhile["engine"], meanwhile["build"]["engine"])
        assert "goes on until llama-cpp can" in meanwhile["engine_choice"]["reason"]
        assert "transformers meanwhile" == meanwhile["build"]["serving"]
        assert "llama-cpp" == after["engine"]


async def test_what_does_not_load_goes_to_the_next_engine_and_callers_wait(
    folder: Path, smithy: Smithy, heard: list[Any]
) -> None:
    """A worker that fails as often as it may, and never answered, is replaced; whoever waits is served by the next one."""
    drop(folder, "m", with_gguf=True)
    smithy.fatal.add("m")
    knobs: dict[str, Any] = {"scheduler": {"max_failures": 2, "backoff_s": 0.05}}
    async with controller(folder, smithy, **BUDGET, **knobs) as client:
        client.ask("m", lease="1")
        await until("it has failed", lambda: events(heard, "engine.failed"), deadline_s=WITHIN_S)
        smithy.fatal.clear()
        await client.grant("1")
        fallen = await row(client, "m")

        assert "transformers" == fallen["engine"]
        assert "llama-cpp could not be loaded here: crashed" in fallen["engine_choice"]["reason"]
    (passed_on,) = events(heard, "engine.failed")
    assert "load" == passed_on["at"]


async def test_an_engine_that_has_answered_is_kept(folder: Path, smithy: Smithy, heard: list[Any]) -> None:
    """However often it fails afterwards: it rests, and health says so."""
    drop(folder, "m", with_gguf=True)
    knobs: dict[str, Any] = {"scheduler": {"max_failures": 2, "backoff_s": 0.05}}
    async with controller(folder, smithy, **BUDGET, **knobs) as client:
        await answers(client, "m", lease="1")
        smithy.fatal.add("m")
        smithy.crashed(OWNER, ModelName("m"))

        async def rests() -> bool:
            return bool((await row(client, "m"))["state"] == "failed")

        await until("it rests", rests, deadline_s=WITHIN_S)
        client.ask("m", lease="2")
        refused, told = await client.refused("2"), await row(client, "m")

        assert Reason.UNAVAILABLE is refused.reason
        assert ("llama-cpp", 2) == (told["engine"], told["failures"])
    assert [] == events(heard, "engine.failed")


async def test_when_every_engine_has_failed_the_last_one_stays(folder: Path, smithy: Smithy, heard: list[Any]) -> None:
    """Each is passed on once, and nothing goes round."""
    drop(folder, "m", with_gguf=True)
    smithy.fatal.add("m")
    knobs: dict[str, Any] = {"scheduler": {"max_failures": 2, "backoff_s": 0.05}}
    async with controller(folder, smithy, **BUDGET, **knobs) as client:
        client.ask("m", lease="1")
        refused = await client.refused("1")
        loaded = await client.call("load", model="m")
        await asyncio.sleep(0.5)

        assert Reason.WORKER_FAILED is refused.reason
        assert isinstance(loaded, Failed)
        assert "transformers" == (await row(client, "m"))["engine"]
    assert 1 == len(events(heard, "engine.failed"))


class Jetson(Smithy):
    """
    A Thor whose builds end as its owner wants.

    Attributes:
        hungry: the engines whose builds the kernel ends.
        images_begun: the image of each step that was begun.

    """

    def __init__(self) -> None:
        super().__init__()
        self.told = recorded(THOR).engine
        self.hungry: set[str] = set()
        self.images_begun: list[str] = []

    def begin_job(self, owner: str, spec: JobSpec) -> None:
        """Begin a job and end it: a trial of the GPU without a word, a build as its engine's builds do."""
        if not spec.mounts:
            raise EngineError("the image has no program to try the GPU with")
        self.deeds = [self.end]
        self.images_begun.append(spec.image)
        super().begin_job(owner, spec)

    def end(self, _: Smithy, spec: JobSpec, out: Path) -> None:
        """End a build."""
        if any(engine in spec.image for engine in self.hungry):
            starve(self, spec, out)
            return
        (out / "bundle").mkdir(exist_ok=True)
        (out / "bundle" / "llm.engine").write_bytes(b"an engine")
        well(self, spec, out)

    def builds_of(self, engine: str) -> int:
        """Count the steps that were begun in an engine's image."""
        return sum(engine in image for image in self.images_begun)


async def test_a_tensorrt_engine_that_cannot_be_built_leaves_the_model_to_llama_cpp(folder: Path) -> None:
    """On a board whose first choice is NVIDIA's engine: out of memory once is enough where more could never be given."""
    jetson = Jetson()
    jetson.hungry = {"tensorrt-edge-llm"}
    drop(folder, "m")
    async with on_thor(folder, jetson) as client:
        fallen = await runs_by(client, "m", "llama-cpp")
        await becomes(client, "m", "built")
        tries = jetson.builds_of("tensorrt-edge-llm")
        await answers(client, "m", lease="1")

        assert 1 == tries
        assert "tensorrt-edge-llm could not be built here: build the TensorRT engine" in fallen["engine_choice"]["reason"]
    async with on_thor(folder, jetson) as client:
        await client.granted("m", lease="2")

        assert "llama-cpp" == (await row(client, "m"))["engine"]
        assert tries == jetson.builds_of("tensorrt-edge-llm")
    jetson.hungry.clear()
    new = {"engines": {"tensorrt-edge-llm": {"image": "windlass/tensorrt-edge-llm:new"}}}
    async with on_thor(folder, jetson, **new) as client:
        risen = await runs_by(client, "m", "tensorrt-edge-llm")
        await client.granted("m", lease="3")

        assert not risen["engine_choice"]["fell_back"]
        assert tries < jetson.builds_of("tensorrt-edge-llm")
