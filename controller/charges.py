"""What workers take from the budget together: weights that several of them map from one file are in memory once. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NewType

WeightsId = NewType("WeightsId", str)
"""Which weights a worker maps; empty if nobody can share them."""

UNSHARED = WeightsId("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """
    What one worker takes.

    Attributes:
        total_bytes: alone.
        weights: the weights it maps.
        weights_bytes: how much of the total those are.

    """

    total_bytes: int
    weights: WeightsId = UNSHARED
    weights_bytes: int = 0


class Account:
    """What is charged for a set of workers that changes."""

    def __init__(self, charges: Iterable[Charge] = ()) -> None:
        """Charge for these."""
        self.total_bytes = 0
        self._mapping: Counter[WeightsId] = Counter()
        for charge in charges:
            self.add(charge)

    def cost_bytes(self, charge: Charge) -> int:
        """Return by how much the total would grow with this one."""
        return charge.total_bytes - (charge.weights_bytes if self._mapping[charge.weights] else 0)

    def add(self, charge: Charge) -> None:
        """Charge for one more."""
        self.total_bytes += self.cost_bytes(charge)
        if charge.weights != UNSHARED:
            self._mapping[charge.weights] += 1

    def remove(self, charge: Charge) -> None:
        """Charge for one less; its weights stay as long as another maps them."""
        if charge.weights != UNSHARED:
            self._mapping[charge.weights] -= 1
        self.total_bytes -= self.cost_bytes(charge)


def total_bytes(charges: Iterable[Charge]) -> int:
    """Return what these take together."""
    return Account(charges).total_bytes
