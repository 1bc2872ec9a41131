"""
How something can lie on the cards of a box: whole on one, or split over several. Pure.

It lies whole wherever one card could ever hold it: split, it would be in the way of others on several cards, and every answer
would cross between them. Only what fits on none is split, if its engine can, over as few cards as will do.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, islice
from typing import Final

from controller.charges import Account, Capacity, Cards, Charge, OnCard
from controller.device import Device
from controller.spec import Footprint
from controller.state import Worker

MOST_WAYS: Final = 64
"""So many ways to split a model over the cards of a large box are weighed, and no more."""


def for_models(device: Device, *, budget_bytes: int | None, reserve_bytes: int) -> Cards:
    """Return the memory for models on each card with memory of its own: the budget if there is one, else all but the reserve."""
    cards = [gpu for gpu in device.gpus if gpu.memory_bytes and device.has_gpu]
    most = [gpu.memory_bytes - reserve_bytes if budget_bytes is None else budget_bytes for gpu in cards]
    return tuple(OnCard(gpu.index, max(0, min(gpu.memory_bytes, size))) for gpu, size in zip(cards, most, strict=True))


def ways(capacity: Capacity, footprint: Footprint, beside: Iterable[Charge] = ()) -> Sequence[Cards]:
    """Return where something of this size could ever lie beside those who never leave."""
    if not footprint.gpu_bytes:
        return ((),)
    rooms = _rooms(capacity, beside)
    whole = [(OnCard(room.card, footprint.gpu_bytes),) for room in rooms if footprint.gpu_bytes <= room.size_bytes]
    if whole:
        return whole
    for count in footprint.spread.counts:
        over = (_split(footprint, among) for among in combinations(rooms, count))
        if split := [cards for cards in islice(over, MOST_WAYS) if cards]:
            return split
    return ()


def could_hold(capacity: Capacity, footprint: Footprint) -> bool:
    """Say whether something of this size could ever lie here, in memory and on cards."""
    return footprint.total_bytes <= capacity.ram_bytes and (not footprint.gpu_bytes or bool(ways(capacity, footprint)))


def settle(capacity: Capacity, footprint: Footprint, before: Cards = ()) -> Cards:
    """Return where a container is to be made for that nobody asks for yet: where it lay *before*, if that will do."""
    possible = ways(capacity, footprint)
    there = tuple(part.card for part in before)
    return next((cards for cards in possible if tuple(part.card for part in cards) == there), next(iter(possible), ()))


def whereabouts(capacity: Capacity, footprint: Footprint, *, worker: Worker | None, place: Cards | None) -> Cards:
    """
    Return where on the cards a container is to be described as lying.

    That is where its worker runs; else the *place* it is to come to; else where it was made for. So a decision changes no worker
    that runs, and a container is made anew only if its worker is to lie elsewhere.
    """
    if worker is not None and worker.holds:
        return worker.cards
    if place is not None:
        return place
    return settle(capacity, footprint, worker.cards if worker is not None else ())


def short_bytes(capacity: Capacity, footprint: Footprint, beside: Iterable[Charge] = ()) -> int:
    """Return how much the card with the most room has too little, beside those who never leave."""
    rooms = _rooms(capacity, beside)
    return footprint.gpu_bytes - max((room.size_bytes for room in rooms), default=0)


def _rooms(capacity: Capacity, beside: Iterable[Charge]) -> Sequence[OnCard]:
    held = Account(beside)
    return [OnCard(card, size_bytes - held.card_bytes(card)) for card, size_bytes in capacity.cards]


def _split(footprint: Footprint, among: Sequence[OnCard]) -> Cards:
    """Lay a model over these cards, each with so much room; nothing if they have too little."""
    each_bytes = footprint.gpu_each_bytes
    parted_bytes = max(0, footprint.gpu_bytes - each_bytes)
    rooms = [room.size_bytes - each_bytes for room in among]
    if footprint.spread.even:
        rooms = [min(rooms)] * len(rooms)
    total_bytes = sum(rooms)
    if min(rooms) <= 0 or total_bytes < parted_bytes:
        return ()
    # Rounded up, since a part is never smaller than its share; and never beyond the room, which it is a share of as well.
    shares = [-(-parted_bytes * room_bytes // total_bytes) for room_bytes in rooms]
    return tuple(OnCard(room.card, each_bytes + share) for room, share in zip(among, shares, strict=True))
