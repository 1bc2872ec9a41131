"""Builds as values: which is next, what a failure does, how long it will take."""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from controller.engines.builds import BuildRecipe, BuildStep, Quantization
from controller.forge.reports import build_row, sentence
from controller.forge.tickets import (
    BACKOFF_S,
    FULL_S,
    LONGEST_RETRY_S,
    SHORTEST_RETRY_S,
    WAIT_S,
    State,
    Ticket,
    next_look_s,
    next_ticket,
)
from controller.spec import ModelName
from controller.store.engine_files import EngineFile
from controller.store.engine_manifest import EngineManifest, FileEntry
from controller.store.fingerprint import BuildKey
from controller.store.orders import Order
from controller.units import MIB
from tests.core.world import model_spec


def order(model: str = "m", *, mib: int = 100, served: bool = False, **changes: Any) -> Order:  # noqa: ANN401 -- any field
    """Describe an order."""
    step = BuildStep(title="store the weights", image="llama-cpp", argv=("quantize", model), memory_bytes=10 * MIB)
    recipe = BuildRecipe(
        engine="llama-cpp",
        quantization=Quantization.Q8_0,
        steps=(step, replace(step, title="store them again")),
        output=PurePosixPath("model.gguf"),
        estimate_bytes=mib * MIB,
        scratch_bytes=0,
    )
    key = BuildKey.of(recipe, source=model, images={"llama-cpp": "i"}, device="cpu")
    spec = model_spec(ModelName(model), **changes)
    return Order(
        model=ModelName(model),
        source=PurePosixPath(f"/models/{model}"),
        key=key,
        recipe=recipe,
        reason="model.toml says q8_0",
        spec=spec,
        served=spec if served else None,
    )


def ticket(model: str = "m", *, mib: int = 100, served: bool = False, **changes: Any) -> Ticket:  # noqa: ANN401 -- any field
    """Make a ticket."""
    return Ticket(order=order(model, mib=mib, served=served), **changes)


def there(one: Ticket) -> Ticket:
    """Say that its file is there, and has only to be compared."""
    entry = FileEntry(name="model.gguf", size_bytes=7, sha256="0" * 64)
    manifest = EngineManifest.of(one.order.key, model="m", files=(entry,), seconds=1.0)
    file = EngineFile(folder=PurePosixPath("/engines/x"), manifest=manifest, verified=False)
    one.order = replace(one.order, file=file)
    return one


def older(one: Ticket) -> Ticket:
    """Say that an older file is there, and has to be compared."""
    file = there(ticket(one.order.model)).order.file
    assert file is not None
    images = BuildKey(**{**asdict_of(one.order.key), "images": {"llama-cpp": "another"}})
    manifest = EngineManifest.of(images, model="m", files=file.manifest.files, seconds=1.0)
    one.order = replace(one.order, older=replace(file, manifest=manifest))
    return one


def asdict_of(key: BuildKey) -> dict[str, Any]:
    """Return what a key is made of."""
    return {name: getattr(key, name) for name in ("source", "engine", "quantization", "options", "images", "device")}


LINE = [
    ("a file that has only to be compared", lambda: there(ticket("z", mib=900, served=True))),
    ("an older one likewise", lambda: older(ticket("zz", mib=900, served=True))),
    ("one that runs already", lambda: ticket("y", mib=900, served=True, adopted=True)),
    ("one that somebody waits for", lambda: ticket("x", mib=900, served=True, asked=True)),
    ("one of which nothing is served", lambda: ticket("w", mib=900)),
    ("a pinned one", lambda: Ticket(order=order("v", mib=900, served=True, pinned=True))),
    ("one of a higher priority", lambda: Ticket(order=order("u", mib=900, served=True, priority=1))),
    ("a small one", lambda: ticket("t", mib=100, served=True)),
    ("the first by name", lambda: ticket("r", mib=900, served=True)),
    ("the last", lambda: ticket("s", mib=900, served=True)),
]


@pytest.mark.parametrize("place", range(len(LINE) - 1))
def test_the_line(place: int) -> None:
    """Each of them goes before all that follow, whatever their order."""
    tickets = [make() for _, make in LINE[place:]]

    assert next_ticket(reversed(tickets), 0.0) is tickets[0], LINE[place][0]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.BUILT])
def test_what_rests_is_not_taken_up(state: State) -> None:
    """Neither what failed for good nor what was stopped nor what is there, until somebody asks for it."""
    resting = ticket(state=state, failures=3, stop=True, retry_at_s=99.0)

    assert next_ticket([resting], 100.0) is None
    resting.ask()
    assert next_ticket([resting], 0.0) is resting
    assert (resting.failures, resting.stop, resting.asked) == (0, False, True)


def test_what_nobody_wants_is_not_taken_up() -> None:
    """Its folder is gone, or wants something else."""
    assert next_ticket([ticket(wanted=False)], 0.0) is None


def test_failures_pause_longer_each_time_and_end() -> None:
    """It is tried again after pauses that double, and the last failure puts it to rest with its reason."""
    one = ticket()
    pauses = []
    for _ in range(3):
        one.fail("no", 100.0, most=3)
        pauses.append(one.retry_at_s - 100.0)

    assert pauses == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S]
    assert (one.state, one.reason) == (State.FAILED, "no")


def test_a_failure_waits_for_its_time() -> None:
    """Between two tries it is not taken up, and the forge knows how long it may sleep."""
    one = ticket()
    one.fail("no", 100.0, most=3)

    assert one.state is State.QUEUED
    assert next_ticket([one], 100.0 + BACKOFF_S - 0.1) is None
    assert next_look_s([one], 100.0) == BACKOFF_S
    assert next_ticket([one], 100.0 + BACKOFF_S) is one


def test_a_step_that_was_killed_for_memory_gets_more() -> None:
    """Only for want of memory is the limit raised."""
    one = ticket()
    one.fail("no", 0.0, most=5)
    before = one.growth
    one.fail("no", 0.0, most=5, out_of_memory=True)

    assert (before, one.growth) == (1.0, 1.5)


def test_waiting_is_no_failure() -> None:
    """It looks again soon, as often as it takes."""
    one = ticket()
    for _ in range(9):
        one.wait("no room", 50.0)

    assert (one.state, one.failures, one.retry_at_s) == (State.WAITING, 0, 50.0 + WAIT_S)


@pytest.mark.parametrize(("done_mib", "extra_mib"), [(60, 0), (140, 60)])
def test_who_ran_out_of_disk_asks_for_what_it_needs(done_mib: int, extra_mib: int) -> None:
    """One that wrote more than was expected asks for more room the next time; one that did not had it taken by others."""
    one = ticket(done_bytes=done_mib * MIB)
    one.ran_out_of_disk("full", 0.0)

    assert (one.state, one.extra_bytes, one.retry_at_s) == (State.WAITING, extra_mib * MIB, FULL_S)


def test_progress_never_says_done_too_early() -> None:
    """More bytes than expected are not more than all, and only what is built is whole."""
    assert ticket(done_bytes=50 * MIB).share == 0.5
    assert ticket(done_bytes=200 * MIB).share == 0.99
    assert ticket(state=State.BUILT).share == 1.0


def test_what_is_left_follows_from_the_speed() -> None:
    """Half of it in ten seconds is ten more; without a speed it is a guess, and never nonsense."""
    running = ticket(state=State.BUILDING, done_bytes=50 * MIB, since_s=0.0)
    huge = ticket(mib=1_000_000)

    assert running.left_s(10.0) == pytest.approx(10.0)
    assert ticket().left_s(0.0) == pytest.approx(100 * MIB / 20e6)
    assert (huge.left_s(0.0), ticket(mib=1).left_s(0.0)) == (LONGEST_RETRY_S, SHORTEST_RETRY_S)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_what_rests_is_not_worth_asking_for_soon(state: State) -> None:
    """Nothing happens to it until somebody asks for it by hand."""
    assert ticket(mib=1, state=state).left_s(0.0) == LONGEST_RETRY_S


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_told(state: State) -> None:
    """Callers get a sentence and operators a row, in every state."""
    one = ticket(state=state, reason="the reason", step=1, since_s=5.0, once=True)
    row = build_row(one, 10.0)

    assert "m " in sentence(one, 3.0)
    assert (row["state"], row["quantization"], row["why"]) == (state.value, "q8_0", "model.toml says q8_0")
    running = state in (State.BUILDING, State.FINISHING, State.VERIFYING)
    assert (row["step"], row["seconds"]) == (("store them again", 5.0) if running else (None, None))


@pytest.mark.parametrize(("folder", "words"), [("/models/m", "the source"), ("/engines/x", "an older engine file"), (None, None)])
def test_what_is_served_meanwhile_is_told(folder: str | None, words: str | None) -> None:
    """The source, an older file, or nothing."""
    one = ticket(served=folder is not None)
    if one.order.served is not None:
        one.order = replace(one.order, served=replace(one.order.served, folder=PurePosixPath(folder or "")))

    assert build_row(one, 0.0)["serving"] == words


def test_what_is_made_is_built_when_it_is_registered() -> None:
    """Before the catalog knows of it nobody is told that it is there; a file that nobody wants is built when it is made."""
    made = ticket(state=State.BUILT)

    assert build_row(made, 0.0)["state"] == "finishing"
    assert "about to be registered" in sentence(made, 1.0)
    made.once = True
    assert build_row(made, 0.0)["state"] == "built"


def test_what_is_built_starts_afresh() -> None:
    """Of what failed or was stopped before, nothing is told or counted any more."""
    one = ticket(failures=2, stop=True, reason="somebody stopped it", log=("a line",))

    one.built()

    assert (State.BUILT, "", (), 0, False) == (one.state, one.reason, one.log, one.failures, one.stop)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.BUILT])
def test_a_file_that_arrives_is_compared_whatever_became_of_its_build(state: State) -> None:
    """It came from another box: nobody need ask for it, and until it is there a build that rests goes on resting."""
    one = ticket(state=state, failures=3)
    one.take(one.order)
    rests = one.state
    one.take(there(ticket()).order)

    assert (State.QUEUED if state is State.BUILT else state) == rests
    assert State.QUEUED is one.state
    assert one is next_ticket([one], now=0.0)


def test_an_older_file_that_matches_is_not_the_end() -> None:
    """It is served, and the newest is built beside it; one that does not match is said to be put away."""
    for matches, reason in ((True, ""), (False, "it did not match its manifest, was put into quarantine, and is built anew")):
        one = older(ticket(state=State.VERIFYING))
        file = one.order.older
        assert file is not None
        one.compared(file, matches=matches)

        assert (State.QUEUED, None, reason) == (one.state, one.order.to_compare, one.reason)


def test_a_file_that_is_spoilt_is_built_and_not_compared_again() -> None:
    """It is in quarantine: there is nothing left to compare."""
    one = there(ticket(state=State.VERIFYING))
    file = one.order.file
    assert file is not None
    one.compared(file, matches=False)

    assert (State.QUEUED, None) == (one.state, one.order.to_compare)


def test_a_file_that_arrives_while_an_older_one_is_compared_is_compared_next() -> None:
    """What was found out of the older one says nothing about it."""
    one = older(ticket(state=State.VERIFYING))
    file = one.order.older
    assert file is not None
    one.take(there(ticket()).order)
    one.compared(file, matches=False)
    arrived = one.order.to_compare
    assert arrived is not None
    one.compared(arrived, matches=True)

    assert State.BUILT is one.state
