"""A box that is slowed down: fewer callers at once, longer waits, and every promise kept."""

import pytest

from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK
from tests.core.box import A, B, box, last, load, settle
from tests.core.clockwork import Client, Clockwork
from tests.core.world import World, model_spec


def crowded(count: int = 4, parallel: int = 4) -> World:
    """Make a box whose one model serves *parallel* callers at once, and let *count* be served."""
    world = box(model_spec("a", parallel=parallel))
    load(world, A)
    for _ in range(count):
        world.must_ask(A)
    world.turn()
    assert len(world.held) == min(count, parallel)
    return world


def test_a_slow_box_serves_fewer_at_once() -> None:
    """Who came when it was slow waits until fewer are served."""
    world = crowded(0)
    world.set_pace(0.5)
    for _ in range(4):
        world.must_ask(A)
    world.turn()

    assert len(world.held) == 2
    assert len(world.waiting) == 2


def test_who_is_served_goes_on_when_the_box_gets_hot() -> None:
    """Nobody loses a lease; newcomers wait until fewer than the new number are served."""
    world = crowded(4)
    world.set_pace(0.5)
    world.must_ask(A)
    held = list(world.held)
    for lease in held[:2]:
        world.turn()
        assert set(held) >= set(world.held)
        world.leave(lease, served=True)
    world.turn()
    assert len(world.held) == 2

    world.leave(held[2], served=True)
    world.turn()
    assert len(world.held) == 2
    assert not world.waiting


def test_who_came_before_is_served_as_promised() -> None:
    """Two callers wait who were told of four places; they get the third and fourth although the box is slow now."""
    world = crowded(4)
    promised = [world.must_ask(A), world.must_ask(A)]
    world.turn()
    world.set_pace(0.25)
    late = world.must_ask(A)
    for lease in list(world.held)[:2]:
        world.leave(lease, served=True)
    world.turn()

    assert set(promised) <= set(world.held)
    assert (4, True) == (len(world.held), late in world.waiting)

    for lease in list(world.held)[:3]:
        world.leave(lease, served=True)
    world.turn()
    assert (1, True) == (len(world.held), late in world.waiting)
    world.leave(*world.held, served=True)
    world.turn()
    assert [late] == list(world.held)


def test_the_crowd_comes_back_when_the_box_has_cooled() -> None:
    """The next turn serves as many as before."""
    world = crowded(0)
    world.set_pace(0.25)
    for _ in range(4):
        world.must_ask(A)
    world.turn()
    assert len(world.held) == 1

    world.set_pace(1.0)
    world.turn()
    assert len(world.held) == 4


def test_a_promise_never_counts_on_more_than_the_model_serves() -> None:
    """A model that is changed to serve fewer has fewer places, whatever was said before."""
    world = crowded(4)
    world.must_ask(A)
    world.register([model_spec("a", parallel=1)])
    for lease in list(world.held)[:3]:
        world.leave(lease, served=True)
    world.turn()

    assert len(world.held) == 1


def test_the_bound_of_a_slow_box_is_longer() -> None:
    """It counts on the places there are: eight callers before one are two turns of four, and four of two."""
    turn_s = 10.0 + 300.0 + LOAD_SLACK + LOAD_MARGIN_S
    bounds_s = []
    for factor in (1.0, 0.5):
        world = crowded(0)
        world.set_pace(factor)
        for _ in range(8):
            world.must_ask(A)
        bounds_s.append(world.scheduler.queue()[-1].bound_s)

    assert [pytest.approx(2 * turn_s), pytest.approx(4 * turn_s)] == bounds_s


def test_a_bound_counts_on_what_those_before_were_promised() -> None:
    """Who comes when the box has cooled down may wait behind callers who were told of a slow one, and it may be slow again."""
    turn_s = 10.0 + 300.0 + LOAD_SLACK + LOAD_MARGIN_S
    world = box(model_spec("a", parallel=4), model_spec("b", parallel=4))
    load(world, B)
    world.set_pace(0.5)
    for _ in range(4):
        world.must_ask(A)
    world.set_pace(1.0)
    world.must_ask(B, batch=True)

    assert pytest.approx(30.0 + 3 * turn_s) == world.scheduler.queue()[-1].bound_s


def test_what_a_request_usually_takes_is_kept_as_of_full_speed() -> None:
    """Ten seconds on a box at half its speed are five; and what is expected of a slow box is twice that."""
    world = crowded(1)
    world.set_pace(0.5)
    before_s = world.scheduler.record(A).service_s
    world.now += 10.0
    world.leave(last(world.grants), served=True)

    usual_s = world.scheduler.record(A).service_s
    assert pytest.approx(before_s + 0.2 * (5.0 - before_s)) == usual_s
    world.must_ask(A)
    world.must_ask(A)
    world.turn()
    world.must_ask(A)
    assert pytest.approx(usual_s * 2) == world.scheduler.notice(world.scheduler.queue()[-1], 1, world.now).eta_s


def test_heat_costs_no_request() -> None:
    """Clients who never stop asking are served on through a hot spell, fewer at once, and more of them again after it."""
    world = box(model_spec("a", parallel=4))
    clients = [Client(models=["a"], service_s=2.0) for _ in range(8)]
    crowd = Clockwork(world, clients, load_s={"a": 1.0}, paces=[(40.0, 0.25), (120.0, 1.0)])

    counts = []
    for until_s in (20.0, 40.0, 60.0, 80.0, 120.0, 140.0, 160.0):
        before = len(world.grants)
        grants = len(crowd.run(until_s)) - before
        counts.append(grants)

    assert world.revocations == []
    assert world.refusals == []
    assert counts[3] < counts[1] / 3
    assert counts[-1] > counts[1] * 0.8
    settle(world)
