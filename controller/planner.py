"""Which workers must leave so that one more fits the budgets of memory and of cards. Pure: no clock, no log, no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.charges import NOTHING, Account, Capacity, Charge
from controller.spec import ModelName

MAX_RESIDENTS: Final = 64
"""Workers in memory at once: each has a container, and no more than so many of those exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """
    A worker that holds memory, or is about to.

    Attributes:
        model: whose worker it is.
        charge: what it holds.
        value: what keeping it is worth; the lowest goes first.
        busy: somebody uses it, or is about to by right of having come first.
        pinned: it never goes.
        draining: it was chosen to go before, so that choosing another would waste the wait.

    """

    model: ModelName
    charge: Charge
    value: float
    busy: bool
    pinned: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """It fits as soon as these idle workers are gone."""

    evict: tuple[ModelName, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It fits when these workers, some of them busy, have been drained."""

    drain: tuple[ModelName, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never fit beside what is pinned."""

    short_bytes: int


Plan = Start | Wait | Refuse


def plan(capacity: Capacity, residents: Sequence[Resident], want: Charge = NOTHING, *, places: int = MAX_RESIDENTS) -> Plan:
    """
    Choose the least valuable workers whose going lets *want* fit, in memory, on every card it is to lie on, and in number.

    The answer does not depend on the order of *residents*, and no chosen worker could stay. Every resident counts until it is
    gone. Who is already draining is chosen first: another choice would waste the wait.
    """
    pinned = [r for r in residents if r.pinned]
    excess_places = len(residents) + 1 - places
    short_bytes = _account(pinned).short_bytes(capacity, want)
    if short_bytes > 0 or len(pinned) >= places:
        return Refuse(short_bytes)
    idle = [r for r in residents if not r.pinned and not r.busy]
    staying = [r for r in residents if r.pinned or r.busy]
    if _account(staying).fits(capacity, want) and excess_places <= len(idle):
        return Start(_choose(idle, residents, capacity, want, excess_places))
    return Wait(_choose([r for r in residents if not r.pinned], residents, capacity, want, excess_places))


def _choose(
    candidates: Sequence[Resident], residents: Sequence[Resident], capacity: Capacity, want: Charge, excess_places: int
) -> tuple[ModelName, ...]:
    """
    Take the least valuable until what stays fits, then give back, the most valuable first, what was not needed.

    Whoever lies on a card where nothing is missing is among the latter.
    """
    staying = _account(residents)
    staying.add(want)
    chosen: list[Resident] = []
    for resident in sorted(candidates, key=_order):
        if staying.fits(capacity) and excess_places <= 0:
            break
        chosen.append(resident)
        staying.remove(resident.charge)
        excess_places -= 1
    for resident in sorted(chosen, key=_order, reverse=True):
        if staying.fits(capacity, resident.charge) and excess_places + 1 <= 0:
            chosen.remove(resident)
            staying.add(resident.charge)
            excess_places += 1
    return tuple(r.model for r in chosen)


def _account(residents: Iterable[Resident]) -> Account:
    return Account(r.charge for r in residents)


def _order(resident: Resident) -> tuple[bool, bool, float, str]:
    """Sort what is already draining first, then what is idle, then by value."""
    return (not resident.draining, resident.busy, resident.value, resident.model)
