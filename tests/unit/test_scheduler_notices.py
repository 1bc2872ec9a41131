"""What waiting callers are told."""

from collections.abc import Iterator

import pytest

from controller.callers import PUBLISH_S
from controller.planner import Refuse, Start, Wait
from controller.scheduler import Notice
from tests.core.box import A, B, C, D, box, hold, load
from tests.core.world import World, model_spec


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
    assert world.scheduler.preview(A, world.now).plan == Start()
    assert world.scheduler.preview(B, world.now).plan == Start()
    load(world, B)
    assert world.scheduler.preview(C, world.now).plan == Refuse(1)
    world.register([*(model_spec(n) for n in "abd"), model_spec("c", size=2)])
    assert world.scheduler.preview(D, world.now).plan == Start((A,))
    hold(world, A)
    world.must_ask("b")

    assert world.scheduler.preview(D, world.now).plan == Wait((A,)) or world.scheduler.preview(D, world.now).plan == Wait((B,))
    assert world.scheduler.desired == {A, B}


def test_a_free_worker_is_expected_at_once() -> None:
    """Nobody waits for a model that is ready and has room, unless it has to go."""
    world = box(model_spec("a", parallel=2), model_spec("b"))
    hold(world, A)
    assert world.scheduler.expected_wait_s(A) == 0.0
    world.must_ask("b")
    world.turn()

    assert world.scheduler.expected_wait_s(A) > 0.0
