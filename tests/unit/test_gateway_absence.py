"""How long one waits for a controller that is away."""

import math

from controller.gateway.absence import ALARM_S, LIMIT_S, Absence

LOST_S = 1000.0


def test_people_are_told_long_before_callers_are_sent_away() -> None:
    """The alarm and the limit begin at their own seconds, and not one moment before."""
    absence = Absence(since_s=LOST_S)

    assert (20.0, 300.0) == (ALARM_S, LIMIT_S)
    assert not absence.is_alarming(LOST_S + ALARM_S - 0.01)
    assert absence.is_alarming(LOST_S + ALARM_S)
    assert not absence.is_given_up(LOST_S + LIMIT_S - 0.01)
    assert absence.is_given_up(LOST_S + LIMIT_S)


def test_one_that_is_given_up_is_alarming() -> None:
    """Whatever the limit is."""
    assert Absence(since_s=LOST_S, limit_s=5.0).is_alarming(LOST_S + 5.0)


def test_nobody_waits_for_one_that_was_never_there() -> None:
    """Nobody knows whether there will be one."""
    assert Absence().is_given_up(0.0)
    assert Absence().is_alarming(0.0)
    assert -math.inf == Absence().until_s


def test_a_caller_waits_as_long_as_it_has_said_and_no_longer_than_anybody() -> None:
    """A deadline counts from the asking, whenever the controller was lost; the limit from when it was lost."""
    absence = Absence(since_s=LOST_S)

    assert LOST_S + LIMIT_S == absence.patience_ends_s(asked_at_s=LOST_S + 7.0, deadline_s=None)
    assert LOST_S + 37.0 == absence.patience_ends_s(asked_at_s=LOST_S + 7.0, deadline_s=30.0)
    assert LOST_S - 20.0 == absence.patience_ends_s(asked_at_s=LOST_S - 50.0, deadline_s=30.0)
    assert LOST_S + LIMIT_S == absence.patience_ends_s(asked_at_s=LOST_S + 7.0, deadline_s=LIMIT_S)
