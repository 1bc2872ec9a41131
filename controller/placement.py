"""
On which cards a worker is to lie, and who must leave there so that it fits. Pure.

Of the cards that will do, the best one is where it can begin the soonest: at once, after idle workers have left, after busy ones
have been drained; then where those who leave are worth the least; then away from other workers of its own model, and from workers
at all, since two cards compute at the same time; then where its container was made for.

A box without cards has one way to place anything, and then this is the planner and nothing more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.cards import short_bytes, ways
from controller.charges import Account, Capacity, Cards, Charge
from controller.planner import Plan, Refuse, Resident, Start, Wait, plan
from controller.replicas import model_of
from controller.spec import Footprint, ModelName


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    A worker that is to be placed.

    Attributes:
        model: its name.
        charge: what it takes of the box's memory, wherever it lies.
        footprint: what it takes of cards.
        home: the cards its container was made for, if there is one.

    """

    model: ModelName
    charge: Charge
    footprint: Footprint
    home: tuple[int, ...] = ()

    def on(self, cards: Cards) -> Charge:
        """Return what it takes if it lies there."""
        return replace(self.charge, cards=cards) if cards else self.charge


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    Where a worker is to lie.

    Attributes:
        charge: what it takes there.
        plan: what must happen before it can.

    """

    charge: Charge
    plan: Plan


def choose(
    capacity: Capacity,
    residents: Sequence[Resident],
    wanted: Wanted,
    *,
    coming: Sequence[Resident] = (),
    going: Sequence[Resident] = (),
) -> Choice:
    """
    Choose the cards for one more worker, and who must leave them.

    Args:
        capacity: what workers may take together.
        residents: who holds memory.
        wanted: who is to come.
        coming: who has reserved memory before it.
        going: who leaves for one of those, and is no resident any more, but still holds memory.

    """
    everybody = [*residents, *coming]
    pinned = [r.charge for r in residents if r.pinned]
    choices = [
        Choice(charge=charge, plan=plan(capacity, everybody, charge))
        for cards in ways(capacity, wanted.footprint, pinned)
        for charge in (wanted.on(cards),)
    ]
    if len(choices) == 1:
        return choices[0]
    if not choices:
        return Choice(charge=wanted.charge, plan=Refuse(short_bytes(capacity, wanted.footprint, pinned)))
    now = Account(r.charge for r in (*residents, *going))
    return min(choices, key=lambda choice: _order(choice, capacity, everybody, wanted, now))


def _order(
    choice: Choice, capacity: Capacity, everybody: Sequence[Resident], wanted: Wanted, now: Account
) -> tuple[int, float, int, int, int, bool, int, Cards]:
    """Sort the best first; who is draining for it already costs nothing, or the drain would begin anew on another card."""
    charge, answer = choice.charge, choice.plan
    leaving: frozenset[ModelName] = frozenset()
    match answer:
        case Start(evict=victims):
            leaving, rank = frozenset(victims), 0 if not victims and now.fits(capacity, charge) else 1
        case Wait(drain=victims):
            leaving, rank = frozenset(victims), 2
        case Refuse():
            rank = 3
    fresh = [r for r in everybody if r.model in leaving and not r.draining]
    cards = {part.card for part in charge.cards}
    near = [r for r in everybody if r.model not in leaving and cards.intersection(part.card for part in r.charge.cards)]
    return (
        rank,
        sum(r.value for r in fresh),
        len(fresh),
        sum(model_of(r.model) == model_of(wanted.model) for r in near),
        len(near),
        tuple(part.card for part in charge.cards) != wanted.home,
        -min(capacity.card_bytes(part.card) - now.card_bytes(part.card) for part in charge.cards),
        charge.cards,
    )
