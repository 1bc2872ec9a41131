"""A whole controller and its builds, on an engine in memory whose jobs do what a test says."""

# ruff: noqa: ANN401 -- settings are of any type
import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.app import SOCKET_NAME, serve
from controller.drivers.faulty import JOB_VERBS, Fault, FaultyDriver, Verb, When
from controller.drivers.memory import MemoryDriver
from controller.engines.builds import OUT_MOUNT
from controller.errors import EngineError, EngineUnavailableError, Reason
from controller.spec import JobSpec
from controller.state import ExitCause
from controller.store import digests
from controller.units import MIB
from controller.wire import Failed
from tests.checkpoints import gguf, write_checkpoint_folder, write_gguf_folder
from tests.controller.rig import OWNER, Machine
from tests.controller.test_app import names, settings
from tests.controller.wire_client import Client, connected
from tests.waiting import until

OLD = (1_700_000_000, 1_700_000_000)
MANIFEST = 'engine = "llama-cpp"\nquantization = "q8_0"\n'
WITHIN_S = 40.0

Deed = Callable[["Smithy", JobSpec, Path], None]


class Smithy(Machine):
    """
    The engine in memory, whose jobs write what they should.

    Attributes:
        deeds: what the next jobs do, one after the other; when there are no more, they do well.
        begun: the steps that were begun.

    """

    def __init__(self) -> None:
        super().__init__()
        self.deeds: list[Deed] = []
        self.begun: list[tuple[str, int]] = []

    def begin_job(self, owner: str, spec: JobSpec) -> None:
        """Begin a job and do its deed."""
        if any(bench.spec.build == spec.build for bench in self.benches(owner)):
            return
        super().begin_job(owner, spec)
        self.begun.append((spec.build, spec.step))
        out = next(Path(mount.source) for mount in spec.mounts if mount.target == OUT_MOUNT)
        (self.deeds.pop(0) if self.deeds else well)(self, spec, out)


def well(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """Write what is wanted and end."""
    (out / "model.gguf").write_bytes(gguf())
    (out / "converted.gguf").write_bytes(gguf())
    smithy.job_ended(OWNER, spec.build)


def hang(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """Write a part and go on for ever."""
    (out / "model.gguf").write_bytes(gguf()[:100])


def fail(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """Write a part and end badly."""
    (out / "model.gguf").write_bytes(gguf()[:100])
    smithy.bench(OWNER, spec.build).lines.append("ValueError: no such architecture")
    smithy.job_ended(OWNER, spec.build, code=1)


def starve(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """Be ended by the kernel."""
    smithy.job_ended(OWNER, spec.build, code=137, cause=ExitCause.OUT_OF_MEMORY)


def nothing(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """End well and write nothing."""
    smithy.job_ended(OWNER, spec.build)


def vanish(smithy: Smithy, spec: JobSpec, out: Path) -> None:
    """Be removed by hand."""
    smithy.drop_job(OWNER, spec.build)


@pytest.fixture
async def smithy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Smithy]:
    """Give the test an engine, and builds that fail without pausing for long."""
    monkeypatch.setattr("controller.forge.tickets.BACKOFF_S", 0.05)
    monkeypatch.setattr("controller.forge.work.POLL_S", 0.02)
    monkeypatch.setattr("controller.forge.work.AWAY_PAUSE_S", 0.02)
    made = Smithy()
    yield made
    await made.power_off()


def drop(folder: Path, name: str, manifest: str = MANIFEST, *, stamp: int = 0) -> None:
    """Drop a checkpoint that is to be converted, as if it had lain there for long."""
    hidden = write_checkpoint_folder(folder / "models", f".{name}")
    (hidden / "tokenizer.json").write_text("{}")
    (hidden / "model.toml").write_text(manifest)
    for path in (*hidden.iterdir(), hidden):
        os.utime(path, (OLD[0] + stamp, OLD[1] + stamp))
    hidden.rename(folder / "models" / name)


@contextlib.asynccontextmanager
async def controller(folder: Path, smithy: Smithy, *faults: Fault, **changes: Any) -> AsyncIterator[Client]:
    """Run a controller as long as the block runs."""
    (folder / "r").mkdir(exist_ok=True)
    (folder / "r" / SOCKET_NAME).unlink(missing_ok=True)
    wanted = settings(folder, **{"builds": {"memory": "64MiB", "keep_free": 0}, **changes})
    serving = asyncio.create_task(serve(wanted, FaultyDriver(MemoryDriver(OWNER, engine=smithy), *faults)))
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


async def state(client: Client, name: str) -> str:
    """Return the state of a build."""
    told = await client.call("builds")
    return next((row["state"] for row in told["builds"] if row["model"] == name), "unknown")


async def becomes(client: Client, name: str, wanted: str) -> None:
    """Wait until a build is in a state."""

    async def is_so() -> bool:
        return await state(client, name) == wanted

    await until(f"the build of {name} is {wanted}", is_so, deadline_s=WITHIN_S)


async def row(client: Client, name: str) -> dict[str, Any]:
    """Return what is told of a model."""
    rows: list[dict[str, Any]] = (await client.call("models"))["models"]
    return next(row for row in rows if row["name"] == name)


def half_made(folder: Path) -> list[str]:
    """Return what lies in the store beside whole engine files."""
    return sorted(path.name for path in (folder / "engines").iterdir() if path.name.startswith("."))


async def test_a_checkpoint_is_built_and_served(folder: Path, smithy: Smithy) -> None:
    """While it is built it is listed and refused with a time to come again; then it is granted."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
        client.ask("m", lease="1")
        refused, listed = await client.refused("1"), names(client)
        meanwhile, load = await row(client, "m"), await client.call("load", model="m")
        budget = (await client.call("status"))["memory"]["budget_bytes"]
        ((build, _),) = smithy.begun
        well(smithy, smithy.bench(OWNER, build).spec, folder / "engines" / f".building-{build}" / "out")
        await becomes(client, "m", "built")
        await client.granted("m", lease="2")
        after = await row(client, "m")

        assert (Reason.UNAVAILABLE, True) == (refused.reason, (refused.retry_after_s or 0) > 0)
        assert ["m"] == listed
        assert isinstance(load, Failed)
        assert "is being built" in load.message
        assert ("building", "building") == (meanwhile["state"], meanwhile["build"]["state"])
        assert 200 * MIB - 64 * MIB == budget
        assert (200 * MIB, "resident") == ((await client.call("status"))["memory"]["budget_bytes"], after["state"])
        assert ("built", len(gguf())) == (after["build"]["state"], after["weights_bytes"])
        assert [] == half_made(folder)


async def test_the_next_controller_adopts_the_step_that_runs(folder: Path, smithy: Smithy) -> None:
    """It is begun once, and ends under another controller than it began under."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
    ((build, _),) = smithy.begun
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
        well(smithy, smithy.bench(OWNER, build).spec, folder / "engines" / f".building-{build}" / "out")
        await becomes(client, "m", "built")

    assert [(build, 0)] == smithy.begun
    assert [] == half_made(folder)


async def test_after_a_power_cut_it_begins_anew(folder: Path, smithy: Smithy) -> None:
    """What ended while nobody looked is not trusted, nor is anything that was half made."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
    ((build, _),) = smithy.begun
    smithy.job_ended(OWNER, build)
    (folder / "engines" / ".building-of-another-life").mkdir()
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")

    assert [(build, 0), (build, 0)] == smithy.begun
    assert [] == half_made(folder)


async def test_a_job_that_nobody_wants_any_more_is_ended(folder: Path, smithy: Smithy) -> None:
    """Its folder was removed, while a controller ran or while none did."""
    for while_running in (True, False):
        smithy.deeds.append(hang)
        drop(folder, "m", stamp=int(while_running))
        async with controller(folder, smithy) as client:
            await becomes(client, "m", "building")
            if while_running:
                (folder / "models" / "m").rename(folder / "models" / ".gone")
                await until("the job is ended", lambda: not smithy.benches(OWNER))
                await until("nothing is left", lambda: not half_made(folder))
        if not while_running:
            (folder / "models" / "m").rename(folder / "models" / ".gone-too")
            async with controller(folder, smithy):
                await until("the job is ended", lambda: not smithy.benches(OWNER))
                await until("nothing is left", lambda: not half_made(folder))


async def test_a_folder_that_comes_back_while_its_build_is_cleared_away(folder: Path, smithy: Smithy) -> None:
    """Nobody has stopped that build, so it begins anew."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    slow = Fault(verb=Verb.END_JOB, nth=2, delay_s=4.0, error=None)
    async with controller(folder, smithy, slow) as client:
        await becomes(client, "m", "building")
        (folder / "models" / "m").rename(folder / "models" / ".gone")
        await becomes(client, "m", "unknown")
        (folder / "models" / ".gone").rename(folder / "models" / "m")
        await becomes(client, "m", "building")
        await becomes(client, "m", "built")

    assert 2 == len(smithy.begun)
    assert [] == half_made(folder)


@pytest.mark.parametrize("deed", [fail, starve, nothing, vanish])
async def test_a_step_that_fails_is_tried_again(folder: Path, smithy: Smithy, deed: Deed) -> None:
    """Once is bad luck: the next try does, and nothing half made was served."""
    smithy.deeds += [deed]
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")

    assert [] == half_made(folder)


async def test_it_rests_after_the_last_failure_until_somebody_asks(folder: Path, smithy: Smithy) -> None:
    """Its reason is told in the row, to callers and by health; asking for it by hand tries again."""
    smithy.deeds += [fail] * 3
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "failed")
        client.ask("m", lease="1")
        refused, told, health = await client.refused("1"), await row(client, "m"), await client.call("health")
        left, tries = half_made(folder), len(smithy.begun)
        again = await client.call("build", model="m")
        await becomes(client, "m", "built")

        assert 3 == tries
        assert "no such architecture" in refused.message
        assert ("failed", True) == (told["state"], "no such architecture" in told["reason"])
        assert "degraded" == health["state"]
        assert any("the build of m failed 3 times" in reason for reason in health["reasons"])
        assert ([], "queued") == (left, again["state"])
        assert "ok" == (await client.call("health"))["state"]


async def test_a_build_can_be_stopped(folder: Path, smithy: Smithy) -> None:
    """Its container and what it wrote are gone, it stays stopped over a scan, and starts when somebody asks for it."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
        stopped = await client.call("builds.cancel", model="m")
        await becomes(client, "m", "cancelled")
        await until("nothing is left", lambda: not smithy.benches(OWNER) and not half_made(folder))
        drop(folder, "other", stamp=5)
        await becomes(client, "other", "built")
        still = await state(client, "m")
        await client.call("build", model="m")
        await becomes(client, "m", "built")

        assert ("cancelled", "cancelled") == (stopped["state"], still)


async def test_a_comparison_is_no_build_that_could_be_stopped(
    folder: Path, smithy: Smithy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for that is told so, and the file is served when its hash is found right."""
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")
    ((build, _),) = smithy.begun
    os.utime(folder / "engines" / build / "model.gguf", OLD)
    may_go_on = threading.Event()

    def sha256_slowly(path: Path) -> str:
        may_go_on.wait(WITHIN_S)
        return sha256_of(path)

    sha256_of = digests.sha256
    monkeypatch.setattr(digests, "sha256", sha256_slowly)
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "verifying")
        answer = await client.call("builds.cancel", model="m")
        may_go_on.set()
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")

    assert isinstance(answer, Failed)
    assert Reason.CONFLICT is answer.reason
    assert 1 == len(smithy.begun)


async def test_a_spoilt_file_is_built_anew(folder: Path, smithy: Smithy) -> None:
    """Found by its hash at the next start, put away, and made again; it was not served in between."""
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")
    ((build, _),) = smithy.begun
    weights = folder / "engines" / build / "model.gguf"
    weights.write_bytes(gguf()[:-1] + b"\x01")
    smithy.deeds.append(hang)
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
        client.ask("m", lease="1")
        refused = await client.refused("1")
        well(smithy, smithy.bench(OWNER, build).spec, folder / "engines" / f".building-{build}" / "out")
        await becomes(client, "m", "built")
        await client.granted("m", lease="2")

    assert Reason.UNAVAILABLE is refused.reason
    assert weights.read_bytes() == gguf()


async def test_a_build_for_once(folder: Path, smithy: Smithy) -> None:
    """Another quantisation is made ahead, and is there at once when the manifest names it; nonsense is refused."""
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")
        bad = [
            await client.call("build", model="m", quantization="q3"),
            await client.call("build", model="nobody"),
            await client.call("builds.cancel", model="m"),
        ]
        told = await client.call("build", model="m", quantization="Q4_0")

        async def both() -> bool:
            return [row["state"] for row in (await client.call("builds"))["builds"]] == ["built", "built"]

        await until("both are built", both, deadline_s=WITHIN_S)
        begun = len(smithy.begun)
        (folder / "models" / "m" / "model.toml").write_text('engine = "llama-cpp"\nquantization = "q4_0"\n')

        async def is_served() -> bool:
            return bool((await row(client, "m"))["build"]["fingerprint"] == told["fingerprint"])

        await until("the manifest is obeyed", is_served, deadline_s=WITHIN_S)
        await client.granted("m", lease="1")

        assert ("q4_0", begun) == (told["quantization"], len(smithy.begun))
        assert [Reason.MALFORMED, Reason.UNKNOWN_MODEL, Reason.CONFLICT] == [answer.reason for answer in bad]


async def test_what_needs_no_build_says_so(folder: Path, smithy: Smithy) -> None:
    """Asking to build what is served as it is, is a conflict."""
    hidden = write_gguf_folder(folder / "models", ".plain")
    for path in (*hidden.iterdir(), hidden):
        os.utime(path, OLD)
    hidden.rename(folder / "models" / "plain")
    async with controller(folder, smithy) as client:
        answer = await client.call("build", model="plain")

        assert Reason.CONFLICT is answer.reason
        assert (await row(client, "plain"))["build"] is None


async def test_a_build_larger_than_the_budget_waits(folder: Path, smithy: Smithy) -> None:
    """It says how much it needs, and the models go on."""
    drop(folder, "m")
    async with controller(folder, smithy, builds={"memory": "250MiB", "keep_free": 0}) as client:
        await becomes(client, "m", "waiting")
        told = await row(client, "m")

        assert "250 MiB of memory" in told["build"]["problem"]
        assert [] == smithy.begun


CASES = [
    pytest.param(verb, when, error, id=f"{verb}-{when.value}-{error.__name__}")
    for verb in sorted(JOB_VERBS)
    for when in When
    for error in (EngineUnavailableError, EngineError)
]


@pytest.mark.parametrize(("verb", "when", "error"), CASES)
@pytest.mark.parametrize("nth", [1, 2])
async def test_it_is_built_although_a_call_fails(  # noqa: PLR0917 -- one for each kind of fault
    folder: Path, smithy: Smithy, verb: Verb, when: When, error: type[EngineError], nth: int
) -> None:
    """Any verb may fail before or after its effect; the file is made all the same, and nothing is left beside it."""
    drop(folder, "m")
    fault = Fault(verb=verb, when=when, nth=nth, error=lambda: error("a fault on purpose"))
    async with controller(folder, smithy, fault) as client:
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")

    assert [] == half_made(folder)
    assert not smithy.benches(OWNER)
