"""
The memory that models share, of the box and of its cards, and what of it is kept from them for a while.

A build may need it, or other programs have taken it.

What is set aside is missing from the budget like the memory of a model that cannot be evicted, so the sum stays true. What other
programs have taken the guard says, and that limits the rest.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.cards import could_hold
from controller.charges import NOTHING, Account, Capacity, Cards, Charge, OnCard
from controller.errors import Reason, RefusedError
from controller.spec import ModelSpec
from controller.units import format_bytes

RETRY_S: Final = 30.0
"""When a caller should come again whose model fits only when nothing is set aside."""
SHORTAGE_S: Final = 10.0
"""And one whose model fits only when other programs give memory back: nobody knows when, but sooner it does not."""


class Budget:
    """
    The budgets of models.

    Attributes:
        total: all of them, as they are configured.
        allowed: what other programs leave of them.
        shortage: why the box's memory is less than all of it; empty if it is not.

    """

    def __init__(self, total: Capacity) -> None:
        """Set nothing aside."""
        self.total = total
        self.allowed = total
        self.shortage = ""
        self._aside: dict[str, Charge] = {}

    @property
    def total_bytes(self) -> int:
        """What is configured of the box's memory."""
        return self.total.ram_bytes

    @property
    def allowed_bytes(self) -> int:
        """What other programs leave of that."""
        return self.allowed.ram_bytes

    @property
    def aside(self) -> Mapping[str, Charge]:
        """What is kept from the models, by what it is for."""
        return self._aside

    @property
    def left(self) -> Capacity:
        """What the models may take."""
        rest = Account(self._aside.values()).left(self.total)
        return Capacity(
            ram_bytes=max(0, min(self.allowed.ram_bytes, rest.ram_bytes)),
            cards=tuple(OnCard(card, max(0, min(self.allowed.card_bytes(card), left_bytes))) for card, left_bytes in rest.cards),
        )

    def allow(self, allowed_bytes: int, *, shortage: str) -> None:
        """Let models take no more than this, for the reason given; all of it and no reason when the shortage is over."""
        self.allowed, self.shortage = replace(self.allowed, ram_bytes=allowed_bytes), shortage

    def allow_cards(self, cards: Cards) -> None:
        """Let models take no more than this of each card."""
        self.allowed = replace(self.allowed, cards=cards)

    def set_aside(self, what: str, charge: Charge) -> None:
        """Keep that much for *what*; nothing gives it back."""
        self._aside[what] = charge
        if charge == NOTHING:
            del self._aside[what]

    def explain(self, refusal: RefusedError, spec: ModelSpec, *, pinned: Account) -> RefusedError:
        """Turn "never" into "not now" for a model that fits as soon as nothing is set aside and others give memory back."""
        if refusal.reason is not Reason.NEVER_FITS or not could_hold(pinned.left(self.total), spec.footprint):
            return refusal
        needed = format_bytes(spec.footprint.total_bytes)
        if spec.footprint.gpu_bytes:
            needed += f" and {format_bytes(spec.footprint.gpu_bytes)} of a GPU"
        if not could_hold(pinned.left(self.allowed), spec.footprint):
            in_memory = spec.footprint.total_bytes > pinned.left(self.allowed).ram_bytes
            text = f"{spec.name} needs {needed}, which are not there now: {self.shortage if in_memory else self._lent()}"
            return RefusedError(Reason.MEMORY_SHORT, text, retry_after_s=SHORTAGE_S, details=refusal.details)
        if not self._aside:
            return refusal
        kept = ", ".join(f"{_words(charge)} for {what}" for what, charge in sorted(self._aside.items()))
        text = f"{spec.name} needs {needed}, and for now the budget is short of {kept}"
        return RefusedError(Reason.UNAVAILABLE, text, retry_after_s=RETRY_S, details=refusal.details)

    def _lent(self) -> str:
        """Say what other programs leave of the cards."""
        left = ", ".join(
            f"{format_bytes(size_bytes)} of GPU {card} instead of {format_bytes(self.total.card_bytes(card))}"
            for card, size_bytes in self.allowed.cards
            if size_bytes < self.total.card_bytes(card)
        )
        return f"other programs leave {left}; stop them, or lower gpu.budget"


def _words(charge: Charge) -> str:
    return " and ".join(
        (format_bytes(charge.total_bytes), *(f"{format_bytes(part.size_bytes)} of GPU {part.card}" for part in charge.cards))
    )
