"""The lookout keeps looking at the box, whatever the engine does about its workers."""

import asyncio
from pathlib import Path

import pytest

from controller.drivers.faulty import Fault, Verb
from controller.guard import LONGEST_PAUSE_S
from controller.units import MIB
from tests.controller.rig import FLOOR_BYTES, OWNER, Machine, model, reaches, running

pytestmark = pytest.mark.looptime


async def test_an_engine_that_takes_long_to_tell_does_not_blind_it(folder: Path, machine: Machine) -> None:
    """The box is looked at all the same, and a worker that nobody has told of counts with what it is expected to hold."""
    slow = Fault(verb=Verb.USAGE, times=10_000, delay_s=60.0, error=None)
    async with running(folder, [model("a", mib=30), model("b", mib=30)], machine=machine, faults=[slow]) as rig:
        for name in ("a", "b"):
            machine.load_s[name] = 1.0
            await rig.serve(name)
        machine.others_leave_bytes = FLOOR_BYTES + 32 * MIB
        await reaches("one is gone", lambda: len(machine.running) == 1, patience_s=LONGEST_PAUSE_S + 1.0)

        assert 32 * MIB == rig.pool.budget_bytes


async def test_nothing_is_saved_while_the_box_has_less_than_its_floor(folder: Path, machine: Machine) -> None:
    """What takes its time before a worker ends is done, and is cut short the moment that memory is needed more."""
    async with running(folder, [model("a", mib=30)], machine=machine) as rig:
        began_s = asyncio.get_running_loop().time()
        await rig.pool.lookout.unless_critical(asyncio.sleep(2.0))
        whole_s = asyncio.get_running_loop().time() - began_s
        machine.others_leave_bytes = FLOOR_BYTES - 1
        await rig.pool.lookout.unless_critical(asyncio.sleep(60.0))
        cut_s = asyncio.get_running_loop().time() - began_s - whole_s
        await rig.pool.lookout.unless_critical(asyncio.sleep(60.0))
        not_begun_s = asyncio.get_running_loop().time() - began_s - whole_s - cut_s

        assert 2.0 == pytest.approx(whole_s, abs=0.01)
        assert cut_s <= LONGEST_PAUSE_S + 0.1
        assert 0.0 == pytest.approx(not_begun_s, abs=0.01)


async def test_an_engine_that_fails_to_tell_is_asked_again(folder: Path, machine: Machine) -> None:
    """One lost answer is no reason to stop asking."""
    broken = Fault(verb=Verb.USAGE, times=3)
    async with running(folder, [model("a", mib=30)], machine=machine, faults=[broken]) as rig:
        await rig.serve("a")
        machine.allocated(OWNER, model("a").name, 7 * MIB)
        usage = await reaches("it is told", lambda: rig.pool.lookout.usage(model("a").name), patience_s=6 * LONGEST_PAUSE_S)

        assert 7 * MIB == usage.anon_bytes


async def test_what_one_run_held_is_not_the_next_one_s(folder: Path, machine: Machine) -> None:
    """A worker that has ended holds nothing, and its next run is asked anew."""
    async with running(folder, [model("a", mib=30)], machine=machine) as rig:
        await rig.serve("a")
        machine.allocated(OWNER, model("a").name, 20 * MIB)
        await reaches("it is seen", lambda: (seen := rig.pool.lookout.usage(model("a").name)) and seen.anon_bytes == 20 * MIB)
        machine.crashed(OWNER, model("a").name)
        await rig.serve("a")
        await reaches("it is seen anew", lambda: (seen := rig.pool.lookout.usage(model("a").name)) and seen.anon_bytes == 0)
        await rig.converges()
