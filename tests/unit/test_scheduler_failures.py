"""Models that fail: pauses, rests, and what is forgiven."""

from dataclasses import replace

import pytest

from controller.errors import Reason
from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK
from controller.records import MAX_BACKOFF_S, REST_S
from controller.spec import EngineChoice
from controller.state import LeaseId
from tests.core.box import A, B, C, box, crash, hold, last, load, refused, settle
from tests.core.world import CRASHED, model_spec


def test_a_worker_that_ended_is_tried_again_after_a_pause_that_doubles() -> None:
    """Each failure in a row doubles the pause, up to half a minute."""
    world = box(model_spec("a"), backoff_s=4.0, max_failures=9)
    lease = world.must_ask("a")
    pauses = []
    for failures in range(1, 6):
        world.turn()
        world.turn()
        world.take_effect(A)
        world.end(A, CRASHED)
        world.turn()
        record = world.scheduler.record(A)
        assert record.failures == failures
        assert A not in world.scheduler.desired
        pauses.append(record.retry_at_s - world.now)
        world.now = record.retry_at_s - 0.1
        world.turn()
        assert A not in world.scheduler.desired
        world.now = record.retry_at_s

    assert pauses == [4.0, 8.0, 16.0, MAX_BACKOFF_S, MAX_BACKOFF_S]
    assert lease in world.waiting


def test_a_model_that_keeps_failing_rests_and_its_callers_are_told_why() -> None:
    """After `max_failures` in a row nobody waits for it any more; after a rest it is tried once more."""
    world = box(model_spec("a"), max_failures=2)
    lease = world.must_ask("a")
    crash(world, A)
    assert lease in world.waiting
    crash(world, A)

    assert [(r.lease, r.reason, r.retry_after_s) for r in world.refusals] == [(lease, Reason.WORKER_FAILED, REST_S)]
    assert world.refusals[0].message == (
        "a failed 2 times in a row, the last time by: crashed, status 1: boom; it is not started again for now. "
        "See `windlass logs a`, then `windlass load a`"
    )
    world.now += 100.0
    answer = refused(world, "a")
    assert (answer.reason, answer.retry_after_s) == (Reason.UNAVAILABLE, REST_S - 100.0)
    world.now += REST_S - 100.0
    world.must_ask("a")
    world.turn()
    assert A in world.scheduler.desired
    assert not world.scheduler.record(A).resting
    crash(world, A)
    assert world.scheduler.record(A).resting


def test_a_load_by_hand_ends_the_rest() -> None:
    """An operator who has mended the model need not wait."""
    world = box(model_spec("a"), max_failures=1)
    world.must_ask("a")
    crash(world, A)
    load(world, A)

    assert world.scheduler.record(A).failures == 0


def test_an_answer_to_the_end_forgives_what_failed_before() -> None:
    """Only failures in a row count, and a caller who hung up proves nothing."""
    world = box(model_spec("a"), max_failures=5)
    lease = world.must_ask("a")
    crash(world, A)
    world.now += 1.0
    settle(world)
    world.leave(lease)
    assert world.scheduler.record(A).failures == 1
    lease = hold(world, A)
    world.now += 6.0
    world.leave(lease, served=True)
    record = world.scheduler.record(A)

    assert (record.failures, record.served) == (0, 1)
    assert record.service_s == pytest.approx(1.0 + 0.2 * 5.0)


def test_a_changed_model_is_given_another_chance() -> None:
    """Other files may not have the fault, and may load in another time."""
    world = box(model_spec("a"), max_failures=1)
    world.must_ask("a")
    crash(world, A)
    world.register([model_spec("a", parallel=2)])
    assert world.scheduler.record(A).resting
    world.register([model_spec("a", version=1, load_s=7.0)])

    assert not world.scheduler.record(A).resting
    assert world.scheduler.record(A).load_s == 7.0


def test_a_model_that_left_is_forgotten() -> None:
    """What comes back under an old name starts anew."""
    world = box(model_spec("a"), model_spec("b"))
    world.scheduler.loaded(A, 99.0)
    world.register([model_spec("b")])
    world.register([model_spec("a"), model_spec("b")])

    assert world.scheduler.record(A).load_s == 1.0


def test_how_the_run_before_ended_is_no_failure() -> None:
    """A stopped container shows how it was stopped last time, and that says nothing about now."""
    world = box(model_spec("a"), model_spec("b"))
    load(world, A, B, A)
    assert world.engine[B].exit is not None
    world.must_ask("b")
    world.turn(lose=9)
    world.turn(lose=9)

    assert B in world.scheduler.desired
    assert world.scheduler.record(B).failures == 0


def test_an_engine_that_refuses_to_start_is_a_failure_too() -> None:
    """A container that cannot even be started counts like one that crashed."""
    world = box(model_spec("a"), max_failures=1)
    lease = world.must_ask("a")
    world.turn()
    world.turn()
    world.fail_start(A)

    assert [r.lease for r in world.refusals] == [lease]
    assert "crashed, status -1: no such device" in world.refusals[0].message


def test_a_model_that_waits_for_its_pause_keeps_its_place() -> None:
    """Others may use the memory meanwhile, but the older caller comes first again afterwards."""
    world = box(model_spec("a"), model_spec("b"), backoff_s=5.0)
    old = world.must_ask("a")
    crash(world, A)
    busy = hold(world, B)
    world.now += 5.0
    more = world.must_ask("b")
    world.turn()
    world.leave(busy)
    world.now += 20.0
    settle(world)

    assert last(world.grants) == old
    assert more in world.waiting


def test_an_idle_model_that_died_comes_back() -> None:
    """What was in memory and crashed is loaded again after its pause, though nobody asks."""
    world = box(model_spec("a"), backoff_s=5.0)
    load(world, A)
    world.end(A, CRASHED)
    world.turn()
    world.now += 4.9
    world.turn()
    assert world.scheduler.desired == set()
    world.now += 0.1
    settle(world)
    assert world.scheduler.desired == {A}
    world.unload("a", force=False)
    settle(world)

    assert world.scheduler.desired == set()


def test_an_idle_model_that_died_takes_nobodys_memory() -> None:
    """It comes back where it fits, and not if somebody has unloaded it since."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"), budget_bytes=2)
    load(world, A, B)
    world.end(A, CRASHED)
    world.turn()
    load(world, C)
    world.now += 60.0
    world.turn()
    assert world.scheduler.desired == {B, C}
    world.unload("a", force=False)
    world.unload("b", force=False)
    settle(world)

    assert world.scheduler.desired == {C}


def test_an_idle_model_that_keeps_dying_stays_away() -> None:
    """A model that rests is not wished for, and one that was removed is forgotten."""
    world = box(model_spec("a"), model_spec("b"), max_failures=1, budget_bytes=2)
    load(world, A, B)
    world.end(A, CRASHED)
    world.end(B, CRASHED)
    world.turn()
    world.register([model_spec("a")])
    world.now += REST_S
    world.turn()

    assert world.scheduler.desired == set()


def test_a_spare_container_that_cannot_be_made_is_not_wished_for() -> None:
    """A failure of what nobody wanted counts, and wishes for nothing."""
    world = box(model_spec("a"))
    world.scheduler.fail(A, "no image", world.now)
    world.now += 60.0
    world.turn()

    assert world.scheduler.record(A).failures == 1
    assert world.scheduler.desired == set()


def test_what_a_caller_has_waited_before_counts() -> None:
    """A caller whose controller was restarted keeps its age, and its bound says so."""
    world = box(model_spec("a"))
    world.scheduler.request(LeaseId("l"), A, world.now, waited_s=7.0)
    world.scheduler.request(LeaseId("m"), A, world.now)
    old, new = world.scheduler.queue()

    assert old.since_s == world.now - 7.0
    assert old.bound_s == pytest.approx(7.0 + 10.0 + 300.0 + LOAD_SLACK + LOAD_MARGIN_S)
    assert new.since_s == world.now


CHOICE = EngineChoice(reason="it is the first in line", key="k", successor="transformers")
FIRST = replace(model_spec("a"), choice=CHOICE)
SECOND = replace(FIRST, engine="transformers")
LAST = replace(SECOND, choice=replace(CHOICE, successor=""))


def test_callers_wait_while_another_engine_takes_over() -> None:
    """An engine that has never served is given up after the last failure, and nobody is refused for that."""
    world = box(FIRST, max_failures=2)
    before = world.must_ask("a")
    crash(world, A)
    assert not world.scheduler.record(A).leaves(FIRST)
    crash(world, A)
    after = world.must_ask("a")
    assert world.scheduler.record(A).leaves(FIRST)
    assert not world.scheduler.record(A).leaves(model_spec("a"))
    assert not world.scheduler.record(A).leaves(replace(FIRST, choice=replace(CHOICE, successor="")))

    world.register([LAST])
    settle(world)

    assert [] == world.refusals
    assert {before, after} <= world.held.keys() | world.waiting.keys()
    assert before in world.held
    assert 0 == world.scheduler.record(A).failures


def test_an_engine_that_has_served_is_not_given_up() -> None:
    """Its callers are refused, as those of every model that keeps failing."""
    world = box(FIRST, max_failures=1)
    world.leave(hold(world, A), served=True)
    world.end(A, CRASHED)
    world.turn()

    assert world.scheduler.record(A).resting
    assert not world.scheduler.record(A).leaves(FIRST)
    assert Reason.UNAVAILABLE is refused(world, "a").reason


def test_what_another_engine_has_served_proves_nothing_for_this_one() -> None:
    """A model that gets another engine begins anew in that."""
    world = box(FIRST, max_failures=1)
    world.leave(hold(world, A), served=True)
    world.register([SECOND])
    world.must_ask("a")
    settle(world)
    world.end(A, CRASHED)
    world.turn()

    assert world.scheduler.record(A).leaves(SECOND)
