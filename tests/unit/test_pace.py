"""How fast the box is allowed to be: what slows it down, for how long that counts, and what a worker then serves at once."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.pace import FALL_S, FULL, LITTLE, MUCH, RISE_S, STEPS, Cause, Pace, Pacer, Sign, signs
from controller.power import QUIET, Card, HotSpot, PowerMode, PowerModes, PowerReading, Throttle

SUPER = (
    PowerMode(number=0, name="15W", gpu_hz=612e6, memory_hz=2133e6, cpu_hz=1497.6e6),
    PowerMode(number=1, name="25W", gpu_hz=918e6, memory_hz=3199e6, cpu_hz=1344e6),
    PowerMode(number=2, name="MAXN_SUPER"),
    PowerMode(number=3, name="7W", gpu_hz=408e6, memory_hz=2133e6, cpu_hz=960e6),
)
"""The modes of an Orin Nano Super."""


def hot(factor: float = MUCH, text: str = "hot") -> Sign:
    """Make a sign of heat."""
    return Sign(cause=Cause.HEAT, text=text, factor=factor)


def slow(factor: float) -> Sign:
    """Make a sign of a power mode."""
    return Sign(cause=Cause.MODE, text="mode", factor=factor)


def factors(*looks: tuple[float, float | None]) -> list[float]:
    """Look at these times, at which heat leaves this share of the speed, and return the paces."""
    pacer = Pacer()
    return [pacer.see([] if left is None else [hot(left)], now).factor for now, left in looks]


# What slows a box down.


def test_a_quiet_box_gives_no_sign() -> None:
    """Nothing is said for the sake of saying something."""
    assert [] == list(signs(QUIET, QUIET, elapsed_s=2.0))


@pytest.mark.parametrize(("current", "share"), [(0, 612 / 918), (1, 1.0), (2, 1.0), (3, 408 / 918), (9, 1.0), (None, 1.0)])
def test_the_share_of_a_mode_is_that_of_its_slowest_clock(current: int | None, share: float) -> None:
    """Memory or GPU, compared with the highest cap; a mode that nobody knows costs nothing."""
    assert pytest.approx(share) == PowerModes(modes=SUPER, current=current).share


def test_the_strongest_mode_is_neither_the_first_nor_the_last() -> None:
    """By what it caps, and by its name where nothing is capped; never by its number."""
    named = (PowerMode(number=0, name="10W"), PowerMode(number=1, name="15W"), PowerMode(number=2, name="7W"))
    agx = (PowerMode(number=0, name="MAXN"), PowerMode(number=3, name="50W", gpu_hz=828e6, memory_hz=3199e6))

    assert ["MAXN_SUPER", "25W", "15W", "MAXN"] == [
        mode.name
        for modes in (SUPER, (*SUPER[:2], SUPER[3]), named, agx)
        if (mode := PowerModes(modes=modes).strongest) is not None
    ]
    assert PowerModes().strongest is None


def test_a_weak_mode_is_a_sign_and_names_the_strongest() -> None:
    """Its number is said too, since that is what nvpmodel takes."""
    (sign,) = signs(PowerReading(modes=PowerModes(modes=SUPER, current=0)), QUIET, elapsed_s=2.0)

    assert (Cause.MODE, pytest.approx(612 / 918)) == (sign.cause, sign.factor)
    assert "15W (0), and the strongest is MAXN_SUPER (2)" in sign.text


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (PowerReading(spots=(HotSpot(name="tj", celsius=98.9, limit_celsius=99.0),)), []),
        (PowerReading(spots=(HotSpot(name="tj", celsius=99.0, limit_celsius=99.0),)), [(Cause.HEAT, MUCH)]),
        (PowerReading(spots=(HotSpot(name="tj", celsius=120.0),)), []),
        (PowerReading(throttles=(Throttle(name="gpu", state=0, most=2),)), []),
        (PowerReading(throttles=(Throttle(name="gpu", state=1, most=2),)), [(Cause.HEAT, LITTLE)]),
        (PowerReading(throttles=(Throttle(name="gpu", state=2, most=2),)), [(Cause.HEAT, MUCH)]),
        (PowerReading(counts={"over-current": 7}), [(Cause.CURRENT, LITTLE)]),
        (PowerReading(counts={"over-current": 6}), []),
        (PowerReading(counts={"over-current": 5}), []),
        (PowerReading(counts={"heat of it": 7}), [(Cause.HEAT, LITTLE)]),
        (PowerReading(counts={"new": 99}), []),
        (PowerReading(slowed_s=100.1), []),
        (PowerReading(slowed_s=100.2), [(Cause.HEAT, LITTLE)]),
        (PowerReading(slowed_s=101.0), [(Cause.HEAT, MUCH)]),
        (PowerReading(processor_share=0.76), []),
        (PowerReading(processor_share=0.74), [(Cause.MODE, 0.5)]),
        (PowerReading(processor_share=0.74, cards=(Card(index=0),)), []),
        (PowerReading(processor_share=0.74, modes=PowerModes(modes=SUPER, current=2)), []),
        (PowerReading(cards=(Card(index=0, share=0.4),)), []),
        (PowerReading(cards=(Card(index=0, share=0.4, hot=True),)), [(Cause.HEAT, 0.4)]),
        (PowerReading(cards=(Card(index=0, hot=True),)), [(Cause.HEAT, LITTLE)]),
        (PowerReading(cards=(Card(index=0, limit_share=0.8),)), [(Cause.MODE, 0.8)]),
    ],
)
def test_each_thing_that_slows_a_box_down_is_a_sign(reading: PowerReading, expected: list[tuple[Cause, float]]) -> None:
    """A limit that is reached, a throttle at work, a counter that grows, a card that its driver slows down."""
    before = PowerReading(counts={"over-current": 5, "heat of it": 5}, slowed_s=100.0)

    assert expected == [(sign.cause, sign.factor) for sign in signs(reading, before, elapsed_s=2.0)]


def test_the_first_look_knows_of_no_growth() -> None:
    """What was counted before we came is nobody's news."""
    reading = PowerReading(counts={"over-current": 5}, slowed_s=100.0)

    assert [] == list(signs(reading, QUIET, elapsed_s=0.0))
    assert [] == list(signs(reading, replace(QUIET, slowed_s=0.0), elapsed_s=0.0))


# For how long it counts.


def test_heat_counts_when_it_has_lasted() -> None:
    """Not before `FALL_S`, and then at once."""
    assert [1.0, 1.0, MUCH, MUCH] == factors((0.0, MUCH), (FALL_S - 0.1, MUCH), (FALL_S, MUCH), (FALL_S + 2.0, MUCH))


def test_a_gap_begins_the_count_anew() -> None:
    """A moment of heat every few seconds slows nothing down."""
    assert [1.0] * 5 == factors((0.0, MUCH), (4.0, None), (6.0, MUCH), (FALL_S + 5.0, MUCH), (FALL_S + 5.5, None))


def test_worse_heat_ends_the_time_that_it_was_cooler() -> None:
    """A slow box that is hotter for a moment has been cool since that moment, and no longer."""
    slow_box = ((0, MUCH), (FALL_S, MUCH))
    cool = FALL_S + 1
    moment = ((cool, None), (cool + 9, STEPS[-1]), (cool + 10, None))

    assert MUCH == factors(*slow_box, *moment, (cool + RISE_S, None))[-1]
    assert 1.0 == factors(*slow_box, *moment, (cool + 10 + RISE_S, None))[-1]


def test_what_counts_is_the_best_that_was_seen() -> None:
    """A worse moment among them is only a moment; if it lasts, it counts the next time."""
    looks = ((0.0, 0.25), (2.0, LITTLE), (FALL_S, 0.25), (FALL_S + 2.0, 0.25), (2 * FALL_S + 2.0, 0.25))

    assert [1.0, 1.0, LITTLE, LITTLE, 0.25] == factors(*looks)


def test_it_comes_back_when_it_was_cool_for_long() -> None:
    """A box at its limit does not flap; and what comes back is the worst that was seen meanwhile."""
    cool = FALL_S + 2.0
    looks = [(0.0, 0.25), (FALL_S, 0.25), (cool, None), (cool + 20.0, 0.25), (cool + 22.0, None)]
    looks += [(cool + 24.0, LITTLE), (cool + 22.0 + RISE_S - 0.1, None), (cool + 22.0 + RISE_S, None)]
    looks += [(cool + 24.0 + RISE_S, None), (cool + 24.0 + 2 * RISE_S, None)]

    assert [1.0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, LITTLE, LITTLE, 1.0] == factors(*looks)


def test_a_cool_moment_of_a_slow_box_begins_the_count_anew() -> None:
    """A box that is slow already becomes slower only by what lasts, as one at full speed does."""
    looks = (
        (0.0, MUCH),
        (FALL_S, MUCH),
        (FALL_S + 1.0, 0.25),
        (FALL_S + 3.0, None),
        (FALL_S + 5.0, 0.25),
        (2 * FALL_S + 2.0, 0.25),
    )

    assert [1.0, MUCH, MUCH, MUCH, MUCH, MUCH] == factors(*looks)


@given(st.lists(st.tuples(st.floats(0.1, 20.0), st.sampled_from([None, 0.3, 0.5, 0.8])), max_size=60))
def test_it_never_changes_twice_within_a_moment(looks: list[tuple[float, float | None]]) -> None:
    """Whatever it sees, a fall needs `FALL_S` since the last change, and a rise `RISE_S`."""
    pacer, now, changed_s, before = Pacer(), 0.0, -math.inf, 1.0
    for step_s, left in looks:
        now += step_s
        factor = pacer.see([] if left is None else [hot(left)], now).factor
        assert factor in STEPS
        if factor != before:
            assert now - changed_s >= (FALL_S if factor < before else RISE_S)
            changed_s, before = now, factor


def test_a_mode_counts_at_once_and_heat_on_top_of_it() -> None:
    """Somebody has decided on it; there is nothing to wait for, and less than the slowest there is not."""
    pacer = Pacer()
    first = pacer.see([slow(0.8), hot()], 0.0)
    second = pacer.see([slow(0.8), hot()], FALL_S)
    third = pacer.see([slow(0.3), hot()], FALL_S + 1.0)
    fourth = pacer.see([hot()], FALL_S + 2.0)

    assert [0.8, pytest.approx(0.4), 0.25, MUCH] == [pace.factor for pace in (first, second, third, fourth)]
    assert [False, True, True, True] == [pace.throttled for pace in (first, second, third, fourth)]
    assert (("mode",), ("mode", "hot"), ("hot",)) == (first.reasons, second.reasons, fourth.reasons)


def test_a_box_that_cools_down_says_what_it_cools_down_from() -> None:
    """As long as the pace is low there is a reason, and none when it is not."""
    pacer = Pacer()
    pacer.see([hot()], 0.0)
    pacer.see([hot(text="tj is at 99")], FALL_S)
    cooling = pacer.see([], FALL_S + 1.0)
    pacer.see([], FALL_S + 1.0 + RISE_S)

    assert ("it cools down; before, tj is at 99",) == cooling.reasons
    assert FULL == pacer.see([], FALL_S + 2.0 + RISE_S)


# What a worker serves at once.


@pytest.mark.parametrize(
    ("factor", "parallel", "places"), [(1.0, 4, 4), (0.75, 4, 3), (0.67, 4, 2), (0.5, 3, 1), (0.25, 2, 1), (0.25, 1, 1)]
)
def test_a_slow_box_serves_fewer_at_once_and_never_nobody(factor: float, parallel: int, places: int) -> None:
    """In proportion, rounded down."""
    assert places == Pace(factor=factor).places(parallel)
