"""Figures of what happened lately."""

import pytest

from controller.journal import MAX_SAMPLES, Journal, Load, Served, Unload, percentile
from controller.spec import ModelName

A, B = ModelName("a"), ModelName("b")


def served(model: ModelName = A, *, at_s: float = 0.0, outcome: str = "ok", total_s: float = 2.0, tokens: int = 10) -> Served:
    """Make a request that was answered."""
    return Served(
        model=model,
        at_s=at_s,
        outcome=outcome,
        waited_s=0.5,
        first_token_s=1.0,
        total_s=total_s,
        prompt_tokens=3,
        completion_tokens=tokens,
    )


def load(model: ModelName = A, *, at_s: float = 0.0) -> Load:
    """Make a load."""
    return Load(model=model, at_s=at_s, weights_bytes=9, room_s=0.25, start_s=0.5, ready_s=1.0, evicted=(B,))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0, 3.0, 4.0], 0.95, 4.0), ([1.0, 2.0], 0.5, 1.0)],
)
def test_percentiles_are_values_that_occurred(values: list[float], share: float, expected: float | None) -> None:
    """By the nearest rank, in whatever order they came."""
    assert expected == percentile(values, share)


def test_only_what_lies_in_the_window_counts() -> None:
    """Older requests are in the totals alone."""
    journal = Journal()
    for at_s in (0.0, 90.0, 100.0):
        journal.add(served(at_s=at_s))
    figures = journal.performance(100.0, window_s=10.0)

    assert 3 == figures["totals"]["requests"]
    assert 2 == figures["totals"]["window_requests"]
    assert 2 == figures["models"][0]["window_requests"]


def test_each_model_has_its_own_figures() -> None:
    """Requests, loads and unloads are told apart by model, and models are in the order of their names."""
    journal = Journal()
    for event in (served(B), served(B, outcome="error"), load(A), Unload(model=A, at_s=0.0, seconds=0.1, memory_bytes=9)):
        journal.add(event)
    a, b = journal.performance(1.0, window_s=10.0)["models"]

    assert ("a", 0, 1, 1) == (a["model"], a["window_requests"], a["window_loads"], a["window_unloads"])
    assert ("b", 2, 1, 0) == (b["model"], b["window_requests"], b["window_errors"], b["window_loads"])


def test_speed_is_tokens_by_the_time_of_decoding() -> None:
    """The wait for the first token does not count, and neither does what went wrong."""
    journal = Journal()
    journal.add(served(total_s=3.0, tokens=10))
    journal.add(served(outcome="error", total_s=100.0, tokens=1))
    journal.add(served(outcome="cancelled", total_s=100.0))
    totals = journal.performance(1.0, window_s=10.0)["totals"]

    assert 5.0 == totals["tokens_per_s"]
    assert {"p50": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0} == totals["latency_s"]
    assert (1, 1, 3) == (totals["errors"], totals["cancelled"], totals["requests"])


def test_nothing_yet_is_no_error() -> None:
    """Figures without values are null."""
    figures = Journal().performance(0.0, window_s=1.0)

    assert figures["totals"]["tokens_per_s"] is None
    assert {"p50": None, "p95": None, "p99": None, "max": None} == figures["totals"]["load_s"]
    assert [] == figures["models"] == figures["recent_loads"]


def test_a_load_says_where_its_time_went() -> None:
    """Room, start and readiness add up."""
    journal = Journal()
    journal.add(load(at_s=4.0))
    (row,) = journal.performance(6.0, window_s=10.0)["recent_loads"]

    assert (2.0, 1.75, 0.25, 0.5, 1.0, ["b"]) == (
        row["ago_s"],
        row["total_s"],
        row["room_s"],
        row["start_s"],
        row["ready_s"],
        row["evicted"],
    )


def test_memory_is_bounded() -> None:
    """The oldest requests are forgotten, the totals are not."""
    journal = Journal()
    for _ in range(MAX_SAMPLES + 5):
        journal.add(served())
    journal.failed()
    totals = journal.performance(0.0, window_s=1.0)["totals"]

    assert (MAX_SAMPLES, MAX_SAMPLES + 5, 1) == (totals["window_requests"], totals["requests"], totals["failures"])
