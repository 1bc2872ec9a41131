"""
What workers take from the budget: memory of the box, where weights that several map from one file are once, and memory of cards.

A card's memory is nobody else's: each worker there has a copy of its weights of its own, so nothing of it is shared. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType

WeightsId = NewType("WeightsId", str)
"""Which weights a worker maps; empty if nobody can share them."""

UNSHARED = WeightsId("")


class OnCard(NamedTuple):
    """What is taken of one card's memory; cards are known by the index that the driver gives them."""

    card: int
    size_bytes: int


Cards = tuple[OnCard, ...]
"""Where on the cards something lies, by index; empty for what needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """
    What workers may take together.

    Attributes:
        ram_bytes: of the box's memory, and so of everything where GPU and processors share it.
        cards: of each card's memory.

    """

    ram_bytes: int
    cards: Cards = ()

    def card_bytes(self, card: int) -> int:
        """Return what may be taken of a card; nothing of one that is not there (any more)."""
        return next((size_bytes for index, size_bytes in self.cards if index == card), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """
    What one worker takes.

    Attributes:
        total_bytes: alone, of the box's memory.
        weights: the weights it maps.
        weights_bytes: how much of the total those are.
        cards: what it takes of cards, beside that.

    """

    total_bytes: int
    weights: WeightsId = UNSHARED
    weights_bytes: int = 0
    cards: Cards = ()


NOTHING: Final = Charge(total_bytes=0)


class Account:
    """What is charged for a set of workers that changes."""

    def __init__(self, charges: Iterable[Charge] = ()) -> None:
        """Charge for these."""
        self.total_bytes = 0
        self._mapping: dict[WeightsId, int] = {}
        self._cards: dict[int, int] = {}
        for charge in charges:
            self.add(charge)

    def cost_bytes(self, charge: Charge) -> int:
        """Return by how much the total would grow with this one."""
        return charge.total_bytes - (charge.weights_bytes if self._mapping.get(charge.weights) else 0)

    def add(self, charge: Charge) -> None:
        """Charge for one more."""
        self.total_bytes += self.cost_bytes(charge)
        if charge.weights != UNSHARED:
            self._mapping[charge.weights] = self._mapping.get(charge.weights, 0) + 1
        for card, size_bytes in charge.cards:
            self._cards[card] = self._cards.get(card, 0) + size_bytes

    def remove(self, charge: Charge) -> None:
        """Charge for one less; its weights stay as long as another maps them."""
        if charge.weights != UNSHARED:
            self._mapping[charge.weights] -= 1
        self.total_bytes -= self.cost_bytes(charge)
        for card, size_bytes in charge.cards:
            self._cards[card] -= size_bytes

    def card_bytes(self, card: int) -> int:
        """Return what is charged of a card."""
        return self._cards.get(card, 0)

    def short_bytes(self, capacity: Capacity, more: Charge = NOTHING) -> int:
        """Return how much too much all of it is with one *more*: where most is missing; 0 if it fits everywhere."""
        short_bytes = self.total_bytes + self.cost_bytes(more) - capacity.ram_bytes
        if self._cards or more.cards:
            extra = dict(more.cards)
            for card in self._cards.keys() | extra.keys():
                held_bytes = self._cards.get(card, 0) + extra.get(card, 0)
                short_bytes = max(short_bytes, held_bytes - capacity.card_bytes(card))
        return max(0, short_bytes)

    def lacks(self, capacity: Capacity, charge: Charge) -> bool:
        """Whether something is short that this one, which is charged for, takes a part of."""
        if charge.total_bytes and self.total_bytes > capacity.ram_bytes:
            return True
        return any(self.card_bytes(part.card) > capacity.card_bytes(part.card) for part in charge.cards if part.size_bytes)

    def left(self, capacity: Capacity) -> Capacity:
        """Return what is left of it beside all of this."""
        cards = tuple(OnCard(card, size_bytes - self._cards.get(card, 0)) for card, size_bytes in capacity.cards)
        return Capacity(ram_bytes=capacity.ram_bytes - self.total_bytes, cards=cards)

    def fits(self, capacity: Capacity, more: Charge = NOTHING) -> bool:
        """Whether there is room for all of it, with one *more*."""
        return self.short_bytes(capacity, more) == 0


def total_bytes(charges: Iterable[Charge]) -> int:
    """Return what these take together of the box's memory."""
    return Account(charges).total_bytes
