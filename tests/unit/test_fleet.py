"""What the engine shows, overlaid with what we do to it."""

import pytest

from controller.drivers.base import Container
from controller.fleet import Fleet
from controller.reconcile import Action, Create, Hold, LetGo, Remove, Start, Stop
from controller.spec import ModelName
from controller.state import Exit, ExitCause, RunId, Status

A, RUN = ModelName("a"), RunId("run-1")
KILLED = Exit(cause=ExitCause.KILLED, code=137)
STUCK = Exit(cause=ExitCause.UNRESPONSIVE, code=137, detail="stuck")


def shown(*, running: bool, run: str = RUN, ended: Exit | None = None) -> Container:
    """Make a container of model a as a listing shows it."""
    return Container(model=A, running=running, memory_bytes=7, spec_hash="s", run=RunId(run), exit=ended)


def fleet(*containers: Container) -> Fleet:
    """Make a fleet that has seen one listing."""
    made = Fleet()
    made.end_listing(made.begin_listing(), containers)
    return made


def status(of: Fleet) -> Status:
    """Return what the worker of model a is doing."""
    return of.workers()[A].status


def test_a_run_is_starting_until_it_has_answered() -> None:
    """Running is not ready, and being ready is one run's own."""
    world = fleet(shown(running=True))

    assert Status.STARTING is status(world)
    assert [(A, RUN)] == world.unready()

    world.note_ready(A, RUN, 5.0)

    assert Status.READY is status(world)
    assert 5.0 == world.workers()[A].ready_since_s
    assert ([], [(A, RUN)]) == (world.unready(), world.ready())

    world.end_listing(world.begin_listing(), [shown(running=True, run="run-2")])

    assert Status.STARTING is status(world)
    assert [(A, RunId("run-2"))] == world.unready()


@pytest.mark.parametrize(
    ("action", "running", "expected"),
    [
        (Start(A), False, Status.STARTING),
        (Start(A), True, Status.STARTING),
        (Stop(A), True, Status.STOPPING),
        (Stop(A), False, Status.STOPPING),
        (Hold(A), False, Status.HELD),
        (Hold(A), True, Status.HELD),
        (Remove(A), True, Status.STOPPING),
        (Remove(A), False, Status.STOPPED),
        (Create(A), False, Status.STOPPED),
    ],
)
def test_an_action_under_way_shows(action: Action, running: bool, expected: Status) -> None:
    """What is being started takes memory already, what is being stopped takes it still."""
    world = fleet(shown(running=running))
    world.begin(action, 1.0)

    assert expected is status(world)
    assert (0 if expected in (Status.STOPPED, Status.HELD) else 7) == world.workers()[A].held_bytes


def test_an_action_is_over_with_a_listing_asked_for_after_its_return() -> None:
    """A listing under way when the engine answered may still show the world before."""
    world = fleet(shown(running=False))
    world.begin(Start(A), 1.0)
    early = world.begin_listing()
    world.settle(A)
    world.end_listing(early, [shown(running=False)])

    assert Status.STARTING is status(world)

    world.end_listing(world.begin_listing(), [shown(running=False, ended=KILLED)])

    assert Status.STOPPED is status(world)
    assert not world.acting


def test_a_listing_does_not_end_what_is_not_settled() -> None:
    """However often the engine is asked, an action is under way until it has returned."""
    world = fleet(shown(running=False))
    world.begin(Start(A), 1.0)
    for _ in range(3):
        world.end_listing(world.begin_listing(), [shown(running=False)])

    assert {A} == set(world.acting)


def test_a_run_that_was_given_up_is_ending_for_our_reason() -> None:
    """Its callers hear why at once; the engine's own word, that it was killed, is not the reason."""
    world = fleet(shown(running=True))
    world.note_ready(A, RUN, 1.0)
    world.judge(A, RUN, STUCK)

    assert Status.STOPPING is status(world)
    assert STUCK == world.workers()[A].exit
    assert [A] == world.judged()
    assert ([], []) == (world.ready(), world.unready())

    world.end_listing(world.begin_listing(), [shown(running=False, ended=KILLED)])

    assert (Status.STOPPED, STUCK) == (status(world), world.workers()[A].exit)
    assert [] == world.judged()


def test_a_verdict_ends_with_its_run() -> None:
    """The next life of the container begins without it."""
    world = fleet(shown(running=True))
    world.judge(A, RUN, STUCK)
    world.end_listing(world.begin_listing(), [shown(running=True, run="run-2")])

    assert Status.STARTING is status(world)
    assert [] == world.judged()


def test_what_is_not_there_is_no_worker() -> None:
    """A container that somebody removed takes nothing and is nothing."""
    world = fleet(shown(running=True))
    world.note_ready(A, RUN, 1.0)
    world.end_listing(world.begin_listing(), [])

    assert {} == dict(world.workers())
    assert RunId("") == world.run(A)
    assert [] == world.ready()


def test_what_is_held_has_not_begun() -> None:
    """It takes nothing, nobody asks whether it answers, and its life begins when it is let go."""
    world = fleet(shown(running=False, run="before", ended=KILLED))
    world.begin(Hold(A), 1.0)
    world.settle(A)
    world.end_listing(world.begin_listing(), [shown(running=True)], held=[A])
    held = world.workers()[A]

    assert (Status.HELD, RunId("before"), 0) == (held.status, held.run, held.held_bytes)
    assert [] == world.unready()

    world.begin(LetGo(A), 2.0)

    assert (Status.STARTING, RUN) == (world.workers()[A].status, world.workers()[A].run)
    assert [(A, RUN)] == world.unready()

    world.settle(A)
    world.end_listing(world.begin_listing(), [shown(running=True)])

    assert Status.STARTING is status(world)


def test_what_is_held_is_known_after_a_restart() -> None:
    """A new controller has seen nothing before, and takes it for what it is."""
    world = Fleet()
    world.end_listing(world.begin_listing(), [shown(running=True)], held=[A])

    assert Status.HELD is status(world)

    world.begin(Stop(A), 1.0)

    assert Status.STOPPING is status(world)


def test_memory_is_waited_for_after_the_end() -> None:
    """That the engine shows it ended is not enough: until our stop has returned, what it held counts."""
    world = fleet(shown(running=True))
    world.begin(Stop(A), 1.0)
    world.end_listing(world.begin_listing(), [shown(running=False, ended=KILLED)])

    assert Status.STOPPING is status(world)

    world.settle(A)
    world.end_listing(world.begin_listing(), [shown(running=False, ended=KILLED)])

    assert Status.STOPPED is status(world)
