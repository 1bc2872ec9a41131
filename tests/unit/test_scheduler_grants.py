"""Who is served next, and what a grant says."""

import pytest

from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK
from controller.scheduler import Grant
from controller.state import LeaseId
from tests.core.box import A, B, box, hold, last, load, settle
from tests.core.world import model_spec


def test_callers_are_served_in_the_order_they_came_as_many_as_fit() -> None:
    """A worker serves `parallel` callers, the oldest first, and the next as soon as one is done."""
    world = box(model_spec("a", parallel=2))
    first, second, third = (world.must_ask("a") for _ in range(3))
    settle(world)
    assert [g.lease for g in world.grants] == [first, second]
    world.leave(second, served=True)
    world.turn()

    assert last(world.grants) == third


def test_a_grant_tells_the_wait_and_what_was_promised() -> None:
    """The grant carries run, wait and bound, so that anyone can check the promise."""
    world = box(model_spec("a", load_s=2.0), quantum_s=10.0, request_limit_s=100.0)
    lease = world.must_ask("a")
    world.turn()
    world.settle()
    world.turn()
    world.now += 4.0
    world.settle()
    world.turn()
    grant = world.grants[0]

    assert grant == Grant(
        lease=lease, model=A, worker=A, run=world.engine[A].run, waited_s=4.0, bound_s=110.0 + 2.0 * LOAD_SLACK + LOAD_MARGIN_S
    )
    assert world.scheduler.leases[lease].since_s == world.now
    assert world.scheduler.leases[lease].limit_s == 100.0


def test_whoever_only_loads_holds_no_lease() -> None:
    """A load is answered when the model is ready, and takes nobody's place."""
    world = box(model_spec("a"))
    hold(world, A)
    lease = world.must_ask("a", load_only=True)
    world.turn()

    assert last(world.grants) == lease
    assert lease not in world.scheduler.leases


def test_a_batch_caller_is_promised_its_patience_on_top() -> None:
    """Who lets others go first is told so."""
    world = box(model_spec("a"))
    lease = {batch: world.must_ask("a", batch=batch) for batch in (True, False)}
    bound_s = {w.lease: w.bound_s for w in world.scheduler.queue()}

    assert bound_s[lease[True]] == pytest.approx(10.0 + 300.0 + LOAD_SLACK + LOAD_MARGIN_S + 30.0)
    assert bound_s[lease[False]] == pytest.approx(2 * (10.0 + 300.0 + LOAD_SLACK + LOAD_MARGIN_S))


def test_a_batch_caller_steps_back_for_a_while_only() -> None:
    """After `batch_patience_s` a batch caller is served by its age."""
    world = box(model_spec("a"), batch_patience_s=30.0)
    busy = hold(world, A)
    batch, eager = world.must_ask("a", batch=True), world.must_ask("a")
    world.now += 29.9
    world.leave(busy)
    world.turn()
    assert last(world.grants) == eager
    world.must_ask("a")
    world.now += 0.1
    world.leave(eager)
    world.turn()

    assert last(world.grants) == batch


def test_a_batch_caller_does_not_step_back_where_its_model_has_to_go() -> None:
    """In the last quantum of a model, age alone counts: or a batch caller would lose its whole turn."""
    world = box(model_spec("a"), model_spec("b"))
    busy = hold(world, A)
    batch = world.must_ask("a", batch=True)
    world.must_ask("a")
    world.must_ask("b")
    world.turn()
    world.leave(busy)
    world.turn()

    assert last(world.grants) == batch


def test_the_queue_can_be_looked_at() -> None:
    """Waiters are listed by age over all models, and counted."""
    world = box(model_spec("a"), model_spec("b"))
    leases = [world.must_ask(m) for m in "aba"]

    assert [w.lease for w in world.scheduler.queue()] == leases
    assert world.scheduler.waiting == 3
    assert world.scheduler.has_callers(B)
    world.leave(leases[1])
    assert not world.scheduler.has_callers(B)
    world.leave(LeaseId("nobody"))
    assert world.scheduler.waiting == 2


def test_a_free_place_is_granted_without_a_turn() -> None:
    """Who finds a resident model with a place left is served where it asks, and whoever comes next waits for the turn."""
    world = box(model_spec("a", parallel=2))
    hold(world, A)
    second, third = world.must_ask("a"), world.must_ask("a")
    world.serve("a")

    assert last(world.grants) == second
    assert third in world.waiting


def test_nothing_is_granted_without_a_turn_on_a_model_that_still_loads() -> None:
    """What the last turn did not see ready is not ready."""
    world = box(model_spec("a"))
    world.must_ask("a")
    world.turn()
    assert world.serve("a") == []
    world.settle()

    assert world.serve("a") == []


def test_nothing_is_granted_without_a_turn_on_what_is_to_be_loaded_anew() -> None:
    """A worker whose description has changed a moment ago serves nobody else."""
    world = box(model_spec("a"))
    load(world, A)
    world.scheduler.outdate([A])
    lease = world.must_ask("a")

    assert world.serve("a") == []
    assert lease in world.waiting


def test_a_lease_that_ends_changes_nothing_where_nobody_waits_and_nothing_leaves() -> None:
    """With a caller in the queue, a drain or a changed description, the next turn has something to do."""
    world = box(model_spec("a"), model_spec("b"))
    hold(world, A)
    assert world.scheduler.is_settled(A)
    claimant = world.must_ask("b")
    assert not world.scheduler.is_settled(A)
    world.turn()
    world.leave(claimant)
    assert world.scheduler.drains
    assert not world.scheduler.is_settled(A)
    world.turn()
    assert world.scheduler.is_settled(A)
    world.scheduler.outdate([A])
    assert not world.scheduler.is_settled(A)


def test_a_lease_of_a_removed_model_that_ends_is_news() -> None:
    """Its worker can go."""
    world = box(model_spec("a"))
    hold(world, A)
    world.register([])

    assert not world.scheduler.is_settled(A)
