"""What operators see: how well all of it is, and rows of plain values."""

from pathlib import PurePosixPath

import pytest

from controller import planner, reports
from controller.callers import Waiter
from controller.probes.host import DiskKind, DiskReading
from controller.records import Record
from controller.reports import FULL_DISK_BYTES, STUCK_S, Transition
from controller.spec import ModelName
from controller.state import Exit, ExitCause, LeaseId, Status
from tests.core.world import model_spec, worker

A, B = ModelName("a"), ModelName("b")
WAITER = Waiter(lease=LeaseId("1"), model=A, sequence=1, since_s=0.0, bound_s=60.0)
WELL = {"queue": (), "transitions": (), "engine_away": None, "problems": (), "resting": (), "now": 60.0}
HANGS = Transition(model=A, action="stop", seconds=STUCK_S + 1)


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "ok", ""),
        ({"queue": [WAITER]}, "ok", ""),
        ({"queue": [WAITER], "now": 61.0}, "failing", "a caller of a has waited 1 min 01 s, longer than was promised"),
        ({"transitions": [Transition(model=A, action="stop", seconds=STUCK_S)]}, "ok", ""),
        ({"transitions": [HANGS]}, "failing", "stop of a has been under way for 2 min 01 s"),
        ({"engine_away": "no socket"}, "failing", "the container engine does not answer: no socket"),
        ({"problems": ["the folder x is not served"]}, "degraded", "the folder x is not served"),
        ({"resting": ["b", "a"]}, "degraded", "a keeps failing"),
        ({"resting": ["a"], "engine_away": "gone"}, "failing", "gone"),
    ],
)
def test_health_says_what_is_wrong(changes: dict[str, object], state: str, words: str) -> None:
    """Failing when nobody can be served, degraded when somebody should know, ok otherwise."""
    said, reasons = reports.health(**{**WELL, **changes})  # type: ignore[arg-type]

    assert state == said
    assert words in "; ".join(reasons)
    assert bool(reasons) == (state != "ok")


def test_an_all_but_full_disk_is_worth_a_word() -> None:
    """Just enough is enough."""

    def disk(free_bytes: int) -> DiskReading:
        return DiskReading(total_bytes=10**12, free_bytes=free_bytes, kind=DiskKind.SSD)

    assert [] == reports.disk_complaints(disk(FULL_DISK_BYTES), PurePosixPath("/h"))
    assert "/h" in reports.disk_complaints(disk(FULL_DISK_BYTES - 1), PurePosixPath("/h"))[0]


@pytest.mark.parametrize(
    ("shown", "resting", "state"),
    [
        (None, False, "on_disk"),
        (Status.STOPPED, False, "stopped"),
        (Status.STARTING, False, "loading"),
        (Status.READY, False, "resident"),
        (Status.STOPPING, False, "stopping"),
        (Status.STOPPED, True, "failed"),
    ],
)
def test_a_models_state_is_one_word(shown: Status | None, resting: bool, state: str) -> None:
    """By what its worker does, unless it rests."""
    record = Record(load_s=1.0, resting=resting, retry_at_s=10.0)
    seen = None if shown is None else worker("a", shown)

    assert state == reports.model_row(model_spec("a"), worker=seen, record=record, measured=None, now=5.0)["state"]


def test_a_failure_is_shown_until_it_is_forgiven() -> None:
    """The reason names the cause, and goes with the failures."""
    record = Record(load_s=1.0, failures=2, last_exit=Exit(cause=ExitCause.CRASHED, code=1, detail="boom"))

    assert "crashed: boom" == reports.model_row(model_spec("a"), worker=None, record=record, measured=None, now=0.0)["reason"]

    record.forgive()

    assert reports.model_row(model_spec("a"), worker=None, record=record, measured=None, now=0.0)["reason"] is None


@pytest.mark.parametrize(
    ("answer", "resident", "expected"),
    [
        (planner.Start(), True, ("start", [], "it is resident")),
        (planner.Start(), False, ("start", [], "it fits beside what is resident")),
        (planner.Start(evict=(B,)), False, ("start", ["b"], "it fits once the idle models named are gone")),
        (planner.Wait(drain=(B,)), False, ("wait", ["b"], "it fits once the models named, which are busy, have been drained")),
        (planner.Refuse(short_bytes=3), False, ("refuse", [], "it can never fit: 3 bytes too many beside what is pinned")),
    ],
)
def test_a_plan_says_who_leaves_and_why(answer: planner.Plan, resident: bool, expected: tuple[str, list[str], str]) -> None:
    """The answer, who would go, and a sentence."""
    row = reports.plan_row(model_spec("a"), answer, resident=resident, held={B: 4}, values={B: 0.5}, budget_bytes=10, load_s=1.0)

    assert expected == (row["answer"], [gone["model"] for gone in row["evict"]], row["reason"])
    assert 6 == row["free_bytes"]
    assert row["fits"] is (expected[0] != "refuse")


def test_a_workers_row_shows_its_end() -> None:
    """How it ended, or since when it runs."""
    ended = reports.worker_row(
        worker("a", Status.STOPPED, exited=Exit(cause=ExitCause.OUT_OF_MEMORY, code=137)), leases=0, usage=None, now=1.0
    )

    assert {"cause": "out_of_memory", "code": 137, "detail": ""} == ended["exit"]
    assert ended["run_s"] is None
