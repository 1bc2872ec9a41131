"""
Who asks for which model, when: the traces that are put through both sides. Pure.

Also what any order of serving must do at least: with memory for one model, how many loads a trace of callers in turn costs.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

PROMPTS: Final = ("The ship", "The captain", "The sea", "The old man", "My friend", "The harbour", "A rope", "The wind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a trace: when it comes after the start, which model it asks for, and what."""

    at_s: float
    model: str
    prompt: str


def in_turn(names: Sequence[str], *, first: int, rounds: int) -> list[str]:
    """Return what one client asks for: every model in turn, beginning with its own, *rounds* times."""
    return [names[(first + number) % len(names)] for number in range(rounds * len(names))]


def zipf_arrivals(names: Sequence[str], *, seconds: float, per_s: float, seed: int) -> list[Arrival]:
    """Return arrivals of a Poisson process, each for a model whose probability is that of its rank: 1, 1/2, 1/3 and so on."""
    dice = random.Random(seed)  # noqa: S311  # a load, not a secret
    weights = list(accumulate(1 / rank for rank in range(1, len(names) + 1)))
    arrivals: list[Arrival] = []
    at_s = dice.expovariate(per_s)
    while at_s < seconds:
        (name,) = dice.choices(names, cum_weights=weights)
        arrivals.append(Arrival(at_s=at_s, model=name, prompt=dice.choice(PROMPTS)))
        at_s += dice.expovariate(per_s)
    return arrivals


def fewest_loads(orders: Sequence[Sequence[str]], *, resident: str) -> int:
    """
    Return how many loads callers cost at least who ask each in an order of its own, with memory for one model.

    It is the shortest sequence of models that contains every order; the one that is *resident* at the start is there for nothing.
    """
    distinct = tuple(sorted({tuple(order) for order in orders}))
    start = _served(distinct, (0,) * len(distinct), resident)
    todo: deque[tuple[tuple[int, ...], int]] = deque([(start, 0)])
    seen = {start}
    while todo:
        places, loads = todo.popleft()
        wanted = {order[place] for order, place in zip(distinct, places, strict=True) if place < len(order)}
        if not wanted:
            return loads
        for name in sorted(wanted):
            reached = _served(distinct, places, name)
            if reached not in seen:
                seen.add(reached)
                todo.append((reached, loads + 1))
    raise AssertionError("serving somebody always brings the end nearer")


def _served(orders: Sequence[Sequence[str]], places: Sequence[int], name: str) -> tuple[int, ...]:
    """Return how far everybody is when *name* has served all who ask for it."""
    moved = []
    for order, place in zip(orders, places, strict=True):
        while place < len(order) and order[place] == name:
            place += 1  # noqa: PLW2901  # the caller's own place moves on
        moved.append(place)
    return tuple(moved)
