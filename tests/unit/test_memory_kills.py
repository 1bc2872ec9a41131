"""Runs that the kernel killed for want of memory are known as such, although the engine missed it."""

from pathlib import Path

import pytest

from controller.drivers.base import Container
from controller.fleet import Fleet
from controller.probes.kernel import read_memory_kills
from controller.reconcile import Stop
from controller.spec import ModelName
from controller.state import Exit, ExitCause, RunId

KILLED = Exit(cause=ExitCause.KILLED, code=137)
SHORT = Exit(cause=ExitCause.OUT_OF_MEMORY, code=137)


def container(name: str, *, run: str = "first", exit: Exit | None = None) -> Container:  # noqa: A002 -- its field's name
    """Return a container that runs, or has ended like this."""
    return Container(model=ModelName(name), running=exit is None, memory_bytes=1, spec_hash="s", run=RunId(run), exit=exit)


def seen(*containers: Container) -> Fleet:
    """Return a fleet that has seen these."""
    fleet = Fleet()
    fleet.end_listing(fleet.begin_listing(), containers)
    return fleet


def causes(fleet: Fleet) -> dict[str, ExitCause | None]:
    """Return how each worker has ended."""
    return {model: worker.exit.cause if worker.exit else None for model, worker in fleet.workers().items()}


@pytest.mark.parametrize(("memory_kills", "cause"), [(0, ExitCause.KILLED), (1, ExitCause.OUT_OF_MEMORY)])
def test_a_kill_of_which_nobody_knows_is_the_kernels_if_it_killed(memory_kills: int, cause: ExitCause) -> None:
    """A worker killed while the kernel killed for memory ran out of it; otherwise somebody killed it."""
    fleet = seen(container("a"))
    fleet.end_listing(fleet.begin_listing(), [container("a", exit=KILLED)], memory_kills=memory_kills)

    assert {"a": cause} == causes(fleet)


def test_what_was_found_out_is_remembered() -> None:
    """The next listing shows the same end, and says no more of it."""
    fleet = seen(container("a"))
    for memory_kills in (1, 0, 0):
        fleet.end_listing(fleet.begin_listing(), [container("a", exit=KILLED)], memory_kills=memory_kills)

    assert {"a": ExitCause.OUT_OF_MEMORY} == causes(fleet)


def test_a_run_that_began_and_ended_between_two_listings_counts() -> None:
    """A container seen stopped before, and now ended in another run, has just ended."""
    fleet = seen(container("a", exit=Exit(cause=ExitCause.STOPPED, code=0)))
    fleet.end_listing(fleet.begin_listing(), [container("a", run="second", exit=KILLED)], memory_kills=1)

    assert {"a": ExitCause.OUT_OF_MEMORY} == causes(fleet)


def test_what_the_engine_knows_explains_the_kernels_kill() -> None:
    """One kill that the engine knows of leaves none for a worker that somebody killed at the same time."""
    fleet = seen(container("a"), container("b"))
    fleet.end_listing(fleet.begin_listing(), [container("a", exit=SHORT), container("b", exit=KILLED)], memory_kills=1)

    assert {"a": ExitCause.OUT_OF_MEMORY, "b": ExitCause.KILLED} == causes(fleet)


def test_who_was_stopped_by_us_was_not_killed_by_the_kernel() -> None:
    """A worker we are stopping has ended because we did."""
    fleet = seen(container("a"))
    fleet.begin(Stop(model=ModelName("a")), 0.0)
    fleet.end_listing(fleet.begin_listing(), [container("a", exit=KILLED)], memory_kills=1)
    meanwhile = causes(fleet)
    fleet.settle(ModelName("a"))
    fleet.end_listing(fleet.begin_listing(), [container("a", exit=KILLED)])

    assert {"a": None} == meanwhile, "it is on its way out until its memory is back"
    assert {"a": ExitCause.KILLED} == causes(fleet)


def test_what_had_ended_before_is_left_as_it_was() -> None:
    """An end known for long, or found at the start, has nothing to do with what the kernel does now."""
    fleet = seen(container("a", exit=KILLED))
    fleet.end_listing(fleet.begin_listing(), [container("a", exit=KILLED), container("new", exit=KILLED)], memory_kills=2)

    assert {"a": ExitCause.KILLED, "new": ExitCause.KILLED} == causes(fleet)


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    """The figure is that of its line; a kernel without one has counted nothing."""
    (tmp_path / "proc").mkdir()
    missing = read_memory_kills(root=tmp_path)
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 12\noom_kill 7\ndrop_pagecache 0\n", encoding="ascii")

    assert (0, 7) == (missing, read_memory_kills(root=tmp_path))
