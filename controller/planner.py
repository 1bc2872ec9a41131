"""Which workers must leave so that one more fits the memory budget. Pure: no clock, no log, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
    excess_bytes = sum(r.memory_bytes for r in residents) + want_bytes - budget_bytes
    short_bytes = sum(r.memory_bytes for r in pinned) + want_bytes - budget_bytes
    if short_bytes > 0 or len(pinned) >= places:
        return Refuse(max(0, short_bytes))
    idle = [r for r in residents if not r.pinned and not r.busy]
    if excess_bytes <= sum(r.memory_bytes for r in idle) and excess_places <= len(idle):
        return Start(_choose(idle, excess_bytes, excess_places))
    return Wait(_choose([r for r in residents if not r.pinned], excess_bytes, excess_places))


def _choose(candidates: Sequence[Resident], excess_bytes: int, excess_places: int) -> tuple[ModelName, ...]:
    """Take the least valuable until enough is free, then give back, the most valuable first, what was not needed."""
    chosen: list[Resident] = []
    for resident in sorted(candidates, key=_order):
        if excess_bytes <= 0 and excess_places <= 0:
            break
        chosen.append(resident)
        excess_bytes -= resident.memory_bytes
        excess_places -= 1
    for resident in sorted(chosen, key=_order, reverse=True):
        if excess_bytes + resident.memory_bytes <= 0 and excess_places + 1 <= 0:
            chosen.remove(resident)
            excess_bytes += resident.memory_bytes
            excess_places += 1
    return tuple(r.model for r in chosen)


def _order(resident: Resident) -> tuple[bool, bool, float, str]:
    """Sort what is already draining first, then what is idle, then by value."""
    return (not resident.draining, resident.busy, resident.value, resident.model)
