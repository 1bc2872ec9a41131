"""`quantization = "auto"`: the best that fits, and why it is that one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from controller.engines.base import WeightsHeader
from controller.engines.builds.quantization import Quantization, best_first, estimate_bytes
from controller.engines.builds.recipe import WORTHWHILE
from controller.errors import ModelError
from controller.units import format_bytes

SAME: Final = 1.05
"""A result up to this share of the source is stored as it is, since the estimate is not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    How the weights are to be stored.

    Attributes:
        quantization: what is to be built; `None` is to take them as they are.
        reason: a sentence for people.

    """

    quantization: Quantization | None
    reason: str


def best_fit(header: WeightsHeader, *, needed_bytes: Callable[[WeightsHeader], int], limit_bytes: int, as_it_is: bool) -> Choice:
    """
    Choose the one that loses least of those whose model fits into *limit_bytes*.

    Args:
        header: of the source.
        needed_bytes: the memory that a model with such a header needs.
        limit_bytes: what it may need.
        as_it_is: the source itself can be served, so that it is the best of all, and only less than it makes sense.

    Raises:
        ModelError: not even the smallest fits.

    """
    room = f"fits into {format_bytes(limit_bytes)}"
    if as_it_is and needed_bytes(header) <= limit_bytes:
        return Choice(quantization=None, reason=f"auto: as it is, {format_bytes(needed_bytes(header))}, it {room}")
    largest_bytes = _largest_bytes(header, as_it_is=as_it_is)
    smallest_bytes = needed_bytes(header)
    for quantization in best_first(header):
        stored_bytes = estimate_bytes(header, quantization)
        if stored_bytes > largest_bytes:
            continue
        smallest_bytes = needed_bytes(replace(header, format="gguf", weights_bytes=stored_bytes))
        if smallest_bytes <= limit_bytes:
            reason = f"auto: {quantization} is the best that {room}; it needs {format_bytes(smallest_bytes)}"
            return Choice(quantization=quantization, reason=reason)
    raise ModelError(
        f"quantization: auto found none that {room}; the smallest needs {format_bytes(smallest_bytes)}, "
        "so raise the budget or lower `context`"
    )


def _largest_bytes(header: WeightsHeader, *, as_it_is: bool) -> float:
    """Return how large the result may be: bits that the source has lost do not come back."""
    if as_it_is:
        return WORTHWHILE * header.weights_bytes
    return SAME * header.weights_bytes if header.format == "gguf" else math.inf
