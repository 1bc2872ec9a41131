"""How a model's weights come into memory, and whether they may come before there is room for the model. Pure."""

import enum
from dataclasses import dataclass
from typing import Final

WARM_SHARE: Final = 0.9
"""With more of its weights than this in the page cache, a model is mapped and the engine reads what is missing by itself."""
FLOOR_BYTES: Final = 256 * 1024 * 1024
"""Left alone by reading ahead, beside what residents need: the kernel begins to reclaim before nothing is left."""


class LoadMode(enum.StrEnum):
    """How weights come into memory."""

    MAPPED = "mapped"
    """They are in the page cache already, nearly all of them."""
    READ_AHEAD = "read_ahead"
    """They are read with several requests at once, into the page cache, before and while the engine maps them."""
    DIRECT = "direct"
    """The engine reads past the page cache, and what we read into it would be in its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """
    What was seen of a model's weights when its container was about to start, and what follows.

    Attributes:
        mode: how they come into memory.
        weights_bytes: all files together.
        cached_bytes: how much of it is in the page cache.

    """

    mode: LoadMode
    weights_bytes: int
    cached_bytes: int

    @property
    def missing_bytes(self) -> int:
        """What has to be read from the disk."""
        return max(0, self.weights_bytes - self.cached_bytes)


def plan_load(*, weights_bytes: int, cached_bytes: int, reads_directly: bool) -> LoadPlan:
    """Choose how weights come into memory, from how much of them is in the page cache."""
    if reads_directly:
        mode = LoadMode.DIRECT
    else:
        mode = LoadMode.MAPPED if cached_bytes >= WARM_SHARE * weights_bytes else LoadMode.READ_AHEAD
    return LoadPlan(mode=mode, weights_bytes=weights_bytes, cached_bytes=cached_bytes)


def may_read_early(plan: LoadPlan, *, available_bytes: int, mapped_bytes: int) -> bool:
    """
    Say whether a model's weights may be read while others still have the memory that it is to have.

    What the kernel calls available includes the weights that residents have mapped, since it could drop and read those again. It
    must not: so only the rest counts, and a reserve stays.

    Args:
        plan: what there is to read.
        available_bytes: what could be had without swapping, as the kernel says.
        mapped_bytes: the weights of all models that are in memory, those that are about to leave included: they still answer.

    """
    if plan.mode is not LoadMode.READ_AHEAD:
        return False
    return plan.missing_bytes <= available_bytes - mapped_bytes - FLOOR_BYTES
