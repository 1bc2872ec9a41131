"""What every driver promises, line by line; the promises are written in `controller/drivers/base.py`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from controller.drivers.base import Container, Driver, EngineEvent, Usage
from controller.drivers.faulty import Fault, FaultyDriver, Verb, When
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError
from controller.spec import ModelName
from controller.state import NEVER_RAN, ExitCause
from controller.units import MIB
from tests.contract.rigs import LIMIT_BYTES, Rig

A, B, C = ModelName("alpha"), ModelName("beta-0.5b"), ModelName("gamma_x")
CALLS: dict[Verb, Callable[[Driver, Rig], Awaitable[object]]] = {
    Verb.LIST: lambda driver, rig: driver.list(),
    Verb.CREATE: lambda driver, rig: driver.create(rig.spec(A)),
    Verb.START: lambda driver, rig: driver.start(A),
    Verb.KILL: lambda driver, rig: driver.kill(A),
    Verb.REMOVE: lambda driver, rig: driver.remove(A),
    Verb.USAGE: lambda driver, rig: driver.usage(A),
    Verb.PIDS: lambda driver, rig: driver.pids(A),
    Verb.LOGS: lambda driver, rig: driver.logs(A, tail=10),
    Verb.JOBS: lambda driver, rig: driver.jobs(),
    Verb.BEGIN_JOB: lambda driver, rig: driver.begin_job(rig.job("one")),
    Verb.END_JOB: lambda driver, rig: driver.end_job("one"),
    Verb.JOB_LOGS: lambda driver, rig: driver.job_logs("one", tail=10),
    Verb.HAS_IMAGE: lambda driver, rig: driver.has_image(rig.spec(A).image),
    Verb.INFO: lambda driver, rig: driver.info(),
}


async def only(driver: Driver) -> Container:
    """Return the one container there is."""
    (found,) = await driver.list()
    return found


async def begin(rig: Rig, *, until_ready: bool = True) -> None:
    """Make and start alpha."""
    await rig.driver.create(rig.spec(A))
    await rig.driver.start(A)
    if until_ready:
        await rig.ready(A)


async def next_of(events: AsyncIterator[EngineEvent], count: int) -> list[EngineEvent]:
    """Return the next *count* events."""
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def test_an_empty_engine_shows_nothing(rig: Rig) -> None:
    """Without containers of ours the list is empty, whoever else uses the engine."""
    shown = await rig.driver.list()

    assert not shown


async def test_create_makes_and_starts_nothing(rig: Rig) -> None:
    """A container that was made carries its labels, does not run, and never ran."""
    spec = rig.spec(A)

    await rig.driver.create(spec)

    assert await only(rig.driver) == Container(
        model=A, running=False, memory_bytes=LIMIT_BYTES, spec_hash=spec.spec_hash, run=NEVER_RAN, exit=None
    )


async def test_create_of_a_worker_that_exists_changes_nothing(rig: Rig) -> None:
    """A second create is no error, and does not touch a running worker, even if it asks for something else."""
    await begin(rig, until_ready=False)
    before = await rig.driver.list()

    await rig.driver.create(rig.spec(A))
    await rig.driver.create(rig.spec(A, pids_limit=33))

    assert await rig.driver.list() == before


async def test_create_without_the_image_says_which_and_what_to_do(rig: Rig) -> None:
    """A missing image is an error that names the image and the command that makes it."""
    with pytest.raises(EngineError, match=r"windlass/no-such-image:none.*make images") as caught:
        await rig.driver.create(rig.spec(A, image="windlass/no-such-image:none"))

    assert not isinstance(caught.value, ContainerMissingError | EngineUnavailableError)


async def test_the_engine_says_which_images_it_has(rig: Rig) -> None:
    """By tag: one that is there, and one that nobody has made."""
    assert await rig.driver.has_image(rig.spec(A).image)
    assert not await rig.driver.has_image("windlass/no-such-image:none")


async def test_list_is_ordered_by_model(rig: Rig) -> None:
    """The list does not depend on the order in which containers were made."""
    for model in (C, A, B):
        await rig.driver.create(rig.spec(model))

    assert [container.model for container in await rig.driver.list()] == [A, B, C]


async def test_start_begins_a_run(rig: Rig) -> None:
    """A started worker runs, has a run of its own and no exit."""
    await begin(rig, until_ready=False)

    shown = await only(rig.driver)
    assert (shown.running, shown.run != NEVER_RAN, shown.exit) == (True, True, None)


async def test_start_of_a_running_worker_keeps_its_run(rig: Rig) -> None:
    """A second start is no error and no new run."""
    await begin(rig, until_ready=False)
    before = await rig.driver.list()

    await rig.driver.start(A)

    assert await rig.driver.list() == before


async def test_start_of_a_paused_worker_is_no_error(rig: Rig) -> None:
    """A paused worker runs, so what is wanted holds."""
    await begin(rig, until_ready=False)
    await rig.is_paused(A)

    await rig.driver.start(A)

    assert (await only(rig.driver)).running


async def test_every_start_is_another_run(rig: Rig) -> None:
    """Three lives of one container have three runs."""
    await rig.driver.create(rig.spec(A))
    runs = []
    for _ in range(3):
        await rig.driver.start(A)
        runs.append((await only(rig.driver)).run)
        await rig.driver.kill(A)

    assert len(set(runs)) == 3


async def test_kill_returns_when_it_does_not_run(rig: Rig) -> None:
    """Right after a kill the engine shows the worker as killed, under the run that ended."""
    await begin(rig, until_ready=False)
    run = (await only(rig.driver)).run

    await rig.driver.kill(A)

    shown = await only(rig.driver)
    assert (shown.running, shown.run, shown.exit and shown.exit.cause) == (False, run, ExitCause.KILLED)


async def test_kill_of_a_worker_that_does_not_run_is_no_error(rig: Rig) -> None:
    """Killing one that never ran, and one that is dead, changes nothing."""
    await rig.driver.create(rig.spec(A))
    await rig.driver.kill(A)
    assert (await only(rig.driver)).exit is None
    await rig.driver.start(A)
    await rig.driver.kill(A)
    before = await rig.driver.list()

    await rig.driver.kill(A)

    assert await rig.driver.list() == before


@pytest.mark.parametrize("how", ["is_paused", "is_stopped_by_signal"])
async def test_kill_ends_one_that_is_frozen(rig: Rig, how: str) -> None:
    """A paused worker, and one that got SIGSTOP, run as far as the engine can tell, and die as well."""
    await begin(rig)
    await getattr(rig, how)(A)
    assert (await only(rig.driver)).running

    await rig.driver.kill(A)

    assert not (await only(rig.driver)).running


async def test_remove_deletes_running_and_stopped_ones(rig: Rig) -> None:
    """Removing kills first where needed, and leaves the others alone."""
    for model in (A, B, C):
        await rig.driver.create(rig.spec(model))
    await rig.driver.start(A)

    await rig.driver.remove(A)
    await rig.driver.remove(B)

    assert [container.model for container in await rig.driver.list()] == [C]


async def test_remove_of_what_is_not_there_is_no_error(rig: Rig) -> None:
    """What is wanted holds already."""
    await rig.driver.remove(A)

    assert not await rig.driver.list()


@pytest.mark.parametrize("verb", [Verb.START, Verb.KILL, Verb.USAGE, Verb.PIDS, Verb.LOGS])
async def test_a_missing_worker_is_named(rig: Rig, verb: Verb) -> None:
    """Verbs that need a container say which one is missing."""
    with pytest.raises(ContainerMissingError, match=A):
        await CALLS[verb](rig.driver, rig)


async def test_usage_counts_private_memory(rig: Rig) -> None:
    """What a worker takes shows up as private memory, below its limit."""
    await begin(rig)
    before = await rig.driver.usage(A)

    await rig.takes(A, 24 * MIB)

    after = await rig.driver.usage(A)
    assert after.limit_bytes == LIMIT_BYTES
    assert after.anon_bytes >= 24 * MIB > before.anon_bytes > 0
    assert after.anon_bytes <= after.charged_bytes <= after.limit_bytes
    assert after.refault_bytes >= 0


async def test_usage_of_one_that_does_not_run_is_an_error(rig: Rig) -> None:
    """There is nothing to count, and it is not the same as zero."""
    await rig.driver.create(rig.spec(A))

    with pytest.raises(EngineError, match="does not run"):
        await rig.driver.usage(A)


async def test_processes_are_told_as_the_host_counts_them(rig: Rig) -> None:
    """Two workers share none, a second run has others, and one that does not run has none to tell."""
    for model in (A, B):
        await rig.driver.create(rig.spec(model))
        await rig.driver.start(model)
    alpha, beta = await rig.driver.pids(A), await rig.driver.pids(B)
    await rig.driver.kill(A)

    with pytest.raises(EngineError):
        await rig.driver.pids(A)
    await rig.driver.start(A)
    again = await rig.driver.pids(A)

    assert alpha
    assert beta
    assert again
    assert not alpha & beta
    assert not alpha & again
    assert min(alpha | beta) > 1


@pytest.mark.parametrize("device", ["nvidia=all", "nvidia.com/gpu=0"])
async def test_a_gpu_the_engine_cannot_give_is_refused_before_anything_is_made(rig: Rig, device: str) -> None:
    """The error names the device and what to do, for a worker and for a build, and there is no container."""
    with pytest.raises(EngineError, match=rf"{device}.*nvidia-ctk"):
        await rig.driver.create(rig.spec(A, devices=(device,)))
    with pytest.raises(EngineError, match=rf"{device}.*nvidia-ctk"):
        await rig.driver.begin_job(rig.job("one", devices=(device,)))

    assert not await rig.driver.list()
    assert not await rig.driver.jobs()


async def test_groups_and_shared_memory_are_accepted(rig: Rig) -> None:
    """A worker with further groups and more to share is made and started like any other."""
    await rig.driver.create(rig.spec(A, groups=(44, 104), shm_bytes=80 * MIB))

    await rig.driver.start(A)

    assert (await only(rig.driver)).running


async def test_logs_are_the_last_lines(rig: Rig) -> None:
    """The log holds what the worker wrote, and `tail` counts from its end."""
    await begin(rig)
    await rig.takes(A, 9 * MIB)

    everything = await rig.driver.logs(A, tail=100)
    assert "listening" in everything
    assert await rig.driver.logs(A, tail=1) == everything.splitlines(keepends=True)[-1]


@pytest.mark.parametrize(("code", "cause"), [(0, ExitCause.STOPPED), (143, ExitCause.STOPPED), (3, ExitCause.CRASHED)])
async def test_an_exit_has_its_cause_and_code(rig: Rig, code: int, cause: ExitCause) -> None:
    """A worker that ends by itself was stopped (0, or SIGTERM's code) or crashed, and its code is kept."""
    await begin(rig)

    await rig.ends(A, code)

    shown = await only(rig.driver)
    assert shown.exit is not None
    assert (shown.running, shown.exit.cause, shown.exit.code) == (False, cause, code)


async def test_a_kill_by_hand_is_told_from_a_crash(rig: Rig) -> None:
    """SIGKILL from anybody reads as killed."""
    await begin(rig, until_ready=False)

    await rig.is_killed(A)

    shown = await only(rig.driver)
    assert shown.exit is not None
    assert (shown.exit.cause, shown.exit.code) == (ExitCause.KILLED, 137)


async def test_out_of_memory_is_told_from_a_kill(rig: Rig) -> None:
    """A worker that the kernel killed at its limit reads as out of memory at once, and the next run is free of it."""
    await begin(rig)
    for _ in range(3):  # Docker 20.10 was seen to lose the reason of one memory kill in forty
        await rig.takes(A, LIMIT_BYTES + 16 * MIB)
        killed = await only(rig.driver)
        await rig.driver.start(A)
        await rig.ready(A)
        if killed.exit is not None and killed.exit.cause is ExitCause.OUT_OF_MEMORY:
            break

    await rig.driver.kill(A)

    later = await only(rig.driver)
    assert killed.exit is not None
    assert later.exit is not None
    assert (killed.exit.cause, later.exit.cause) == (ExitCause.OUT_OF_MEMORY, ExitCause.KILLED)


async def test_a_start_forgets_the_last_exit(rig: Rig) -> None:
    """While it runs again there is no exit to show."""
    await begin(rig)
    await rig.ends(A, 3)

    await rig.driver.start(A)

    assert (await only(rig.driver)).exit is None


async def test_one_removed_by_hand_is_simply_gone(rig: Rig) -> None:
    """After `docker rm --force` the list is empty, a start says so, and it can be made again."""
    await begin(rig, until_ready=False)

    await rig.is_removed(A)

    assert not await rig.driver.list()
    with pytest.raises(ContainerMissingError):
        await rig.driver.start(A)
    await rig.driver.create(rig.spec(A))
    assert (await only(rig.driver)).run == NEVER_RAN


async def test_another_owner_is_invisible(rig: Rig) -> None:
    """Two installations on one engine neither see nor touch each other's workers, though the models have the same names."""
    theirs = rig.another(f"{rig.owner}-2")
    await theirs.create(rig.spec(A))
    await theirs.start(A)
    await begin(rig, until_ready=False)

    await rig.driver.kill(A)
    await rig.driver.remove(A)

    assert not await rig.driver.list()
    assert [container.running for container in await theirs.list()] == [True]


async def test_another_driver_finds_what_runs(rig: Rig) -> None:
    """A controller that was started again sees the same workers in the same runs."""
    await begin(rig, until_ready=False)

    again = rig.another(rig.owner)

    assert await again.list() == await rig.driver.list()


async def test_events_tell_a_life_in_order(rig: Rig) -> None:
    """From the call on, every change arrives, each once and in order, before anybody reads the stream."""
    events = rig.driver.events()
    await begin(rig, until_ready=False)
    await rig.driver.kill(A)
    await rig.driver.remove(A)

    told = await next_of(events, 4)

    assert told == [EngineEvent(model=A, action=action) for action in ("create", "start", "die", "destroy")]


async def test_events_tell_out_of_memory(rig: Rig) -> None:
    """The kernel's kill is an event of its own, beside the death."""
    await begin(rig)
    events = rig.driver.events()

    await rig.takes(A, LIMIT_BYTES + 16 * MIB)

    assert {event.action for event in await next_of(events, 2)} == {"oom", "die"}


async def test_events_are_only_ours(rig: Rig) -> None:
    """What happens to another owner's workers is not told."""
    theirs = rig.another(f"{rig.owner}-2")
    events = rig.driver.events()
    await theirs.create(rig.spec(B))
    await rig.driver.create(rig.spec(A))

    told = await next_of(events, 1)

    assert told == [EngineEvent(model=A, action="create")]


async def test_events_end_when_the_driver_is_closed(rig: Rig) -> None:
    """Two readers of one driver both come to a clean end."""
    readers = [asyncio.ensure_future(collect(rig.driver.events())) for _ in range(2)]
    await rig.driver.create(rig.spec(A))

    await rig.driver.close()

    async with asyncio.timeout(10):
        assert [event.action for told in await asyncio.gather(*readers) for event in told] in (
            [],
            ["create"],
            ["create", "create"],
        )


async def collect(events: AsyncIterator[EngineEvent]) -> list[EngineEvent]:
    """Read to the end."""
    return [event async for event in events]


async def test_events_raise_when_the_engine_goes_away(rig: Rig) -> None:
    """A reader learns that the stream ended because the engine is away, and a new one while it is away learns the same."""
    events = rig.driver.events()
    await rig.driver.create(rig.spec(A))
    await next_of(events, 1)

    await rig.engine_goes()

    async with asyncio.timeout(10):
        for stream in (events, rig.driver.events()):
            with pytest.raises(EngineUnavailableError):
                await anext(stream)


async def test_every_verb_says_that_the_engine_is_away(rig: Rig) -> None:
    """While the engine is away each verb raises the one error that means so; when it is back, the same driver works on."""
    await begin(rig, until_ready=False)
    before = await rig.driver.list()

    await rig.engine_goes()
    for verb, call in CALLS.items():
        if verb is Verb.USAGE:  # the kernel can say that, too; whoever cannot ask it says what the others say
            with suppress(EngineUnavailableError):
                assert isinstance(await call(rig.driver, rig), Usage)
            continue
        with pytest.raises(EngineUnavailableError):
            await call(rig.driver, rig)
    await rig.engine_returns()

    assert await rig.driver.list() == before


async def test_the_engine_says_what_it_is(rig: Rig) -> None:
    """Version, cgroups and limits are known."""
    info = await rig.driver.info()

    assert info.memory_limits
    assert info.version
    assert info.cgroup_version in {1, 2}


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.EVENTS])
async def test_a_fault_strikes_before_or_after_the_effect(rig: Rig, verb: Verb, when: When) -> None:
    """A call that fails before its effect left no trace, one that fails after it did its work; asking again ends the same."""
    await prepare(rig, verb)
    before = await rig.driver.list()
    faulty = FaultyDriver(rig.driver, Fault(verb=verb, when=when))

    with pytest.raises(EngineUnavailableError):
        await CALLS[verb](faulty, rig)
    changed = await rig.driver.list() != before
    await CALLS[verb](faulty, rig)

    changes = verb in {Verb.CREATE, Verb.START, Verb.KILL, Verb.REMOVE}
    assert changed is (changes and when is When.AFTER)
    assert (await rig.driver.list() != before) is changes


async def prepare(rig: Rig, verb: Verb) -> None:
    """Bring alpha into the state in which *verb* changes something, or answers."""
    if verb is Verb.JOB_LOGS:
        await rig.driver.begin_job(rig.job("one"))
    if verb is not Verb.CREATE:
        await rig.driver.create(rig.spec(A))
    if verb in {Verb.KILL, Verb.USAGE, Verb.PIDS, Verb.REMOVE}:
        await rig.driver.start(A)
