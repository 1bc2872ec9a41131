"""Who is served, and who is resident: one behaviour at a time, on a small box driven by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from controller.callers import PUBLISH_S
from controller.errors import Reason, RefusedError
from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK
from controller.planner import MAX_RESIDENTS, Refuse, Start, Wait
from controller.records import HALF_LIFE_S, MAX_BACKOFF_S, REST_S
from controller.scheduler import Grant, Notice, Refusal, Revocation, Rules, Scheduler
from controller.spec import ModelName, ModelSpec, Tier
from controller.state import LeaseId, RunId, Status
from tests.core.world import CRASHED, OUT_OF_MEMORY, World, model_spec, worker

A, B, C, D = (ModelName(n) for n in "abcd")


def box(*specs: ModelSpec, **knobs: float) -> World:
    """Make a world whose grace is over, with these models and a budget of 1 unless told otherwise."""
    rules = replace(Rules(budget_bytes=1, min_residency_s=0.0), **knobs)  # type: ignore[arg-type]
    world = World(rules, specs)
    world.now += rules.adoption_grace_s
    return world


def settle(world: World, turns: int = 4) -> None:
    """Let what is under way end well, and the core see it."""
    for _ in range(turns):
        world.turn()
        world.settle()
    world.turn()


def load(world: World, *models: ModelName) -> None:
    """Bring models into memory with nobody using them."""
    for model in models:
        world.must_ask(model, load_only=True)
        settle(world)
        assert world.engine[model].status is Status.READY


def hold(world: World, model: ModelName) -> LeaseId:
    """Bring a model into memory and hold a lease on it."""
    lease = world.must_ask(model)
    settle(world)
    assert lease in world.held
    return lease


def refused(world: World, model: str, **asked: bool | float) -> RefusedError:
    """Ask and be refused."""
    answer = world.ask(model, **asked)  # type: ignore[arg-type]
    assert isinstance(answer, RefusedError)
    return answer


def last(answers: list[Grant]) -> LeaseId:
    """Return who was granted last."""
    return answers[-1].lease


# Requests that are refused.


def test_a_model_nobody_registered_is_refused() -> None:
    """An unknown name is refused for requests and for unloads."""
    world = box(model_spec("a"))

    assert refused(world, "x").reason is Reason.UNKNOWN_MODEL
    with pytest.raises(RefusedError, match="no model 'x' is registered"):
        world.scheduler.unload(ModelName("x"), force=True)


def test_a_model_larger_than_the_budget_is_refused_with_the_figures() -> None:
    """The refusal names the footprint, where it came from, the budget, and how to override it."""
    world = box(model_spec("a", size=2 * 2**30), budget_bytes=2**30)
    answer = refused(world, "a")

    assert answer.reason is Reason.NEVER_FITS
    assert str(answer) == (
        "a needs 2 GiB (estimate), and the budget is 1 GiB; if it needs less, say so with `memory` in its model.toml"
    )


def test_a_model_too_large_beside_pinned_ones_is_refused() -> None:
    """What is pinned never goes, so what does not fit beside it never comes."""
    world = box(model_spec("a", size=3, pinned=True), model_spec("b", size=2), budget_bytes=4)
    settle(world)
    answer = refused(world, "b")

    assert answer.reason is Reason.NEVER_FITS
    assert "beside 3 B of pinned models" in str(answer)


def test_a_caller_who_waits_is_refused_once_its_model_can_never_come() -> None:
    """A pinned model that appears while others wait takes precedence, and they are told."""
    world = box(model_spec("a", size=2), budget_bytes=3)
    world.engine.clear()
    lease = world.must_ask("a")
    world.register([model_spec("a", size=2), model_spec("b", size=2, pinned=True)])
    settle(world)

    assert [(r.lease, r.reason) for r in world.refusals] == [(lease, Reason.NEVER_FITS)]
    assert world.scheduler.desired == {B}


def test_a_full_queue_refuses_the_next() -> None:
    """With as many callers as may wait, the next is told when to come back."""
    world = box(model_spec("a"), queue_limit=2)
    world.must_ask("a")
    world.must_ask("a")
    answer = refused(world, "a")

    assert answer.reason is Reason.QUEUE_FULL
    assert str(answer) == "2 callers are waiting, and no more than 2 may; ask again later"
    assert answer.retry_after_s == pytest.approx(1.0 + 2 * 1.0)


def test_coming_back_is_never_sooner_than_a_second() -> None:
    """However soon there will be room, a client is not invited to hammer."""
    world = box(model_spec("a", load_s=0.1), queue_limit=0)
    assert refused(world, "a").retry_after_s == 1.0


def test_a_deadline_nobody_can_meet_is_refused() -> None:
    """A caller who would leave before its answer can begin is refused at once, and one who would not is not."""
    world = box(model_spec("a", load_s=20.0))
    answer = refused(world, "a", deadline_s=19.0)

    assert (answer.reason, answer.retry_after_s) == (Reason.TOO_LATE, 20.0)
    assert str(answer) == "the answer could begin in 20.0 s, and the caller waits 19.0 s"
    world.must_ask("a", deadline_s=20.0)


def test_a_caller_is_refused_when_its_deadline_has_come() -> None:
    """Who waited as long as it wanted gets an answer, not silence."""
    world = box(model_spec("a"))
    lease = world.must_ask("a", deadline_s=10.0)
    world.turn()
    world.now += 9.9
    world.turn()
    assert lease in world.waiting
    world.now += 0.1
    world.turn()

    assert [(r.lease, r.reason) for r in world.refusals] == [(lease, Reason.TOO_LATE)]
    assert world.refusals[0].retry_after_s == 2.0
    assert "willing to wait 10.0 s" in world.refusals[0].message


def test_callers_of_a_model_that_is_removed_are_refused() -> None:
    """A folder that goes away takes its queue with it."""
    world = box(model_spec("a"))
    lease = world.must_ask("a")
    world.register([])
    world.turn()

    assert [(r.lease, r.reason) for r in world.refusals] == [(lease, Reason.UNKNOWN_MODEL)]


# Grants.


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
        lease=lease, model=A, run=world.engine[A].run, waited_s=4.0, bound_s=110.0 + 2.0 * LOAD_SLACK + LOAD_MARGIN_S
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


# How leases end.


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


# Failures.


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


def crash(world: World, model: ModelName) -> None:
    """Let a model come and crash once."""
    world.now = max(world.now, world.scheduler.record(model).retry_at_s)
    for _ in range(3):
        world.turn()
    world.take_effect(model)
    world.end(model, CRASHED)
    world.turn()


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


# Coming and going.


def test_the_least_valuable_idle_model_is_evicted() -> None:
    """Popularity times load time over size decides; priority doubles it a step."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"), budget_bytes=2)
    for model in (A, B, A):
        world.leave(hold(world, model))
    load(world, C)

    assert world.scheduler.desired == {A, C}


@pytest.mark.parametrize(
    ("better", "worse"),
    [({"load_s": 2.0}, {"load_s": 1.0}), ({"size": 1}, {"size": 2}), ({"priority": 1}, {"priority": 0})],
)
def test_what_makes_a_model_worth_keeping(better: dict[str, float], worse: dict[str, float]) -> None:
    """A slow load, a small size or a priority makes it worth twice as much here."""
    world = box(model_spec("a", **better), model_spec("b", **worse), budget_bytes=9)  # type: ignore[arg-type]
    for model in (A, B):
        world.leave(hold(world, model))

    assert world.scheduler.value(A, world.now) == pytest.approx(2 * world.scheduler.value(B, world.now))


def test_popularity_fades_by_half_in_its_half_life() -> None:
    """Calls of long ago count less, whatever happened in between without a call."""
    world = box(model_spec("a"))
    lease = hold(world, A)
    value = world.scheduler.value(A, world.now)
    world.now += HALF_LIFE_S
    world.leave(lease)

    assert world.scheduler.value(A, world.now) == pytest.approx(value / 2)


def test_popularity_adds_up() -> None:
    """Two calls at one time count two, and one of them after a half-life."""
    world = box(model_spec("a", parallel=2))
    world.must_ask("a")
    hold(world, A)
    record = world.scheduler.record(A)

    assert record.popularity(world.now) == pytest.approx(2.0)
    assert record.popularity(world.now + HALF_LIFE_S) == pytest.approx(1.0)


def test_a_new_model_outlives_an_old_favourite_nobody_asks_for() -> None:
    """The cache ages with each eviction: what comes now starts at the worth of what had to go."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c"), budget_bytes=1)
    world.leave(hold(world, A))
    was_worth = world.scheduler.value(A, world.now)
    world.leave(hold(world, B))

    assert world.scheduler.value(B, world.now) == pytest.approx(2 * was_worth)


def test_the_load_time_that_was_seen_counts() -> None:
    """A load that was measured replaces the estimate."""
    world = box(model_spec("a", load_s=1.0))
    world.scheduler.loaded(A, 5.0)

    assert world.scheduler.expected_wait_s(A) == 5.0


def test_who_has_left_comes_back_only_when_its_worker_is_gone() -> None:
    """A worker that is being stopped is not counted on; its caller keeps its place, and others keep off."""
    world = box(model_spec("a"), model_spec("b"))
    load(world, A)
    world.unload("a", force=False)
    world.turn()
    lease = world.must_ask("a")
    world.must_ask("b")
    world.turn()
    assert world.engine[A].status is Status.STOPPING
    assert world.scheduler.desired == set()
    settle(world, turns=2)

    assert world.scheduler.desired == {A}
    settle(world)
    assert lease in world.held


def test_a_younger_model_that_fits_beside_the_reservation_goes_ahead() -> None:
    """Whoever waits for memory does not keep out those who need none of it."""
    world = box(model_spec("a", size=2), model_spec("b", size=2), model_spec("c"), budget_bytes=3)
    hold(world, A)
    old = world.must_ask("b")
    young = world.must_ask("c")
    settle(world)

    assert young in world.held
    assert old in world.waiting


def test_nobody_enters_behind_one_who_cannot_even_reserve() -> None:
    """A small model does not slip past a large one that is next but one."""
    world = box(model_spec("a", size=3), model_spec("b", size=3), model_spec("c", size=4), model_spec("d"), budget_bytes=4)
    busy = hold(world, A)
    for model in "bcd":
        world.must_ask(model)
    settle(world)
    assert world.scheduler.desired == {A}
    world.leave(busy)
    settle(world)

    assert world.scheduler.desired == {B}


def test_what_is_reserved_is_not_given_to_the_next() -> None:
    """Idle memory that an older claimant is going to use is not evicted for a younger one."""
    world = box(*(model_spec(n) for n in "abcd"), model_spec("e", size=2), budget_bytes=3)
    load(world, A, B)
    hold(world, C)
    world.leave(hold(world, A))
    hold(world, A)
    old = world.must_ask("e")
    world.must_ask("d")
    settle(world)

    assert old in world.waiting
    assert D not in world.scheduler.desired


def test_the_sixty_fifth_model_takes_the_place_of_another() -> None:
    """However small models are, only so many are in memory at once, and nobody is kept out for ever."""
    names = [ModelName(f"m{i:02}") for i in range(MAX_RESIDENTS + 1)]
    world = box(*(model_spec(n, size=0) for n in names), budget_bytes=10)
    for name in names:
        world.must_ask(name)
    settle(world, turns=8)
    for lease in list(world.held):
        world.leave(lease, served=True)
    settle(world)

    assert len(world.grants) == MAX_RESIDENTS + 1
    assert len(world.scheduler.desired) == MAX_RESIDENTS


# Draining.


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


# Pinned, small and large models.


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


# Changes.


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


# Restarts.


def adopt(*names: str, knobs: Mapping[str, float] | None = None, **specs: ModelSpec) -> Scheduler:
    """Start a scheduler that finds these workers ready, with room for all of them and not one more."""
    rules = Rules(budget_bytes=len(names), **(knobs or {}))  # type: ignore[arg-type]
    known = {ModelName(n): model_spec(n) for n in (*names, "new")} | {ModelName(n): s for n, s in specs.items()}
    return Scheduler(rules, known, {ModelName(n): worker(n) for n in names}, 0.0)


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


# What is told.


def test_a_waiting_caller_hears_of_its_place() -> None:
    """Place, likely wait, what is left of the bound, and what is going on for it; once a second."""
    world = box(model_spec("a", load_s=2.0), model_spec("b", load_s=3.0))
    hold(world, A)
    first, second = world.must_ask("b"), world.must_ask("b")
    (notice, other) = (n for n in world.turn() if isinstance(n, Notice))
    assert (notice.lease, notice.position, notice.model, notice.loading) == (first, 1, B, False)
    assert notice.eta_s == pytest.approx(3.0 + 1.0)
    assert (other.lease, other.position, other.eta_s) == (second, 2, pytest.approx(3.0 + 1.0 + 1.0))
    again = next(n for n in _notices(world, 0.0, PUBLISH_S))

    assert again.evicting == (A,)
    assert again.bound_s == notice.bound_s - PUBLISH_S
    assert list(_notices(world, PUBLISH_S - 0.1)) == []
    assert [n.bound_s for n in _notices(world, 99999.0)] == [0.0, 0.0]


def _notices(world: World, *pauses_s: float) -> Iterator[Notice]:
    for pause_s in pauses_s:
        world.now += pause_s
        yield from (n for n in world.turn() if isinstance(n, Notice))


def test_a_caller_hears_that_its_model_is_loading() -> None:
    """From the decision until it answers, a model is loading."""
    world = box(model_spec("a"))
    lease = world.must_ask("a")
    world.turn()
    world.now += 1.0
    world.turn()

    assert world.notices[lease].loading
    assert world.notices[lease].evicting == ()


def test_a_place_counts_those_who_came_before() -> None:
    """Callers who came later do not lengthen what an older one is told."""
    world = box(model_spec("a"))
    hold(world, A)
    leases = [world.must_ask("a") for _ in range(3)]
    world.turn()

    assert [world.notices[lease].eta_s for lease in leases] == [1.0, 2.0, 3.0]


def test_a_load_can_be_asked_about_before_it_is_asked_for() -> None:
    """The preview says what would go, and nothing goes."""
    world = box(model_spec("a"), model_spec("b"), model_spec("c", size=3), budget_bytes=2)
    load(world, A)
    assert world.scheduler.preview(A, world.now) == Start()
    assert world.scheduler.preview(B, world.now) == Start()
    load(world, B)
    assert world.scheduler.preview(C, world.now) == Refuse(1)
    world.register([*(model_spec(n) for n in "abd"), model_spec("c", size=2)])
    assert world.scheduler.preview(D, world.now) == Start((A,))
    hold(world, A)
    world.must_ask("b")

    assert world.scheduler.preview(D, world.now) == Wait((A,)) or world.scheduler.preview(D, world.now) == Wait((B,))
    assert world.scheduler.desired == {A, B}


def test_a_free_worker_is_expected_at_once() -> None:
    """Nobody waits for a model that is ready and has room, unless it has to go."""
    world = box(model_spec("a", parallel=2), model_spec("b"))
    hold(world, A)
    assert world.scheduler.expected_wait_s(A) == 0.0
    world.must_ask("b")
    world.turn()

    assert world.scheduler.expected_wait_s(A) > 0.0


# Size.


class Counting(dict[ModelName, ModelSpec]):
    """A catalog that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, name: ModelName) -> ModelSpec:
        """Count one look."""
        self.looks += 1
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[ModelName]:
        """Count a look at each."""
        for name in super().__iter__():
            self.looks += 1
            yield name


@pytest.mark.parametrize("tier", list(Tier))
def test_a_turn_looks_at_active_models_only(tier: Tier) -> None:
    """Ten thousand registered models make no turn slower."""
    catalog = Counting({s.name: s for s in (model_spec(f"m{i:05}", size=2, tier=tier) for i in range(10_000))})
    scheduler = Scheduler(Rules(budget_bytes=3), catalog, {}, 0.0)
    scheduler.turn({}, 10.0)
    catalog.looks = 0
    scheduler.request(LeaseId("l"), ModelName("m00007"), 10.0)
    scheduler.turn({}, 10.0)
    scheduler.release(LeaseId("l"), 10.0)
    scheduler.turn({}, 11.0)

    assert catalog.looks < 12 * MAX_RESIDENTS


def test_refusals_come_as_answers_once() -> None:
    """Nobody is refused twice, and nobody who was refused still waits."""
    world = box(model_spec("a"))
    world.must_ask("a")
    world.register([])
    answers = [*world.turn(), *world.turn()]

    assert [type(a) for a in answers] == [Refusal]
    assert world.scheduler.waiting == 0
