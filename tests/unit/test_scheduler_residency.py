"""Who comes into memory, who leaves for it, and what a model is worth."""

import pytest

from controller.planner import MAX_RESIDENTS
from controller.records import HALF_LIFE_S
from controller.spec import ModelName
from controller.state import Status
from tests.core.box import A, B, C, D, box, hold, load, settle
from tests.core.world import model_spec


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
