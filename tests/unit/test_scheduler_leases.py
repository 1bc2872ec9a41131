"""How leases end."""

from dataclasses import replace

import pytest

from controller.scheduler import Revocation
from controller.state import RunId, Status
from tests.core.box import A, box, hold
from tests.core.world import OUT_OF_MEMORY, model_spec


def test_a_lease_ends_at_its_limit() -> None:
    """A request that takes longer than it may is told so, and its place is free."""
    world = box(model_spec("a"), request_limit_s=60.0)
    lease = hold(world, A)
    since_s = world.scheduler.leases[lease].since_s
    world.now = since_s + 59.9
    world.turn()
    assert not world.revocations
    world.now = since_s + 60.0
    world.turn()

    assert world.revocations == [Revocation(lease=lease, model=A, cause="time_limit", detail="1 min 00 s")]
    assert not world.scheduler.record(A).leases


def test_a_lease_ends_with_its_worker_and_says_how() -> None:
    """A worker that dies takes its leases with it; the cause is what the engine says."""
    world = box(model_spec("a"))
    lease = hold(world, A)
    world.end(A, replace(OUT_OF_MEMORY, detail="at 1 B"))
    world.turn()

    assert world.revocations == [Revocation(lease=lease, model=A, cause=OUT_OF_MEMORY.cause, detail="at 1 B")]


@pytest.mark.parametrize("how", ["vanished", "another run", "stopping"])
def test_a_lease_on_a_worker_that_is_not_there_any_more_ends(how: str) -> None:
    """A container removed by hand, started anew or being stopped by somebody else serves nobody."""
    world = box(model_spec("a"))
    lease = hold(world, A)
    if how == "vanished":
        world.vanish(A)
    elif how == "another run":
        world.engine[A].run = RunId("other")
    else:
        world.engine[A].status = Status.STOPPING
    world.turn()

    assert world.revocations == [Revocation(lease=lease, model=A, cause="removed")]


def test_a_lease_outlives_a_moment_in_which_its_worker_does_not_answer() -> None:
    """Health is not life: while the run is the same, its callers are left alone, but nobody new is let in."""
    world = box(model_spec("a", parallel=2))
    lease = hold(world, A)
    world.engine[A].status = Status.STARTING
    other = world.must_ask("a")
    world.turn()

    assert lease in world.held
    assert other in world.waiting
