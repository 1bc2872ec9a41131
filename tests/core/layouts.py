"""Cards of a box, and what lies on them."""

from controller.charges import Capacity, Cards, OnCard
from controller.spec import Footprint, FootprintSource, Spread


def needs(gpu: int, *, each: int = 0, spread: Spread = Spread(), ram: int = 1) -> Footprint:  # noqa: B008  # a value
    """Make a footprint."""
    return Footprint(
        total_bytes=ram,
        weights_bytes=0,
        private_bytes=ram,
        source=FootprintSource.ESTIMATE,
        gpu_bytes=gpu,
        gpu_each_bytes=each,
        spread=spread,
    )


def box(*sizes: int, ram: int = 100) -> Capacity:
    """Make a box with cards of these sizes."""
    return Capacity(ram_bytes=ram, cards=lying(*sizes))


def lying(*sizes: int) -> Cards:
    """Lie on cards counted from 0; on none where it is 0."""
    return tuple(OnCard(card, size) for card, size in enumerate(sizes) if size)
