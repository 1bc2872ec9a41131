"""Workers on GPUs of recorded boxes: what they hold is seen, counted once, measured, and waited for when they end."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.charges import OnCard
from controller.device import Device
from controller.drivers.faulty import Fault, Verb
from controller.errors import EngineError, Reason
from controller.footprint import Measured
from controller.gpu_watch import CALM_S, POLL_S
from controller.guard import LONGEST_PAUSE_S
from controller.memory_back import GPU_LIMIT_S
from controller.probes.device import read_device
from controller.spec import Footprint, FootprintSource, ModelSpec, Spread
from controller.state import ExitCause
from controller.units import GIB, MIB
from controller.wire import Granted, Refused
from tests.controller.rig import BUDGET_BYTES, FLOOR_BYTES, OWNER, Machine, Rig, model, reaches, running
from tests.devices import recorded

pytestmark = pytest.mark.looptime

JETSONS = ("orin-nano-jp6.2.2", "orin-nano-jp7.2", "agx-thor-jp7.2")
CARD_BUDGET = (OnCard(0, 20 * GIB),)


def device(name: str, **changes: Any) -> Device:  # noqa: ANN401 -- any field
    """Return what a recorded box is."""
    box = recorded(name)
    return replace(read_device(box.system, box.engine), **changes)


def on_jetson(name: str, *, mib: int) -> ModelSpec:
    """Make a model that holds all it needs privately, as one on a GPU that shares the box's memory does."""
    footprint = Footprint(total_bytes=mib * MIB, weights_bytes=0, private_bytes=mib * MIB, source=FootprintSource.ESTIMATE)
    return model(name, footprint=footprint)


def on_card(name: str, *, gib: int, mib: int = 20) -> ModelSpec:
    """Make a model that lies on a card."""
    footprint = Footprint(
        total_bytes=mib * MIB, weights_bytes=0, private_bytes=mib * MIB, source=FootprintSource.ESTIMATE, gpu_bytes=gib * GIB
    )
    return model(name, footprint=footprint)


def measured(rig: Rig, name: str) -> Measured | None:
    """Return what the ledger knows of a model."""
    spec = rig.pool.models[name]  # type: ignore[index]  # names are texts
    return rig.pool.meter.ledger.find(rig.pool.host.ledger_key(spec))


@pytest.fixture
async def jetson(request: pytest.FixtureRequest, machine: Machine) -> Machine:
    """Put the recorded Jetson under the test's engine."""
    machine.__init__(device(request.param))  # type: ignore[misc]  # the fixture ends its processes
    return machine


@pytest.mark.parametrize("jetson", JETSONS, indirect=True)
async def test_what_the_gpu_takes_of_the_box_is_ours_and_shrinks_no_budget(folder: Path, jetson: Machine) -> None:
    """Models that take all of the budget on the GPU, one after the other, are not mistaken for somebody else's."""
    jetson.others_leave_bytes = FLOOR_BYTES + BUDGET_BYTES
    jetson.load_s = dict.fromkeys(("a", "b"), 3.0)
    jetson.gpu_needs = dict.fromkeys(("a", "b"), 48 * MIB)
    async with running(folder, [on_jetson("a", mib=50), on_jetson("b", mib=50)], machine=jetson) as rig:
        least_bytes = BUDGET_BYTES
        for name in ("a", "b"):
            lease = rig.ask(name)
            while rig.ear.answer(lease) is None:
                least_bytes = min(least_bytes, rig.pool.budget_bytes)
                await asyncio.sleep(0.02)
            rig.release(lease)
        await asyncio.sleep(3 * POLL_S)

        assert least_bytes == rig.pool.budget_bytes == BUDGET_BYTES
        assert {"a", "b"} == jetson.running
        assert (0, 48 * MIB) == (rig.pool.lookout.stopped, rig.pool.private_bytes(rig.pool.models["a"].name))  # type: ignore[index]


@pytest.mark.parametrize("jetson", JETSONS, indirect=True)
async def test_others_on_a_jetson_are_still_seen(folder: Path, jetson: Machine) -> None:
    """What another program takes comes off the budget, to the byte, beside a worker that was seen at rest."""
    jetson.gpu_needs = {"a": 30 * MIB}
    jetson.load_s = {"a": 1.0}
    async with running(folder, [on_jetson("a", mib=40)], machine=jetson) as rig:
        await rig.serve("a")
        await asyncio.sleep(3 * POLL_S)
        jetson.others_leave_bytes = FLOOR_BYTES + 64 * MIB
        await reaches(
            "the budget is what others leave", lambda: rig.pool.budget_bytes == 64 * MIB, patience_s=2 * LONGEST_PAUSE_S
        )

        assert {"a"} == jetson.running


@pytest.mark.parametrize("jetson", JETSONS, indirect=True)
async def test_a_jetson_s_measurement_has_the_gpu_s_memory_in_it(folder: Path, jetson: Machine) -> None:
    """What was held for the GPU and beside it is one figure, as there is one memory; nothing of it is on a card."""
    jetson.gpu_needs = {"a": 30 * MIB}
    async with running(folder, [on_jetson("a", mib=40)], machine=jetson) as rig:
        await rig.serve("a")
        jetson.allocated(OWNER, rig.pool.models["a"].name, 5 * MIB)  # type: ignore[index]
        await asyncio.sleep(3 * POLL_S)
        found = measured(rig, "a")

        assert found is not None
        assert (35 * MIB, 0) == (found.anon_bytes, found.gpu_bytes)


@pytest.mark.parametrize("jetson", ["orin-nano-jp6.2.2"], indirect=True)
async def test_what_nobody_can_see_is_not_measured(folder: Path, jetson: Machine) -> None:
    """A driver that tells nothing leaves the estimate as it is, and our own load still shrinks no budget."""
    jetson.gpu_blind = True
    jetson.others_leave_bytes = FLOOR_BYTES + BUDGET_BYTES
    jetson.gpu_needs = {"a": 48 * MIB}
    async with running(folder, [on_jetson("a", mib=50)], machine=jetson) as rig:
        await rig.serve("a")
        jetson.allocated(OWNER, rig.pool.models["a"].name, 1 * MIB)  # type: ignore[index]
        await asyncio.sleep(5 * POLL_S)
        found = measured(rig, "a")

        assert found is not None
        assert (0, 0) == (found.anon_bytes, found.gpu_bytes)
        assert BUDGET_BYTES == rig.pool.budget_bytes


@pytest.mark.parametrize("jetson", ["orin-nano-jp7.2"], indirect=True)
async def test_the_end_of_a_worker_is_its_memory_s_and_what_stays_away_is_said(folder: Path, jetson: Machine) -> None:
    """A leak of the driver is waited for, for a bounded time, and then told in the health report until it is over."""
    jetson.gpu_needs = {"a": 30 * MIB}
    async with running(folder, [on_jetson("a", mib=40)], machine=jetson) as rig:
        clock = asyncio.get_running_loop().time
        for leaks, said in ((False, 0), (True, 1), (False, 0)):
            await rig.serve("a")
            await asyncio.sleep(3 * POLL_S)
            jetson.leaks = {"a"} if leaks else set()
            began_s = clock()
            await rig.pool.unload(rig.pool.models["a"].name, force=True)  # type: ignore[index]
            took_s = clock() - began_s

            assert said == len(rig.pool.memory_stuck)
            assert (took_s > GPU_LIMIT_S) == leaks
            assert took_s < 3 * GPU_LIMIT_S
            assert not leaks or "30 MiB for it" in rig.pool.memory_stuck[0]


@pytest.fixture
async def card(machine: Machine) -> Machine:
    """Put the recorded box with one card under the test's engine."""
    machine.__init__(device("discrete-1", cuda="13.0"))  # type: ignore[misc]  # the fixture ends its processes
    return machine


async def test_a_worker_on_a_card_is_measured_there(folder: Path, card: Machine) -> None:
    """Its figure is the card's; the box's memory keeps its own."""
    card.gpu_needs = {"a": 5 * GIB}
    async with running(folder, [on_card("a", gib=6)], machine=card, knobs={"cards": CARD_BUDGET}) as rig:
        await rig.serve("a")
        card.allocated(OWNER, rig.pool.models["a"].name, 7 * MIB)  # type: ignore[index]
        await asyncio.sleep(3 * POLL_S)
        found = measured(rig, "a")

        assert found is not None
        assert (7 * MIB, 5 * GIB) == (found.anon_bytes, found.gpu_bytes)
        assert CARD_BUDGET == rig.pool.budget.left.cards


async def test_a_card_that_is_full_is_heard_from_the_worker(folder: Path, card: Machine) -> None:
    """It crashes and says so in its log: that is want of memory, its caller is told, and more is kept for it the next time."""
    card.gpu_needs = {"a": 30 * GIB}
    async with running(folder, [on_card("a", gib=6)], machine=card, knobs={"cards": CARD_BUDGET, "max_failures": 1}) as rig:
        told = await rig.answered(rig.ask("a"))
        found = measured(rig, "a")
        ended = rig.pool.scheduler.record(rig.pool.models["a"].name).last_exit  # type: ignore[index]

        assert isinstance(told, Refused)
        assert ended is not None
        assert (ExitCause.OUT_OF_GPU_MEMORY, "CUDA error: out of memory") == (ended.cause, ended.detail)
        assert found is not None
        assert (6 * GIB, 0) == (found.gpu_out_of_memory_bytes, found.out_of_memory_bytes)


@pytest.mark.parametrize("jetson", ["orin-nano-jp6.2.2"], indirect=True)
async def test_a_jetson_that_is_full_needs_more_of_its_one_memory(folder: Path, jetson: Machine) -> None:
    """The figure that is raised is the only one there is."""
    jetson.cards = {0: 10 * MIB}  # so much it gives, and no more
    jetson.gpu_needs = {"a": 30 * MIB}
    async with running(folder, [on_jetson("a", mib=40)], machine=jetson, knobs={"max_failures": 1}) as rig:
        await rig.answered(rig.ask("a"))
        found = measured(rig, "a")

        assert found is not None
        assert (0, 40 * MIB) == (found.gpu_out_of_memory_bytes, found.out_of_memory_bytes)


async def test_what_others_hold_of_a_card_is_kept_from_models_while_they_do(folder: Path, card: Machine) -> None:
    """Before the first load and between loads: what does not fit any more is refused for now, and fits when they have gone."""
    card.others_on_cards = {0: 14 * GIB}
    card.gpu_needs = {"small": 8 * GIB, "large": 11 * GIB}
    models = [on_card("small", gib=8), on_card("large", gib=11)]
    async with running(folder, models, machine=card, knobs={"cards": CARD_BUDGET}) as rig:
        await asyncio.sleep(CALM_S + 2 * POLL_S)
        refused = await rig.answered(rig.ask("large"))
        await rig.serve("small")
        card.others_on_cards = {}
        await asyncio.sleep(CALM_S + 2 * POLL_S)
        granted = await rig.answered(rig.ask("large"))

        assert isinstance(refused, Refused)
        assert (Reason.MEMORY_SHORT, True) == (refused.reason, "GPU 0" in refused.message)
        assert isinstance(granted, Granted)


@pytest.mark.parametrize("error", [EngineError, None])
async def test_an_engine_that_does_not_tell_processes_costs_a_figure_and_nothing_else(
    folder: Path, card: Machine, error: type[EngineError] | None
) -> None:
    """Workers are served and stopped as ever, and what could not be seen is not measured."""
    fault = Fault(
        verb=Verb.PIDS,
        times=10_000,
        error=None if error is None else lambda: EngineError("a fault on purpose"),
        delay_s=0.0 if error else 7.0,
    )
    card.gpu_needs = {"a": 5 * GIB, "b": 5 * GIB}
    models = [on_card("a", gib=12), on_card("b", gib=12)]
    async with running(folder, models, machine=card, knobs={"cards": CARD_BUDGET}, faults=[fault]) as rig:
        for name in ("a", "b", "a"):
            await rig.serve(name)
        await rig.converges()

        assert {"a"} == card.running
        assert rig.driver.calls[Verb.PIDS]
        assert error is None or (found := measured(rig, "a")) is None or found.gpu_bytes == 0


async def test_what_is_there_once_more_on_each_card_is_not_measured_twice(folder: Path, machine: Machine) -> None:
    """A model that is split holds the driver's part on every card, and its figure has it once."""
    machine.__init__(device("discrete-2"))  # type: ignore[misc]  # the fixture ends its processes
    machine.gpu_needs = {"wide": 30 * GIB}
    cards = (OnCard(0, 20 * GIB), OnCard(1, 20 * GIB))
    machine.cards = dict(cards)
    wide = on_card("wide", gib=29)
    spread = replace(wide.footprint, gpu_each_bytes=2 * GIB, spread=Spread(counts=(2,)))
    async with running(folder, [replace(wide, footprint=spread)], machine=machine, knobs={"cards": cards}) as rig:
        await rig.serve("wide")
        await asyncio.sleep(3 * POLL_S)
        found = measured(rig, "wide")

        assert found is not None
        assert 28 * GIB == found.gpu_bytes


@pytest.mark.parametrize("jetson", ["orin-nano-jp6.2.2"], indirect=True)
@pytest.mark.parametrize(("free_bytes", "dropped"), [(0, [["a"]]), (GIB, [])])
async def test_a_load_on_a_jetson_finds_free_pages(
    folder: Path, jetson: Machine, free_bytes: int, dropped: list[list[str]]
) -> None:
    """Others' weights leave the page cache before it begins, its own do not, and with pages enough none do."""
    jetson.free_bytes = free_bytes
    async with running(folder, [on_jetson("a", mib=60), on_jetson("b", mib=60)], machine=jetson) as rig:
        for name in ("a", "b"):
            await rig.serve(name)

        assert dropped == jetson.dropped
