"""Windlass and llama.cpp's own router, side by side with small models: the measurement that compares them is one."""

import pytest

from bench.sides import sides
from bench.soak import MINI
from bench.trace import compared, take_turns, turns

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NAMES = ("first", "second")


def test_both_sides_answer_the_same_callers_and_their_swaps_are_counted() -> None:
    """Nobody fails on our side, each swaps at least once for two models of which one fits, and the figures can be compared."""
    with sides(dict.fromkeys(NAMES, MINI), resident=1) as up:
        ours, theirs = take_turns("small", up, [turns(NAMES)])
        resident = up.windlass.resident()
        rows = compared("small", ours, theirs)

    # Its router now and then ends an answer with this error of its own; any other is a fault of the comparison.
    known = [failure for failure in theirs.failures if "proxy error: Failed to read connection" in failure]
    assert [] == ours.failures
    assert known == theirs.failures
    assert len(ours.answers) == len(theirs.answers) + len(known) > len(known)
    assert ours.loads >= 1
    assert theirs.loads >= 1
    assert len(resident) == 1
    assert {"small: failures", "small: swaps"} <= {row.name for row in rows if row.met is not None}
