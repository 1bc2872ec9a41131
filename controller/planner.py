"""Which workers must leave so that one more fits the memory budget. Pure: no clock, no log, no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.charges import UNSHARED, Account, Charge, WeightsId, total_bytes
from controller.spec import ModelName

MAX_RESIDENTS: Final = 64
"""Workers in memory at once: each has a container, and no more than so many of those exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """
    A worker that holds memory, or is about to.

    Attributes:
        model: whose worker it is.
        memory_bytes: what it holds.
        weights: the weights it maps; those that several map are in memory once.
        weights_bytes: how much of what it holds those are.
        value: what keeping it is worth; the lowest goes first.
        busy: somebody uses it, or is about to by right of having come first.
        pinned: it never goes.
        draining: it was chosen to go before, so that choosing another would waste the wait.

    """

    model: ModelName
    memory_bytes: int
    value: float
    busy: bool
    pinned: bool = False
    draining: bool = False
    weights: WeightsId = UNSHARED
    weights_bytes: int = 0

    @property
    def charge(self) -> Charge:
        """What it takes from the budget."""
        return Charge(total_bytes=self.memory_bytes, weights=self.weights, weights_bytes=self.weights_bytes)


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


def plan(budget_bytes: int, residents: Sequence[Resident], want_bytes: int, *, places: int = MAX_RESIDENTS) -> Plan:
    """
    Choose the least valuable workers whose going lets *want_bytes* fit, in bytes and in number.

    The answer does not depend on the order of *residents*, and no chosen worker could stay. Every resident counts until it is
    gone. Who is already draining is chosen first: another choice would waste the wait.
    """
    pinned = [r for r in residents if r.pinned]
    excess_places = len(residents) + 1 - places
    room_bytes = budget_bytes - want_bytes
    short_bytes = _held_bytes(pinned) - room_bytes
    if short_bytes > 0 or len(pinned) >= places:
        return Refuse(max(0, short_bytes))
    idle = [r for r in residents if not r.pinned and not r.busy]
    staying = [r for r in residents if r.pinned or r.busy]
    if _held_bytes(staying) <= room_bytes and excess_places <= len(idle):
        return Start(_choose(idle, residents, room_bytes, excess_places))
    return Wait(_choose([r for r in residents if not r.pinned], residents, room_bytes, excess_places))


def _choose(
    candidates: Sequence[Resident], residents: Sequence[Resident], room_bytes: int, excess_places: int
) -> tuple[ModelName, ...]:
    """Take the least valuable until what stays fits, then give back, the most valuable first, what was not needed."""
    staying = Account(r.charge for r in residents)
    chosen: list[Resident] = []
    for resident in sorted(candidates, key=_order):
        if staying.total_bytes <= room_bytes and excess_places <= 0:
            break
        chosen.append(resident)
        staying.remove(resident.charge)
        excess_places -= 1
    for resident in sorted(chosen, key=_order, reverse=True):
        if staying.total_bytes + staying.cost_bytes(resident.charge) <= room_bytes and excess_places + 1 <= 0:
            chosen.remove(resident)
            staying.add(resident.charge)
            excess_places += 1
    return tuple(r.model for r in chosen)


def _held_bytes(residents: Iterable[Resident]) -> int:
    return total_bytes(r.charge for r in residents)


def _order(resident: Resident) -> tuple[bool, bool, float, str]:
    """Sort what is already draining first, then what is idle, then by value."""
    return (not resident.draining, resident.busy, resident.value, resident.model)
