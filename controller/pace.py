"""
How fast the box is allowed to be, and so how many callers a worker serves at once. Pure.

A box that is slowed down, by heat, by its supply or by a power mode, does less at a time. Serving as many callers at once as when
it is cool would make each of them slow and keep it hot. So a worker serves fewer, and what is expected of it takes longer.

A power mode is somebody's decision and counts at once. Heat comes and goes: it counts when it has lasted for `FALL_S`, and ceases
to count when the box has been better for `RISE_S`, so that a box at its limit does not flap. In between, what counts is the best
(or the worst) that was seen.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.power import PowerReading

STEPS: Final = (1.0, 0.75, 0.5, 0.25)
"""The paces there are: what is known of a throttle is too rough for more."""
FALL_S: Final = 10.0
RISE_S: Final = 30.0
LITTLE: Final = 0.75
MUCH: Final = 0.5
SLOWEST: Final = STEPS[-1]
NOTABLE_SHARE: Final = 0.1
"""The share of time in which processors may be slowed down without anybody having to know."""
NOTABLE_PER_S: Final = 1.0
"""So many events a second slow a box down by as much as anybody would notice."""
HEAT_COUNT: Final = "heat"
"""In the name of a count of `PowerReading` that is about heat; the others are about the supply."""


class Cause(enum.StrEnum):
    """Why a box is slower than it could be."""

    MODE = "mode"
    """A power mode or limit that somebody has set."""
    HEAT = "heat"
    """Something is too hot."""
    CURRENT = "current"
    """It draws more than its supply gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One reason, in words, and the share of full speed that it leaves as far as one can tell."""

    cause: Cause
    text: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """
    How fast the box is now.

    Attributes:
        factor: the share of full speed, 1 at most.
        decisions: why it is not 1 as far as somebody has decided on that, a sentence each.
        alarms: why it is not 1 for all else.

    """

    factor: float = 1.0
    decisions: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not 1."""
        return (*self.decisions, *self.alarms)

    @property
    def throttled(self) -> bool:
        """Whether something else than a decision of somebody's slows it down."""
        return bool(self.alarms)

    def places(self, parallel: int) -> int:
        """Return how many callers a worker serves at once that could serve *parallel* of them; never nobody."""
        return max(1, int(parallel * self.factor))


FULL: Final = Pace()
"""Nothing slows it down."""


class Pacer:
    """Turns signs into a pace that stays a while."""

    def __init__(self) -> None:
        """Begin at full speed."""
        self._level = 1.0
        self._better = _Streak()
        self._worse = _Streak()
        self._texts: tuple[str, ...] = ()

    def see(self, signs: Iterable[Sign], now: float) -> Pace:
        """Take the signs of this moment."""
        signs = tuple(signs)
        passing = [sign for sign in signs if sign.cause is not Cause.MODE]
        lasting = [sign for sign in signs if sign.cause is Cause.MODE]
        target = min((_step(sign.factor) for sign in passing), default=1.0)
        self._settle(target, now)
        if passing:
            self._texts = tuple(sign.text for sign in passing)
        factor = self._level * min((sign.factor for sign in lasting), default=1.0)
        alarms: tuple[str, ...] = ()
        if self._level < 1.0:
            alarms = self._texts if passing else tuple(f"it cools down; before, {text}" for text in self._texts)
        return Pace(factor=max(factor, SLOWEST), decisions=tuple(sign.text for sign in lasting), alarms=alarms)

    def _settle(self, target: float, now: float) -> None:
        if target < self._level:
            self._better.end()
            if self._worse.add(target, now) >= FALL_S:
                self._level = max(self._worse.seen)
                self._worse.end()
        elif target > self._level:
            self._worse.end()
            if self._better.add(target, now) >= RISE_S:
                self._level = min(self._better.seen)
                self._better.end()
        else:
            self._worse.end()
            self._better.end()


class _Streak:
    """What was seen since the level was last right, and for how long that is."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._since_s = 0.0

    def add(self, target: float, now: float) -> float:
        """Note a target and return the seconds since the first of them."""
        if not self.seen:
            self._since_s = now
        if target not in self.seen:
            self.seen.append(target)
        return now - self._since_s

    def end(self) -> None:
        """Begin anew."""
        self.seen = []


def signs(now: PowerReading, before: PowerReading, *, elapsed_s: float) -> Sequence[Sign]:
    """Return what slows the box down, as two readings so many seconds apart show it."""
    return (*_modes(now), *_heat(now), *_counts(now, before, elapsed_s), *_slowed(now, before, elapsed_s), *_cards(now))


def _step(factor: float) -> float:
    return next((step for step in STEPS if step <= factor), SLOWEST)


def _modes(reading: PowerReading) -> Iterable[Sign]:
    modes = reading.modes
    now, strongest = modes.now, modes.strongest
    if now is not None and strongest is not None and modes.share < 1.0:
        text = f"the power mode is {now.name} ({now.number}), and the strongest is {strongest.name} ({strongest.number})"
        yield Sign(cause=Cause.MODE, text=text, factor=modes.share)
    if reading.processor_share < STEPS[1] and now is None and not reading.cards:  # where a GPU computes, they matter little
        text = f"a limit holds the processors at {reading.processor_share:.0%} of their highest clock"
        yield Sign(cause=Cause.MODE, text=text, factor=_step(reading.processor_share))
    for card in reading.cards:
        if card.limit_share < 1.0:
            text = f"the power of GPU {card.index} is limited to {card.limit_share:.0%} of what it was sold with"
            yield Sign(cause=Cause.MODE, text=text, factor=card.limit_share)


def _heat(reading: PowerReading) -> Iterable[Sign]:
    for spot in reading.spots:
        if spot.limit_celsius is not None and spot.celsius >= spot.limit_celsius:
            text = f"{spot.name} is at {spot.celsius:.0f} degrees C and slows the box down from {spot.limit_celsius:.0f} on"
            yield Sign(cause=Cause.HEAT, text=text, factor=MUCH)
    for throttle in reading.throttles:
        if throttle.state > 0:
            factor = LITTLE if throttle.state < throttle.most else MUCH
            text = f"the kernel slows down {throttle.name} against heat ({throttle.state} of {throttle.most})"
            yield Sign(cause=Cause.HEAT, text=text, factor=factor)


def _counts(now: PowerReading, before: PowerReading, elapsed_s: float) -> Iterable[Sign]:
    """Judge counters by how fast they grow: an event lasts for milliseconds, and one now and then costs nothing."""
    for name, count in now.counts.items():
        grown = count - before.counts.get(name, count)
        if grown > 0 and grown >= NOTABLE_PER_S * elapsed_s:
            text = f"the box was slowed down {grown} times since the last look, by {name}"
            yield Sign(cause=Cause.HEAT if HEAT_COUNT in name else Cause.CURRENT, text=text, factor=LITTLE)


def _slowed(now: PowerReading, before: PowerReading, elapsed_s: float) -> Iterable[Sign]:
    """Judge the time in which the processors were slowed down: touching the limit now and then is how they work."""
    if now.slowed_s is None or before.slowed_s is None or elapsed_s <= 0:
        return
    share = min(1.0, (now.slowed_s - before.slowed_s) / elapsed_s)
    if share >= NOTABLE_SHARE:
        text = f"the processors were slowed down against heat for {share:.0%} of the time"
        yield Sign(cause=Cause.HEAT, text=text, factor=MUCH if share >= MUCH else LITTLE)


def _cards(reading: PowerReading) -> Iterable[Sign]:
    for card in reading.cards:
        if card.hot:
            text = f"GPU {card.index} is slowed down to {card.share:.0%} of its clock, against heat or for want of power"
            yield Sign(cause=Cause.HEAT, text=text, factor=min(card.share, LITTLE))
