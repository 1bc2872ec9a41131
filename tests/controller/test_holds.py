"""What is to come is started while its place is still taken, and begins when that is free, whatever happens meanwhile."""

import asyncio
from pathlib import Path

import pytest

from controller.reconcile import Stop
from controller.spec import ModelName
from controller.state import Status
from controller.store import workdirs
from tests.controller.rig import BUDGET_BYTES, Machine, model, reaches, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

A, B = ModelName("a"), ModelName("b")
LARGE = 80
"""Mebibytes of which only one fits."""


async def test_the_next_one_waits_at_the_door_while_the_last_one_answers(folder: Path, machine: Machine) -> None:
    """Its container runs beside a busy worker and takes nothing; its engine begins only when that one is gone."""
    async with running(folder, [model("a", mib=LARGE), model("b", mib=LARGE)], machine=machine) as rig:
        lease = await rig.granted("a")
        waiting = rig.ask("b")
        await reaches("b is held", lambda: rig.pool.workers.get(B) is not None and rig.pool.workers[B].status is Status.HELD)

        assert {"a", "b"} == machine.running
        assert ["a"] == machine.starts

        rig.release(lease)
        await rig.answered(waiting)

        assert ["a", "b"] == machine.starts
        assert {"b"} == machine.held
        assert machine.most_bytes <= BUDGET_BYTES
        (load,) = (
            row for row in rig.pool.meter.journal.performance(rig.pool.clock(), window_s=900.0)["recent_loads"] if row["held"]
        )
        assert "b" == load["model"]
        assert load["parts"]["drain_s"] >= 0


async def test_whoever_waits_for_nobody_is_sent_away(folder: Path, machine: Machine) -> None:
    """When its last caller leaves, the container that was started for it is ended, and its engine has never begun."""
    async with running(folder, [model("a", mib=LARGE), model("b", mib=LARGE)], machine=machine) as rig:
        await rig.granted("a")
        waiting = rig.ask("b")
        await reaches("b is held", lambda: rig.pool.workers.get(B) is not None and rig.pool.workers[B].status is Status.HELD)
        rig.release(waiting)
        await reaches("b is ended", lambda: machine.running == {"a"})

        assert ["a"] == machine.starts


async def test_a_held_container_of_a_controller_that_is_gone_is_ended(folder: Path, machine: Machine) -> None:
    """A new controller knows it by its FIFO, does not take it for a worker, and ends what nobody waits for."""
    async with running(folder, [model("a", mib=LARGE), model("b", mib=LARGE)], machine=machine) as rig:
        await rig.granted("a")
        rig.ask("b")
        await reaches("b is held", lambda: rig.pool.workers.get(B) is not None and rig.pool.workers[B].status is Status.HELD)
        assert workdirs.is_held(rig.pool._specs[B])
    async with running(folder, [model("a", mib=LARGE), model("b", mib=LARGE)], machine=machine) as rig:
        await reaches("b is ended", lambda: machine.running == {"a"})

        assert {A} == rig.pool.scheduler.desired
        assert ["a"] == machine.starts


async def test_one_that_dies_at_the_door_is_started_when_there_is_room(folder: Path, machine: Machine) -> None:
    """It is not held a second time for the same decision, and its caller is served."""
    async with running(folder, [model("a", mib=LARGE), model("b", mib=LARGE)], machine=machine) as rig:
        lease = await rig.granted("a")
        waiting = rig.ask("b")
        await reaches("b is held", lambda: rig.pool.workers.get(B) is not None and rig.pool.workers[B].status is Status.HELD)
        rig.memory.crash(B)
        await reaches("b is seen to be gone", lambda: rig.pool.workers[B].status is Status.STOPPED)
        await asyncio.sleep(5.0)

        assert {"a"} == machine.running
        assert not any(isinstance(acting.action, Stop) for acting in rig.pool.fleet.acting.values())

        rig.release(lease)
        await rig.answered(waiting)

        assert ["a", "b"] == machine.starts
