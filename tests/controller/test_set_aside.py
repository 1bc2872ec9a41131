"""Memory that is set aside: models make room for it, callers hear that it is for a while, and it comes back."""

from pathlib import Path

import pytest

from controller.charges import NOTHING, Charge
from controller.errors import Reason
from controller.units import MIB
from controller.wire import Refused
from tests.controller.rig import Machine, model, reaches, running

pytestmark = pytest.mark.looptime


async def test_models_make_room_and_come_back(folder: Path, machine: Machine) -> None:
    """What does not fit beside it is unloaded, is refused for now and not for ever, and is served when it is given back."""
    async with running(folder, [model("large", mib=60), model("small", mib=20)], machine=machine) as rig:
        await rig.serve("large")
        rig.pool.set_aside("the build of x", Charge(total_bytes=70 * MIB))
        await reaches("large is gone", lambda: "large" not in machine.running)
        refused = await rig.answered(rig.ask("large"))
        await rig.serve("small")
        rig.pool.set_aside("the build of x", NOTHING)
        await rig.serve("large")

        assert isinstance(refused, Refused)
        assert (Reason.UNAVAILABLE, True) == (refused.reason, bool(refused.retry_after_s))
        assert "70 MiB for the build of x" in refused.message
        assert rig.pool.budget_bytes == 100 * MIB


async def test_a_waiting_caller_hears_the_same(folder: Path, machine: Machine) -> None:
    """Whoever waits when the memory is set aside is told that it is for a while."""
    async with running(folder, [model("busy", mib=50), model("large", mib=60)], machine=machine) as rig:
        held = await rig.granted("busy")
        waiting = rig.ask("large")
        rig.pool.set_aside("the build of x", Charge(total_bytes=45 * MIB))
        answer = await rig.answered(waiting)
        rig.release(held)

        assert isinstance(answer, Refused)
        assert Reason.UNAVAILABLE is answer.reason


async def test_a_model_beyond_the_whole_budget_never_fits(folder: Path, machine: Machine) -> None:
    """That memory is set aside makes no hope where there is none."""
    async with running(folder, [model("giant", mib=101)], machine=machine) as rig:
        rig.pool.set_aside("the build of x", Charge(total_bytes=10 * MIB))
        answer = await rig.answered(rig.ask("giant"))

        assert isinstance(answer, Refused)
        assert Reason.NEVER_FITS is answer.reason
