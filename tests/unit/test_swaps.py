"""What a load and an unload were made of, from what was noted on the way."""

from controller.probes.notices import Notices, Reading
from controller.readahead import LoadMode, LoadPlan
from controller.spec import ModelName
from controller.state import Status
from controller.swaps import Swaps
from tests.core.world import model_spec, worker

A, B = ModelName("a"), ModelName("b")
PLAN = LoadPlan(mode=LoadMode.READ_AHEAD, weights_bytes=100, cached_bytes=10)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def heard() -> Notices:
    """Make what a worker said that began at 10.0 and was ready at 14.0."""
    notices = Notices(read_bytes=5)
    notices.marks = {"main": 10.5, "vocabulary": 11.5, "tensors": 13.0, "ready": 14.0}
    notices.reading = Reading(read_bytes=90, began_s=4.0, ended_s=12.0)
    return notices


def test_a_held_load_is_told_part_by_part() -> None:
    """Drain and kill come before it is let go, its container's start and its reading beside them; nothing is counted twice."""
    clock = Clock()
    swaps = Swaps(clock)
    clock.now = 2.0
    swaps.claimed(A, asked_s=1.0)
    swaps.told_to_start(A, held=True)
    swaps.planned(A, PLAN)
    clock.now = 2.5
    swaps.started(A)
    clock.now = 8.0
    swaps.wanted(A, (B,))
    clock.now = 10.0
    swaps.told_to_begin(A)
    clock.now = 14.25
    load = swaps.arrived(model_spec("a"), heard())

    assert load is not None
    assert {
        "decide_s": 1.0,
        "drain_s": 6.0,
        "kill_s": 2.0,
        "container_s": 0.5,
        "read_s": 8.0,
        "process_s": 0.5,
        "vocabulary_s": 1.0,
        "map_s": 1.5,
        "ready_s": 1.0,
        "notice_s": 0.25,
    } == load.parts
    assert (2.0, 0.0, 4.25) == (load.room_s, load.start_s, load.ready_s)
    assert (True, "read_ahead", 10, 95, (B,)) == (load.held, load.mode, load.cached_bytes, load.read_bytes, load.evicted)
    assert not swaps.is_known(A)


def test_a_plain_load_begins_with_its_container() -> None:
    """Without a hold the worker's part begins when the engine has started it."""
    clock = Clock()
    swaps = Swaps(clock)
    swaps.claimed(A, asked_s=None)
    swaps.wanted(A, ())
    swaps.told_to_start(A, held=False)
    clock.now = 0.5
    swaps.started(A)
    clock.now = 2.0
    load = swaps.arrived(model_spec("a"), None)

    assert load is not None
    assert (0.0, 0.5, 1.5, 2.0) == (load.room_s, load.start_s, load.ready_s, load.total_s)
    assert (False, "", None) == (load.held, load.mode, load.read_bytes)


def test_times_that_cannot_be_are_not_believed() -> None:
    """A mark from before the start or from the future belongs to nobody."""
    clock = Clock()
    swaps = Swaps(clock)
    clock.now = 10.0
    swaps.wanted(A, ())
    swaps.told_to_start(A, held=False)
    clock.now = 12.0
    notices = Notices()
    notices.marks = {"main": 3.0, "header": 11.0, "vocabulary": 99.0}
    load = swaps.arrived(model_spec("a"), notices)

    assert load is not None
    assert {"header_s": 1.0, "notice_s": 1.0} == {name: s for name, s in load.parts.items() if name in ("header_s", "notice_s")}
    assert not {"process_s", "vocabulary_s"} & load.parts.keys()


def test_a_claim_that_goes_is_forgotten() -> None:
    """And what was adopted is no load of ours."""
    swaps = Swaps(Clock())
    swaps.claimed(A, asked_s=None)
    swaps.keep(frozenset({B}))

    assert not swaps.is_known(A)
    assert swaps.arrived(model_spec("a"), None) is None


def test_an_unload_is_told_part_by_part() -> None:
    """It is told once, when the worker is seen not to run, and only if it was asked for."""
    clock = Clock()
    swaps = Swaps(clock)
    gone = worker(A, Status.STOPPED)
    swaps.told_to_stop(A)
    swaps.ended(A, {"save_s": 0.1, "kill_s": 0.2, "back_s": 0.0}, returned_bytes=77)
    clock.now = 0.5
    unload = swaps.departed(gone)

    assert unload is not None
    assert (0.5, 77, {"save_s": 0.1, "kill_s": 0.2, "back_s": 0.0}) == (unload.seconds, unload.returned_bytes, unload.parts)
    assert swaps.departed(gone) is None
