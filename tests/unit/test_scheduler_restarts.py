"""A controller that starts finds what runs."""

import pytest

from controller.errors import Reason, RefusedError
from controller.scheduler import Rules, Scheduler
from controller.spec import ModelName, Tier
from controller.state import LeaseId, RunId, Status
from tests.core.box import A, B, C, adopt
from tests.core.world import CRASHED, model_spec, worker


def test_what_runs_is_adopted_and_leases_are_renewed() -> None:
    """A lease from before is taken back if its run is still there and wanted."""
    scheduler = adopt("a")

    assert scheduler.desired == {A}
    assert scheduler.renew(LeaseId("l"), A, RunId("r1"), 1.0)
    assert scheduler.leases[LeaseId("l")].since_s == 1.0
    assert not scheduler.renew(LeaseId("m"), A, RunId("r0"), 1.0)
    assert not scheduler.renew(LeaseId("m"), B, RunId("r1"), 1.0)
    assert not Scheduler(Rules(budget_bytes=1), {}, {A: worker("a", Status.STOPPING)}, 0.0).renew(
        LeaseId("m"), A, RunId("r1"), 0.0
    )


def test_nothing_adopted_is_evicted_before_gateways_could_renew() -> None:
    """During the grace, what runs counts as in use; afterwards idle is idle."""
    scheduler = adopt("a", knobs={"adoption_grace_s": 3.0})
    workers = {A: worker("a")}
    scheduler.request(LeaseId("l"), ModelName("new"), 0.0)
    scheduler.turn(workers, 2.9)
    assert scheduler.desired == {A}
    scheduler.turn(workers, 3.0)

    assert scheduler.desired == {"new"}


def test_nothing_adopted_is_unloaded_before_gateways_could_renew() -> None:
    """Nobody can tell yet whether it is busy, so only force unloads it; what came since then is nobody's secret."""
    scheduler = adopt("a")
    workers = {A: worker("a")}
    scheduler.turn(workers, 1.0)
    with pytest.raises(RefusedError, match="a ran before this controller was started") as caught:
        scheduler.unload(A, force=False)
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.UNAVAILABLE, 2.0)
    scheduler.turn(workers, 3.0)
    scheduler.unload(A, force=False)
    assert scheduler.desired == set()


def test_the_grace_is_for_what_was_adopted_only() -> None:
    """A model that was loaded after the start is evicted and unloaded like any other."""
    scheduler = Scheduler(Rules(budget_bytes=1), {m: model_spec(m) for m in (A, B)}, {}, 0.0)
    scheduler.request(LeaseId("l"), A, 0.0, load_only=True)
    scheduler.turn({}, 0.0)
    scheduler.turn({A: worker("a")}, 0.1)
    scheduler.request(LeaseId("m"), B, 0.2)
    scheduler.turn({A: worker("a")}, 0.2)
    assert scheduler.desired == {B}
    scheduler.unload(B, force=False)

    assert scheduler.desired == set()


def test_nothing_unwanted_is_stopped_before_gateways_could_renew() -> None:
    """A removed or changed model may be answering for a gateway that has not said so yet."""
    workers = {A: worker("a"), B: worker("b"), C: worker("c")}
    specs = {B: model_spec("b", version=1), C: model_spec("c", tier=Tier.LARGE)}
    scheduler = Scheduler(Rules(budget_bytes=3, idle_unload_s=1.0), specs, workers, 0.0)
    scheduler.outdate([B])
    scheduler.turn(workers, 1.0)
    scheduler.turn(workers, 2.9)
    assert scheduler.desired == {A, B, C}
    assert scheduler.renew(LeaseId("l"), A, RunId("r1"), 2.9)
    scheduler.turn(workers, 3.0)

    assert scheduler.desired == {A}


def test_more_than_the_budget_is_adopted_and_then_drained() -> None:
    """Running answers are worth more than a number; nothing new comes until it fits."""
    specs = {m: model_spec(m) for m in (A, B)}
    workers = {A: worker("a"), B: worker("b", Status.STARTING)}
    scheduler = Scheduler(Rules(budget_bytes=1), specs, workers, 0.0)
    assert scheduler.desired == {A, B}
    scheduler.renew(LeaseId("l"), A, RunId("r1"), 0.0)
    scheduler.turn(workers, 1.0)
    assert scheduler.desired == {A, B}
    scheduler.turn(workers, 3.0)

    assert scheduler.desired == {A}


def test_an_adopted_worker_that_ends_has_failed() -> None:
    """A run we did not start ourselves counts as ours."""
    scheduler = adopt("a")
    scheduler.turn({A: worker("a", Status.STOPPED, exited=CRASHED)}, 1.0)

    assert scheduler.record(A).failures == 1
