"""Traces are the same in every run, and what no order can avoid is known."""

from collections import Counter

import pytest

from bench.arrivals import fewest_loads, in_turn, zipf_arrivals
from bench.rows import Row
from bench.sides import Answer
from bench.trace import Course, compared


def test_clients_ask_in_turn_from_their_own_place() -> None:
    """The second client begins with the second model, and each asks for all of them as often."""
    assert ["b", "c", "a", "b", "c", "a"] == in_turn(["a", "b", "c"], first=1, rounds=2)


def test_zipf_arrivals_are_the_same_again_and_the_first_model_leads() -> None:
    """One seed gives one trace; they come in order, within the time, at about the rate; ranks decide how often."""
    names = ["a", "b", "c"]
    trace = zipf_arrivals(names, seconds=2000, per_s=1.0, seed=1)
    counts = Counter(arrival.model for arrival in trace)

    assert trace == zipf_arrivals(names, seconds=2000, per_s=1.0, seed=1)
    assert trace != zipf_arrivals(names, seconds=2000, per_s=1.0, seed=2)
    assert sorted(arrival.at_s for arrival in trace) == [arrival.at_s for arrival in trace]
    assert trace[-1].at_s < 2000
    assert 1800 < len(trace) < 2200
    assert counts["a"] == pytest.approx(2 * counts["b"], rel=0.2)
    assert counts["a"] == pytest.approx(3 * counts["c"], rel=0.2)


@pytest.mark.parametrize(
    ("orders", "resident", "loads"),
    [
        ([["a"]], "a", 0),
        ([["a"]], "b", 1),
        ([["a", "b"], ["a", "b"]], "a", 1),
        ([["a", "b"], ["b", "a"]], "a", 2),
        ([["a", "a", "b"]], "b", 2),
        ([["a", "b", "c"] * 2, ["b", "c", "a"] * 2, ["c", "a", "b"] * 2], "a", 7),
    ],
)
def test_the_fewest_loads_serve_everybody_in_their_own_order(orders: list[list[str]], resident: str, loads: int) -> None:
    """It is the shortest sequence that contains every order, less the first if that is there already."""
    assert loads == fewest_loads(orders, resident=resident)


def course(*seconds: float, loads: int, failure: str = "") -> Course:
    """Return a course with answers that took so long, the last one failed if *failure* is given."""
    answers = [Answer(model="a", asked_s=0.0, seconds=one) for one in seconds]
    if failure:
        answers[-1] = Answer(model="a", asked_s=0.0, seconds=seconds[-1], failure=failure)
    return Course(answers=answers, loads=loads, memory=[(0.0, 50, 100), (1.0, 90, 100)])


def verdicts(rows: list[Row]) -> dict[str, bool | None]:
    """Return which goals are met, by the words after the trace's name."""
    return {row.name.removeprefix("T: "): row.met for row in rows if row.met is not None}


def test_a_course_is_held_against_the_others() -> None:
    """Fewer swaps, a lower p95 and a shorter longest wait are goals, and so is that nobody fails."""
    better, worse = course(1, 2, 3, loads=2), course(2, 3, 4, loads=3, failure="refused")

    assert set(verdicts(compared("T", better, worse)).values()) == {True}
    assert {
        "failures": False,
        "swaps": False,
        "from asking to the last byte, p95": False,
        "from asking to the last byte, longest": False,
        "most committed, as a share of the budget": True,
    } == verdicts(compared("T", worse, better))


def test_as_few_swaps_as_there_can_be_are_few_enough() -> None:
    """A tie is a miss, unless no order could do with fewer."""
    one, other = course(1, 2, loads=8), course(2, 3, loads=8)

    assert verdicts(compared("T", one, other, fewest=8))["swaps"]
    assert not verdicts(compared("T", one, other, fewest=7))["swaps"]
    assert not verdicts(compared("T", one, other))["swaps"]


def test_courses_that_differ_in_length_are_not_compared() -> None:
    """Answers that are missing on one side would make it look better."""
    with pytest.raises(SystemExit, match="cannot be held against"):
        compared("T", course(1, loads=1), course(1, 2, loads=1))
