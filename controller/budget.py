"""
The memory that models share, and what of it is kept from them for a while: for a build, say, or by other programs.

What is set aside is missing from the budget like the memory of a model that cannot be evicted, so the sum stays true. What other
programs have taken the guard says, and that limits the rest.
"""

from collections.abc import Mapping
from typing import Final

from controller.errors import Reason, RefusedError
from controller.spec import ModelSpec
from controller.units import format_bytes

RETRY_S: Final = 30.0
"""When a caller should come again whose model fits only when nothing is set aside."""
SHORTAGE_S: Final = 10.0
"""And one whose model fits only when other programs give memory back: nobody knows when, but sooner it does not."""


class Budget:
    """
    The budget of models.

    Attributes:
        total_bytes: all of it, as it is configured.
        allowed_bytes: what other programs leave of it.
        shortage: why that is less than all of it; empty if it is not.

    """

    def __init__(self, total_bytes: int) -> None:
        """Set nothing aside."""
        self.total_bytes = total_bytes
        self.allowed_bytes = total_bytes
        self.shortage = ""
        self._aside: dict[str, int] = {}

    @property
    def aside(self) -> Mapping[str, int]:
        """What is kept from the models, by what it is for."""
        return self._aside

    @property
    def left_bytes(self) -> int:
        """What the models may take."""
        return max(0, min(self.allowed_bytes, self.total_bytes - sum(self._aside.values())))

    def allow(self, allowed_bytes: int, *, shortage: str) -> None:
        """Let models take no more than this, for the reason given; all of it and no reason when the shortage is over."""
        self.allowed_bytes, self.shortage = allowed_bytes, shortage

    def set_aside(self, what: str, size_bytes: int) -> None:
        """Keep that much for *what*; 0 gives it back."""
        self._aside[what] = size_bytes
        if not size_bytes:
            del self._aside[what]

    def explain(self, refusal: RefusedError, spec: ModelSpec, *, pinned_bytes: int) -> RefusedError:
        """Turn "never" into "not now" for a model that fits as soon as nothing is set aside and others give memory back."""
        needed_bytes = spec.footprint.total_bytes + pinned_bytes
        if refusal.reason is not Reason.NEVER_FITS or needed_bytes > self.total_bytes:
            return refusal
        if self.shortage and needed_bytes > self.allowed_bytes:
            text = f"{spec.name} needs {format_bytes(spec.footprint.total_bytes)}, which are not there now: {self.shortage}"
            return RefusedError(Reason.MEMORY_SHORT, text, retry_after_s=SHORTAGE_S, details=refusal.details)
        if not self._aside:
            return refusal
        kept = ", ".join(f"{format_bytes(size_bytes)} for {what}" for what, size_bytes in sorted(self._aside.items()))
        text = f"{spec.name} needs {format_bytes(spec.footprint.total_bytes)}, and for now the budget is short of {kept}"
        return RefusedError(Reason.UNAVAILABLE, text, retry_after_s=RETRY_S, details=refusal.details)
