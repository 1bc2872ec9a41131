"""Busy models that must go: whom they still serve."""

from controller.state import Status
from tests.core.box import A, B, C, box, hold, last, settle
from tests.core.world import model_spec


def test_a_busy_model_in_the_way_is_drained() -> None:
    """Whoever had come when the drain began is served within the quantum, and nobody else."""
    world = box(model_spec("a"), model_spec("b"), quantum_s=10.0)
    busy = hold(world, A)
    claim = world.must_ask("b")
    early = world.must_ask("a")
    world.turn()
    late = world.must_ask("a")
    world.now += 9.9
    world.leave(busy)
    world.turn()
    assert last(world.grants) == early
    world.leave(early)
    settle(world)

    assert last(world.grants) == claim
    assert late in world.waiting


def test_the_quantum_ends() -> None:
    """After the quantum not even those who had come in time are served, and the model goes."""
    world = box(model_spec("a"), model_spec("b"), quantum_s=10.0)
    busy = hold(world, A)
    claim = world.must_ask("b")
    world.must_ask("a")
    world.turn()
    world.now += 10.0
    world.leave(busy)
    settle(world)

    assert last(world.grants) == claim


def test_callers_older_than_the_claim_are_served_however_long_it_takes() -> None:
    """Who came before the claimant is served before it."""
    world = box(model_spec("a"), model_spec("b"), quantum_s=10.0)
    busy = hold(world, A)
    older = world.must_ask("a")
    world.must_ask("b")
    world.turn()
    world.now += 50.0
    world.leave(busy)
    settle(world)

    assert last(world.grants) == older


def test_the_quantum_begins_when_the_model_is_ready() -> None:
    """A slow load does not eat the turn of those it was made for, and whoever came meanwhile belongs to it."""
    world = box(model_spec("a"), model_spec("b"), quantum_s=10.0)
    first = world.must_ask("a")
    world.must_ask("b")
    world.turn()
    world.turn()
    meanwhile = world.must_ask("a")
    world.now += 60.0
    world.settle()
    world.turn()
    assert first in world.held
    world.now += 9.9
    world.leave(first)
    world.turn()

    assert last(world.grants) == meanwhile


def test_a_model_just_loaded_serves_everybody_for_a_moment() -> None:
    """For `min_residency_s` after the load, newcomers too are served, so that the load was worth it."""
    world = box(model_spec("a"), model_spec("b"), min_residency_s=2.0)
    first = world.must_ask("a")
    world.must_ask("b")
    settle(world)
    world.now += 1.9
    newcomer = world.must_ask("a")
    world.leave(first)
    world.turn()
    assert last(world.grants) == newcomer
    world.now += 0.1
    another = world.must_ask("a")
    world.leave(newcomer)
    world.turn()

    assert another in world.waiting
    assert world.scheduler.desired == {B}


def test_a_drain_ends_when_the_claimant_hangs_up() -> None:
    """Nobody is kept waiting for somebody who has gone."""
    world = box(model_spec("a"), model_spec("b"), quantum_s=10.0)
    busy = hold(world, A)
    claim = world.must_ask("b")
    world.turn()
    assert set(world.scheduler.drains) == {A}
    waiting = world.must_ask("a")
    world.now += 20.0
    world.leave(claim)
    world.leave(busy)
    world.turn()

    assert last(world.grants) == waiting
    assert not world.scheduler.drains


def test_a_drain_that_another_claimant_takes_over_begins_anew() -> None:
    """A quantum belongs to one claim."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"), quantum_s=10.0)
    hold(world, A)
    claim = world.must_ask("b")
    world.must_ask("c")
    world.turn()
    began_s = world.now
    world.now += 5.0
    world.turn()
    assert world.scheduler.drains[A].since_s == began_s
    world.leave(claim)
    world.turn()

    assert (world.scheduler.drains[A].claimant, world.scheduler.drains[A].since_s) == (C, world.now)


def test_a_caller_keeps_its_worker_from_younger_claims_when_the_older_claim_is_settled() -> None:
    """A drain that has become needless does not take the worker from a caller who came before the next claimant."""
    world = box(*(model_spec(n) for n in "abcd"), budget_bytes=2, quantum_s=10.0)
    busy = hold(world, A)
    hold(world, B)
    world.must_ask("c")
    world.turn()
    victim, other = (A, B) if A in world.scheduler.drains else (B, A)
    caller = world.must_ask(victim)
    world.must_ask("d")
    world.now += 20.0
    world.turn()
    world.unload(other, force=True)
    world.leave(busy if victim == A else next(iter(world.held)))
    settle(world)

    assert caller in world.held
    assert world.scheduler.desired == {victim, C}


def test_who_is_about_to_come_can_be_prepared_for() -> None:
    """A model is arriving from the drain begun for it, or the eviction, until its worker starts; not if its caller hangs up."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"))
    assert world.scheduler.arriving == ()
    busy = hold(world, A)
    claim = world.must_ask("b")
    world.turn()
    assert world.scheduler.arriving == (B,)
    world.leave(busy)
    world.turn()
    assert world.engine[A].status is Status.STOPPING
    assert world.scheduler.arriving == (B,)
    settle(world)
    assert world.scheduler.arriving == ()

    gone = world.must_ask("c")
    world.turn()
    assert world.scheduler.arriving == (C,)
    world.leave(gone)
    world.turn()
    assert world.scheduler.arriving == ()
    assert claim in world.held
