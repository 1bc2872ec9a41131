"""The catalog and the budget change, and operators unload."""

import pytest

from controller.errors import Reason, RefusedError
from controller.scheduler import Revocation
from controller.spec import Tier
from controller.state import Status
from tests.core.box import A, B, C, box, hold, load, settle
from tests.core.world import model_spec


def test_a_model_that_was_removed_goes_when_its_last_caller_does() -> None:
    """A folder that disappears ends no answer."""
    world = box(model_spec("a"))
    lease = hold(world, A)
    world.register([])
    world.turn()
    assert world.scheduler.desired == {A}
    world.leave(lease, served=True)
    world.turn()

    assert world.scheduler.desired == set()
    assert world.engine[A].status is Status.STOPPING


def test_a_changed_model_is_loaded_anew_once_nobody_uses_it() -> None:
    """Running answers go on, newcomers wait for the new one and get it."""
    world = box(model_spec("a", parallel=2), model_spec("b"))
    lease = hold(world, A)
    run = world.engine[A].run
    world.register([model_spec("a", parallel=2, version=1), model_spec("b")])
    newcomer = world.must_ask("a")
    settle(world)
    assert newcomer in world.waiting
    assert world.scheduler.expected_wait_s(A) > 0
    world.leave(lease)
    settle(world, turns=6)

    assert world.held[newcomer].run != run
    assert world.engine[A].spec_hash == world.worker_specs()[A].spec_hash
    world.leave(newcomer)
    settle(world)
    assert world.scheduler.desired == {A}


def test_a_changed_model_whose_stop_was_lost_is_not_used_again() -> None:
    """That it is outdated is forgotten only when its worker is gone."""
    world = box(model_spec("a"))
    load(world, A)
    world.register([model_spec("a", version=1)])
    world.turn(lose=9)
    lease = world.must_ask("a")
    world.turn(lose=9)
    world.turn(lose=9)
    assert lease in world.waiting
    settle(world, turns=6)

    assert lease in world.held
    assert world.engine[A].spec_hash == world.worker_specs()[A].spec_hash


def test_a_smaller_budget_lets_the_least_valuable_idle_go_at_once() -> None:
    """What the budget does not hold any more leaves by value."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"), budget_bytes=3)
    for model in (A, B, C, A, C):
        world.leave(hold(world, model))
    world.set_budget(2)
    world.turn()

    assert world.scheduler.desired == {A, C}
    assert world.scheduler.committed_bytes == 2


def test_a_smaller_budget_drains_what_is_busy() -> None:
    """Callers are served to the end, newcomers wait, and pinned models hold out longest."""
    world = box(model_spec("a", parallel=2), model_spec("b", pinned=True), budget_bytes=2, quantum_s=10.0)
    settle(world)
    lease = hold(world, A)
    world.set_budget(1)
    world.turn()
    assert world.scheduler.drains[A].claimant is None
    newcomer = world.must_ask("b"), world.must_ask("a", deadline_s=100.0)
    world.turn()
    assert newcomer[0] in world.held
    assert newcomer[1] in world.waiting
    world.now += 10.0
    world.leave(lease)
    world.turn()

    assert world.scheduler.desired == {B}


def test_where_the_idle_are_not_enough_they_go_at_once_and_the_busy_are_drained() -> None:
    """Memory is wanted now: what can go does not wait for what cannot, and pinned models stay as long as it fits them."""
    world = box(model_spec("a", size=4), model_spec("b", size=2), model_spec("c", pinned=True), budget_bytes=7)
    settle(world)
    lease = hold(world, A)
    world.leave(hold(world, B))
    world.set_budget(2)
    world.turn()
    desired, drained = set(world.scheduler.desired), set(world.scheduler.drains)
    world.leave(lease)
    settle(world)

    assert ({A, C}, {A}) == (desired, drained)
    assert world.scheduler.desired == {C}


def test_a_worker_is_sacrificed_whoever_uses_it() -> None:
    """Its callers are told why, its leases are gone, and nobody brings it back by itself."""
    world = box(model_spec("a", parallel=2), model_spec("b"), budget_bytes=2)
    leases = {hold(world, A), hold(world, A)}
    answers = world.sacrifice(A)
    left = set(world.scheduler.leases)
    settle(world)

    assert {(lease, A, "memory_short") for lease in leases} == {(a.lease, a.model, getattr(a, "cause", "")) for a in answers}
    assert not left
    assert world.scheduler.desired == set()


def test_a_budget_smaller_than_what_is_pinned_holds_against_it_too() -> None:
    """The budget is a promise to the box, pinning is only a wish."""
    world = box(model_spec("a", pinned=True, size=2), model_spec("b", pinned=True), budget_bytes=3)
    settle(world)
    world.set_budget(1)
    settle(world)

    assert world.scheduler.committed_bytes <= 1
    assert world.held_bytes <= 1


def test_a_model_that_waits_for_memory_it_can_no_longer_have_lets_go() -> None:
    """Nobody is drained for a model that is not loaded yet and never will be: the budget shrank under it."""
    world = box(model_spec("a", size=5), budget_bytes=8)
    lease = world.must_ask("a")
    world.turn()
    world.set_budget(4)
    settle(world)

    assert [(r.lease, r.reason) for r in world.refusals] == [(lease, Reason.NEVER_FITS)]
    assert world.scheduler.desired == set()


def test_a_model_whose_size_changed_while_it_ran_is_counted_as_it_runs() -> None:
    """A running worker takes what its label says, whatever the catalog says now."""
    world = box(
        model_spec("a", size=4, tier=Tier.SMALL), model_spec("b", tier=Tier.SMALL), model_spec("c", tier=Tier.SMALL),
        budget_bytes=6,
    )  # fmt: skip
    settle(world)
    world.register([model_spec("a", version=1, tier=Tier.SMALL), *(model_spec(n, tier=Tier.SMALL) for n in "bc")])
    world.turn()
    settle(world, turns=6)

    assert world.scheduler.committed_bytes == 3


def test_a_model_that_runs_larger_than_it_would_today_makes_way_for_what_does_not_fit_beside_it() -> None:
    """A footprint that was corrected while the model runs does not make room before it has gone."""
    world = box(model_spec("a", size=4), model_spec("b", size=3), budget_bytes=6)
    load(world, A)
    world.register([model_spec("a", size=1), model_spec("b", size=3)])
    hold(world, B)

    assert world.scheduler.desired == {B}


def test_busy_models_are_not_unloaded_unless_forced() -> None:
    """An unload is refused while somebody is being answered; by force it ends those answers."""
    world = box(model_spec("a"))
    lease = hold(world, A)
    with pytest.raises(RefusedError, match="a is answering 1 callers") as caught:
        world.scheduler.unload(A, force=False)
    assert caught.value.reason is Reason.CONFLICT
    assert world.unload("a", force=True)

    assert world.revocations == [Revocation(lease=lease, model=A, cause="unloaded")]
    assert not world.scheduler.leases
    assert not world.scheduler.record(A).leases
