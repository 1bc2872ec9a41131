"""
The memory that models share, and what of it is kept from them for a while: for a build, say.

What is set aside is missing from the budget like the memory of a model that cannot be evicted, so the sum stays true.
"""

from collections.abc import Mapping
from typing import Final

from controller.errors import Reason, RefusedError
from controller.spec import ModelSpec
from controller.units import format_bytes

RETRY_S: Final = 30.0
"""When a caller should come again whose model fits only when nothing is set aside."""


class Budget:
    """
    The budget of models.

    Attributes:
        total_bytes: all of it, as it is configured.

    """

    def __init__(self, total_bytes: int) -> None:
        """Set nothing aside."""
        self.total_bytes = total_bytes
        self._aside: dict[str, int] = {}

    @property
    def aside(self) -> Mapping[str, int]:
        """What is kept from the models, by what it is for."""
        return self._aside

    @property
    def left_bytes(self) -> int:
        """What the models may take."""
        return max(0, self.total_bytes - sum(self._aside.values()))

    def set_aside(self, what: str, size_bytes: int) -> None:
        """Keep that much for *what*; 0 gives it back."""
        self._aside[what] = size_bytes
        if not size_bytes:
            del self._aside[what]

    def explain(self, refusal: RefusedError, spec: ModelSpec, *, pinned_bytes: int) -> RefusedError:
        """Turn "never" into "not now" for a model that fits as soon as nothing is set aside."""
        if refusal.reason is not Reason.NEVER_FITS or not self._aside:
            return refusal
        if spec.footprint.total_bytes + pinned_bytes > self.total_bytes:
            return refusal
        kept = ", ".join(f"{format_bytes(size_bytes)} for {what}" for what, size_bytes in sorted(self._aside.items()))
        text = f"{spec.name} needs {format_bytes(spec.footprint.total_bytes)}, and for now the budget is short of {kept}"
        return RefusedError(Reason.UNAVAILABLE, text, retry_after_s=RETRY_S, details=refusal.details)
