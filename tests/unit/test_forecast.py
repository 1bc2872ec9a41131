"""How long a caller will wait: what the two figures depend on, and in which direction."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK, Line, bound_s, eta_s
from controller.spec import ModelName

lines = st.builds(
    Line,
    model=st.just(ModelName("m")),
    waiting=st.integers(0, 20),
    parallel=st.integers(1, 4),
    load_s=st.floats(0.0, 100.0),
    service_s=st.floats(0.0, 50.0),
    resident=st.booleans(),
    busy=st.integers(0, 4),
    gated=st.booleans(),
)

IDLE = Line(model=ModelName("i"), waiting=0, parallel=2, load_s=3.0, service_s=4.0, resident=True, busy=0)
LIMITS = {"quantum_s": 10.0, "request_limit_s": 100.0}
TURN_S = 110.0 + 3.0 * LOAD_SLACK + LOAD_MARGIN_S


@given(lines, st.lists(lines, max_size=4), st.integers(1, 5))
def test_more_callers_ahead_never_shorten_the_wait(own: Line, others: list[Line], more: int) -> None:
    """Both figures grow, or stay, with the callers before one."""
    longer = replace(own, waiting=own.waiting + more)
    fuller = [replace(line, waiting=line.waiting + more) for line in others]

    assert bound_s(longer, others, **LIMITS) >= bound_s(own, others, **LIMITS)
    assert bound_s(own, fuller, **LIMITS) >= bound_s(own, others, **LIMITS)
    assert eta_s(longer, others) >= eta_s(own, others)
    assert eta_s(own, fuller) >= eta_s(own, others)


@given(lines, st.lists(lines, max_size=4), lines)
def test_another_model_in_the_way_never_shortens_the_wait(own: Line, others: list[Line], another: Line) -> None:
    """Both figures grow, or stay, with the models in the way."""
    assert bound_s(own, [*others, another], **LIMITS) >= bound_s(own, others, **LIMITS)
    assert eta_s(own, [*others, another]) >= eta_s(own, others)


@given(lines, st.lists(lines, max_size=4), st.floats(0.0, 60.0))
def test_a_patient_caller_is_promised_less(own: Line, others: list[Line], patience_s: float) -> None:
    """Who lets others go first waits longer, by its patience at least."""
    patient_s = bound_s(own, others, **LIMITS, patience_s=patience_s)

    assert patient_s >= patience_s + bound_s(own, others, **LIMITS) - 1e-6


@given(lines, st.lists(lines, max_size=4), st.floats(1.0, 400.0), st.floats(0.1, 400.0))
def test_slower_models_and_longer_requests_never_shorten_the_bound(
    own: Line, others: list[Line], quantum_s: float, request_limit_s: float
) -> None:
    """The bound grows with load times, and covers one load and one turn of the caller's own model."""
    bound = bound_s(own, others, quantum_s=quantum_s, request_limit_s=request_limit_s)
    slower = [replace(line, load_s=line.load_s + 1.0) for line in others]

    assert bound >= quantum_s + request_limit_s + own.load_s
    assert bound_s(own, slower, quantum_s=quantum_s, request_limit_s=request_limit_s) >= bound


def test_a_free_worker_is_bounded_by_one_turn_and_expected_at_once() -> None:
    """Nobody is in the way of a caller whose worker is ready and has room."""
    others = [replace(IDLE, waiting=9)]

    assert pytest.approx(TURN_S) == bound_s(IDLE, others, **LIMITS)
    assert eta_s(IDLE, others) == 0.0


@pytest.mark.parametrize(
    "change", [{"resident": False}, {"gated": True}, {"waiting": 1}, {"busy": 2}], ids=lambda change: next(iter(change))
)
def test_a_worker_that_is_not_free_is_behind_the_others(change: dict[str, int]) -> None:
    """Not resident, held back, with older callers or full: then the others' turns count."""
    own = replace(IDLE, **change)  # type: ignore[arg-type]

    assert not own.free
    assert bound_s(own, [IDLE], **LIMITS) >= 2 * TURN_S - 1e-6
    assert eta_s(own, [replace(IDLE, waiting=2)]) > 0.0


def test_a_turn_serves_as_many_as_the_model_serves_at_once() -> None:
    """Callers, served ones too, are counted in turns of `parallel`."""
    own = replace(IDLE, resident=False)
    for callers, turns in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3)):
        assert pytest.approx(turns * TURN_S) == bound_s(replace(own, waiting=callers - 1), [], **LIMITS)
        assert pytest.approx(turns * TURN_S) == bound_s(replace(own, busy=callers - 1), [], **LIMITS)
        assert pytest.approx((turns + 1) * TURN_S) == bound_s(own, [replace(IDLE, waiting=callers)], **LIMITS)


def test_the_bound_counts_on_one_worker_and_the_likely_wait_on_all() -> None:
    """Replicas may go at any moment: they shorten what is expected, not what is promised."""
    full = replace(IDLE, waiting=5, busy=2)
    shared = replace(full, replicas=3)

    assert bound_s(shared, [shared], **LIMITS) == bound_s(full, [full], **LIMITS)
    assert eta_s(shared, []) < eta_s(full, [])


def test_a_long_quantum_serves_several_requests_a_turn() -> None:
    """Where the longest request fits three times into the quantum, a turn serves three times as many."""
    bounds = [bound_s(replace(IDLE, waiting=n), [], quantum_s=35.0, request_limit_s=10.0) for n in (5, 6)]

    assert bounds[1] == 2 * bounds[0]


def test_patience_takes_the_free_worker_away() -> None:
    """Newer callers may go first, so a batch caller is never promised the worker that is free now."""
    assert pytest.approx(2 * TURN_S + 30.0) == bound_s(IDLE, [IDLE], **LIMITS, patience_s=30.0)


def test_what_is_likely_adds_loads_and_batches() -> None:
    """The likely wait is the loads that are needed and the batches that go first."""
    away = replace(IDLE, resident=False)
    full = replace(IDLE, busy=2)

    assert eta_s(away, []) == 3.0
    assert eta_s(replace(away, waiting=3), []) == 3.0 + 2 * 4.0
    assert eta_s(full, [replace(IDLE, busy=2)]) == 4.0
    assert eta_s(full, [replace(away, waiting=1)]) == 4.0 + 3.0 + 4.0
    assert eta_s(away, [replace(IDLE, busy=1)]) == 4.0 + 3.0
    assert eta_s(replace(IDLE, gated=True), [replace(IDLE, busy=1)]) == 4.0 + 3.0
