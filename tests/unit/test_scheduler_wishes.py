"""Pinned, small and large models: who comes and goes without being asked for."""

from controller.errors import Reason
from controller.planner import MAX_RESIDENTS
from controller.spec import ModelName, Tier
from controller.state import Status
from tests.core.box import A, B, C, box, crash, hold, load, settle
from tests.core.world import model_spec


def test_pinned_and_small_models_are_loaded_without_being_asked_for() -> None:
    """Pinned ones come first, then small ones by priority and size, where they fit."""
    world = box(
        model_spec("a", size=2, tier=Tier.SMALL),
        model_spec("b", size=2, tier=Tier.SMALL, priority=1),
        model_spec("c", size=1, pinned=True),
        model_spec("d", size=1),
        budget_bytes=4,
    )
    world.turn()

    assert world.scheduler.desired == {B, C}


def test_small_models_do_not_come_while_somebody_waits() -> None:
    """Memory that a caller is going to need is not filled with wishes."""
    specs = [model_spec("a", size=2), model_spec("b", size=2)]
    world = box(*specs, budget_bytes=3)
    busy = hold(world, A)
    world.must_ask("b")
    world.register([*specs, model_spec("c", tier=Tier.SMALL)])
    settle(world)
    assert world.scheduler.desired == {A}
    world.leave(busy)
    settle(world)

    assert world.scheduler.desired == {B, C}


def test_small_models_do_not_come_where_all_places_are_taken() -> None:
    """A wish respects the number of workers, not only their bytes."""
    names = [ModelName(f"m{i:02}") for i in range(MAX_RESIDENTS)]
    specs = [model_spec(n, size=0) for n in names]
    world = box(*specs, budget_bytes=10)
    for name in names:
        world.must_ask(name, load_only=True)
    settle(world)
    world.register([*specs, model_spec("a", tier=Tier.SMALL)])
    settle(world)

    assert world.scheduler.desired == set(names)


def test_a_pinned_model_comes_at_the_cost_of_others() -> None:
    """A pinned model that is not there claims memory before all callers, busy memory too."""
    world = box(model_spec("a"), model_spec("b"))
    busy = hold(world, A)
    caller = world.must_ask("b")
    world.register([model_spec("a"), model_spec("b"), model_spec("c", pinned=True)])
    world.turn()
    assert world.scheduler.drains[A].claimant == C
    assert world.scheduler.expected_wait_s(A) > 0
    world.must_ask("a")
    world.now += 20.0
    world.leave(busy)
    settle(world)

    assert world.scheduler.desired == {C}
    assert caller not in world.held


def test_a_pinned_model_goes_only_by_force_and_stays_away_until_asked_for() -> None:
    """An operator's word counts more than a wish, until somebody asks again."""
    world = box(model_spec("a", pinned=True), model_spec("b", tier=Tier.SMALL), budget_bytes=2)
    settle(world)
    assert not world.unload("a", force=False)
    assert world.unload("a", force=True)
    assert world.unload("b", force=False)
    settle(world)
    assert world.scheduler.desired == set()
    world.leave(hold(world, A))

    assert world.scheduler.desired == {A}


def test_a_pinned_model_is_never_evicted() -> None:
    """However little it is used, it stays."""
    world = box(model_spec("a", pinned=True), model_spec("b"), model_spec("c"), budget_bytes=2)
    for model in (B, C, B, C):
        load(world, model)

    assert world.scheduler.desired == {A, C}


def test_of_two_pinned_models_that_do_not_fit_the_more_important_comes() -> None:
    """Pinned models claim in the order of their priority, and the callers of the other are told."""
    world = box(model_spec("a", pinned=True), model_spec("b", pinned=True, priority=1))
    lease = world.must_ask("a")
    settle(world)

    assert world.scheduler.desired == {B}
    assert [(r.lease, r.reason) for r in world.refusals] == [(lease, Reason.NEVER_FITS)]


def test_wishes_wait_for_their_pause_too() -> None:
    """A small or pinned model that crashes is not started again at once."""
    for spec in (model_spec("a", tier=Tier.SMALL), model_spec("a", pinned=True)):
        world = box(spec, backoff_s=5.0)
        crash(world, A)
        world.now += 4.9
        world.turn()
        assert world.scheduler.desired == set()
        world.now += 0.1
        world.turn()
        assert world.scheduler.desired == {A}


def test_a_large_model_goes_when_nobody_uses_it() -> None:
    """An idle model of tier `large` is unloaded; pinned ones and other tiers stay."""
    world = box(
        model_spec("a", tier=Tier.LARGE), model_spec("b", tier=Tier.LARGE, pinned=True), model_spec("c"),
        budget_bytes=3, idle_unload_s=60.0,
    )  # fmt: skip
    load(world, C)
    lease = hold(world, A)
    world.now += 100.0
    world.leave(lease)
    world.now += 60.0
    world.turn()
    assert world.scheduler.desired == {A, B, C}
    world.now += 0.1
    caller = world.must_ask("a", load_only=True)
    world.engine[A].status = Status.STARTING
    world.turn()
    assert world.scheduler.desired == {A, B, C}
    world.leave(caller)
    world.turn()

    assert world.scheduler.desired == {B, C}


def test_a_large_model_is_not_idle_while_it_loads() -> None:
    """A long load does not count as idleness, nor does it after a restart."""
    world = box(model_spec("a", tier=Tier.LARGE), idle_unload_s=60.0)
    world.must_ask("a", load_only=True)
    world.turn()
    world.turn()
    world.take_effect(A)
    world.restart()
    world.now += 59.0
    world.turn()
    world.now += 59.0
    world.settle()
    world.turn()
    world.now += 59.0
    world.turn()

    assert world.scheduler.desired == {A}
