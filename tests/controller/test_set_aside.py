"""Memory that is set aside: models make room for it, callers hear that it is for a while, and it comes back."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.charges import NOTHING, Charge, OnCard
from controller.errors import Reason
from controller.spec import ModelName, ModelSpec
from controller.tenancy import Tenancy
from controller.units import GIB, MIB
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


def on_card(name: str, *, gib: int, pinned: bool = False) -> ModelSpec:
    """Make a model that takes so much of a card."""
    made = model(name, mib=10)
    return replace(made, footprint=replace(made.footprint, gpu_bytes=gib * GIB), pinned=pinned)


CARDS = (OnCard(0, 8 * GIB), OnCard(1, 8 * GIB))


async def test_a_build_gets_a_whole_card(folder: Path, machine: Machine) -> None:
    """The one that is free; who lay on it would leave, and what needs it is refused for now."""
    models = [on_card("a", gib=6), on_card("b", gib=6)]
    async with running(folder, models, machine=machine, knobs={"cards": CARDS}) as rig:
        tenancy = Tenancy(rig.pool)
        held = await rig.granted("a")
        here = rig.pool.workers[ModelName("a")].cards[0].card
        card = tenancy.free_card()
        assert card == OnCard(1 - here, 8 * GIB)
        needed = Charge(total_bytes=10 * MIB, cards=(card,))
        assert tenancy.may_set_aside(needed)
        tenancy.set_aside("the build of x", needed)
        waiting = rig.ask("b")
        await reaches("a gives way when it is free", lambda: bool(rig.pool.scheduler.drains))
        assert not tenancy.is_overdrawn
        rig.release(held)
        await rig.answered(waiting)
        assert rig.pool.workers[ModelName("b")].cards == (OnCard(here, 6 * GIB),)

        tenancy.set_aside("the build of x", NOTHING)
        await rig.serve("a")
        assert {w.cards[0].card for w in rig.pool.workers.values() if w.holds} == {0, 1}


async def test_who_lies_on_the_card_of_a_build_leaves_it(folder: Path, machine: Machine) -> None:
    """The build waits until it has; and what fits nowhere else is told that it is for a while."""
    async with running(folder, [on_card("a", gib=6)], machine=machine, knobs={"cards": CARDS[:1]}) as rig:
        tenancy = Tenancy(rig.pool)
        held = await rig.granted("a")
        tenancy.set_aside("the build of x", Charge(total_bytes=0, cards=CARDS[:1]))
        assert tenancy.is_overdrawn
        rig.release(held)
        await reaches("it has left", lambda: not tenancy.is_overdrawn)
        refused = await rig.answered(rig.ask("a"))

        assert isinstance(refused, Refused)
        assert (Reason.UNAVAILABLE, True) == (refused.reason, "8 GiB of GPU 0 for the build of x" in refused.message)


async def test_no_build_gets_the_card_of_a_pinned_model(folder: Path, machine: Machine) -> None:
    """It never leaves; the other card will do, and where there is none the build has to wait."""
    models = [on_card("a", gib=2, pinned=True)]
    async with running(folder, models, machine=machine, knobs={"cards": CARDS}) as rig:
        tenancy = Tenancy(rig.pool)
        await reaches("it is there", lambda: rig.pool.is_resident(ModelName("a")))
        here = rig.pool.workers[ModelName("a")].cards[0].card

        assert tenancy.free_card() == OnCard(1 - here, 8 * GIB)
        assert not tenancy.may_set_aside(Charge(total_bytes=0, cards=(CARDS[here],)))
        tenancy.set_aside("another build", Charge(total_bytes=0, cards=(CARDS[1 - here],)))
        assert tenancy.free_card() is None
