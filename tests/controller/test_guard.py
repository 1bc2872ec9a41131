"""A program beside the workers takes memory: who goes, who is told, and that it all comes back."""

from pathlib import Path

import pytest

from controller.errors import Reason
from controller.guard import CALM_S, LONGEST_PAUSE_S, Level
from controller.units import MIB
from controller.wire import Refused
from tests.controller.rig import BUDGET_BYTES, FLOOR_BYTES, OWNER, Machine, Rig, model, reaches, running

pytestmark = pytest.mark.looptime


@pytest.fixture(autouse=True)
def _slow_loads(machine: Machine) -> None:
    """Let every load take a second: a model that costs nothing to load is worth nothing, whatever its priority."""
    machine.load_s = dict.fromkeys(("cheap", "dear", "third", "low", "mid", "high", "busy", "idle"), 1.0)


def leave(machine: Machine, mib: int) -> None:
    """Let other programs take all but so much, the floor included."""
    machine.others_leave_bytes = FLOOR_BYTES + mib * MIB


async def shrinks(rig: Rig, mib: int) -> None:
    """Wait until the budget is what others leave."""
    await reaches(f"the budget is {mib} MiB", lambda: rig.pool.budget_bytes == mib * MIB, patience_s=LONGEST_PAUSE_S + 0.1)


async def test_idle_workers_go_by_value_and_come_back_when_asked_for(folder: Path, machine: Machine) -> None:
    """The least valuable idle one is stopped, what still fits stays, and when memory is back so is the budget."""
    models = [model("cheap", mib=30), model("dear", mib=30, priority=5), model("third", mib=30, priority=5)]
    async with running(folder, models, machine=machine) as rig:
        for name in ("cheap", "dear", "third"):
            await rig.serve(name)
        leave(machine, 64)
        await shrinks(rig, 64)
        await reaches("one is gone", lambda: len(machine.running) == 2)
        level, kept = rig.pool.lookout.guard.verdict.level, set(machine.running)
        await rig.serve("dear")
        machine.others_leave_bytes = 10 * BUDGET_BYTES
        await reaches("the budget is back", lambda: rig.pool.budget_bytes == BUDGET_BYTES, patience_s=CALM_S + LONGEST_PAUSE_S)
        await rig.serve("cheap")

        assert (Level.SHORT, {"dear", "third"}) == (level, kept)
        assert (1, 0) == (rig.pool.lookout.stopped, rig.pool.lookout.ended)
        assert {"cheap", "dear", "third"} == machine.running
        await rig.converges()


async def test_what_does_not_fit_what_is_left_is_refused_for_now(folder: Path, machine: Machine) -> None:
    """New callers and waiting ones hear 503 with the figures and a time to come again, and what fits is served."""
    models = [model("busy", mib=50), model("large", mib=80), model("small", mib=20)]
    async with running(folder, models, machine=machine) as rig:
        held, waiting = await rig.granted("busy"), rig.ask("large")
        leave(machine, 64)
        told = [await rig.answered(waiting), await rig.answered(rig.ask("large"))]
        rig.release(held)
        await rig.serve("small")

        for answer in told:
            assert isinstance(answer, Refused)
            assert (Reason.MEMORY_SHORT, True) == (answer.reason, bool(answer.retry_after_s))
            assert "64 MiB instead of 100 MiB" in answer.message
        never = await rig.answered(rig.ask("none"))
        assert isinstance(never, Refused)
        assert Reason.UNKNOWN_MODEL is never.reason


async def test_a_busy_worker_is_let_finish_while_the_floor_holds(folder: Path, machine: Machine) -> None:
    """It is drained, not cut: its caller ends by itself, and then it goes."""
    async with running(folder, [model("busy", mib=60), model("idle", mib=30)], machine=machine) as rig:
        await rig.serve("idle")
        held = await rig.granted("busy")
        leave(machine, 32)
        await reaches("the idle one goes at once", lambda: machine.running == {"busy"}, patience_s=LONGEST_PAUSE_S + 0.5)
        cut = rig.ear.revoked(held)
        rig.release(held)
        await reaches("the busy one goes when it is done", lambda: not machine.running, patience_s=1.0)

        assert cut is None
        assert (2, 0) == (rig.pool.lookout.stopped, rig.pool.lookout.ended)


async def test_below_the_floor_the_least_important_busy_worker_is_ended_and_its_caller_told(
    folder: Path, machine: Machine
) -> None:
    """One at a time, idle ones first, and no more of them than it takes."""
    models = [model("low", mib=30), model("high", mib=30, priority=5), model("idle", mib=30, priority=9)]
    async with running(folder, models, machine=machine) as rig:
        await rig.serve("idle")
        leases = {name: await rig.granted(name) for name in ("high", "low")}
        for name in ("low", "high", "idle"):
            machine.allocated(OWNER, name, 30 * MIB)
        machine.others_leave_bytes = FLOOR_BYTES + 35 * MIB
        said = await rig.revoked(leases["low"])
        await reaches("both are gone", lambda: machine.running == {"high"}, patience_s=1.0)
        rig.release(leases["high"])

        assert ("memory_short", True) == (said.cause, "other programs" in said.message)
        assert rig.ear.revoked(leases["high"]) is None
        assert (1, 1) == (rig.pool.lookout.stopped, rig.pool.lookout.ended)


async def test_a_load_of_our_own_shrinks_nothing(folder: Path, machine: Machine) -> None:
    """Models that take all of the budget privately, one after the other, are not mistaken for somebody else's."""
    leave(machine, 100)
    async with running(folder, [model("a", mib=50), model("b", mib=50)], machine=machine) as rig:
        for name in ("a", "b", "a", "b"):
            await rig.serve(name)
            machine.allocated(OWNER, name, 50 * MIB)
            await reaches("it was looked at", lambda m=name: rig.pool.lookout.usage(m), patience_s=2 * LONGEST_PAUSE_S)

        assert BUDGET_BYTES == rig.pool.budget_bytes
        assert {"a", "b"} == machine.running
        assert 0 == rig.pool.lookout.stopped


async def test_stalls_with_nothing_to_spare_cost_the_least_valuable(folder: Path, machine: Machine) -> None:
    """Everything fits by the figures, and the box stands still: one goes, and the rest is left alone when that helped."""
    leave(machine, 100)
    models = [model("low", mib=30), model("mid", mib=30, priority=2), model("high", mib=30, priority=5)]
    async with running(folder, models, machine=machine) as rig:
        for name in ("low", "mid", "high"):
            await rig.serve(name)

        def stalls() -> bool:
            machine.stalled_s += 0.05
            return len(machine.running) == 2

        await reaches("one is gone", stalls, patience_s=20.0)
        await rig.converges()

        assert {"mid", "high"} == machine.running
