"""Who is refused, at once or later, and what it is told."""

import pytest

from controller.errors import Reason, RefusedError
from controller.scheduler import Refusal
from controller.spec import ModelName
from tests.core.box import B, box, refused, settle
from tests.core.world import model_spec


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


def test_refusals_come_as_answers_once() -> None:
    """Nobody is refused twice, and nobody who was refused still waits."""
    world = box(model_spec("a"))
    world.must_ask("a")
    world.register([])
    answers = [*world.turn(), *world.turn()]

    assert [type(a) for a in answers] == [Refusal]
    assert world.scheduler.waiting == 0
