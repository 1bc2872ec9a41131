"""What power and heat allow a box, as far as it tells. Immutable values; `probes/power.py` fills them."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_UNCAPPED_NAMES: Final = {"MAXN_SUPER": 2, "MAXN": 1}
"""Modes without a cap by their name, the stronger one with the higher rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """
    One mode of a Jetson's `nvpmodel`.

    Attributes:
        number: what `nvpmodel -m` takes. It says nothing of strength: the strongest mode of an Orin Nano is 2, of an AGX Orin 0.
        name: what people call it.
        gpu_hz: the most the GPU's clock may be; `math.inf` if the mode does not cap it.
        memory_hz: the same for the memory's clock, which is what decoding waits for.
        cpu_hz: the same for the processors.

    """

    number: int
    name: str
    gpu_hz: float = math.inf
    memory_hz: float = math.inf
    cpu_hz: float = math.inf

    @property
    def rank(self) -> tuple[int, float, float, float, int]:
        """Compare by this: the mode of the highest rank lets the box do most."""
        watts = re.match(r"(\d+)W", self.name)
        uncapped = _UNCAPPED_NAMES.get(self.name, 0)
        return (uncapped, self.memory_hz, self.gpu_hz, self.cpu_hz, int(watts[1]) if watts else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModes:
    """The modes a board has, and the number of the one that is set; `None` if nobody knows."""

    modes: tuple[PowerMode, ...] = ()
    current: int | None = None

    @property
    def now(self) -> PowerMode | None:
        """The mode that is set."""
        return next((mode for mode in self.modes if mode.number == self.current), None)

    @property
    def strongest(self) -> PowerMode | None:
        """The mode that lets the box do most."""
        return max(self.modes, key=lambda mode: mode.rank, default=None)

    @property
    def share(self) -> float:
        """
        What the mode that is set leaves of the strongest one's clocks, memory or GPU, whichever is less.

        What the strongest does not cap counts as the highest cap of any mode, since nothing tells the real limit; so a mode just
        below it may count as 1.
        """
        now = self.now
        if now is None:
            return 1.0
        clocks: tuple[Callable[[PowerMode], float], ...] = (lambda mode: mode.memory_hz, lambda mode: mode.gpu_hz)
        return min(self._share(now, clock) for clock in clocks)

    def _share(self, now: PowerMode, clock: Callable[[PowerMode], float]) -> float:
        most = max((clock(mode) for mode in self.modes if math.isfinite(clock(mode))), default=math.inf)
        return min(1.0, clock(now) / most) if math.isfinite(most) else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HotSpot:
    """One thermal zone, and from which temperature on the kernel slows the box down for it; `None` if it names none."""

    name: str
    celsius: float
    limit_celsius: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Something that the kernel slows down against heat: how far it is now, from 0 for not at all to *most*."""

    name: str
    state: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """
    The clock of one NVIDIA card.

    Attributes:
        index: its number.
        share: its clock now, as a share of its highest.
        hot: the driver slows it down against heat, or the supply fails it.
        limit_share: the limit of its power, as a share of the one it was sold with.

    """

    index: int
    share: float = 1.0
    hot: bool = False
    limit_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """
    What the box says at one moment.

    Attributes:
        modes: the power modes, on a Jetson.
        spots: the thermal zones.
        throttles: what can be slowed down.
        counts: how often, since its start, the box was slowed down, by what for.
        slowed_s: for how long, since its start, the processors were slowed down against heat; `None` if nobody counts that.
        processor_share: what a limit that somebody has set leaves of the processors' highest clock, on the average of them.
        cards: the NVIDIA cards.

    """

    modes: PowerModes = PowerModes()
    spots: tuple[HotSpot, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    slowed_s: float | None = None
    processor_share: float = 1.0
    cards: tuple[Card, ...] = ()


QUIET: Final = PowerReading()
"""A box that tells nothing."""
