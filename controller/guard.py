"""
What models may take while other programs want memory, too, and who is ended if that comes too fast. Pure.

What models may take together is what is available now, and what their workers hold privately already, less the floor:

    allowed = available + private memory of our workers - floor

Pages of files count as available, so loading and unloading only move bytes between the two terms: nothing that we do changes
the sum, and what does is somebody else. The budget is this figure wherever it is less than what is configured. It follows a fall
at once, and a rise when that has lasted for `CALM_S`.

From a smaller budget follows the order of sacrifice, since the scheduler stops idle workers by lowest value until what is left
fits, then refuses what does not fit, and lets busy workers end what they do. Should the available memory fall below the floor
itself before that has helped, the least important busy worker is ended, one at a time.

Where tasks stall for want of memory, or weights are read again and again, the figures were wrong: one worker less is the answer.
"""

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.planner import Resident
from controller.spec import ModelName
from controller.units import MIB, format_bytes

CALM_S: Final = 5.0
"""For so long memory must be there before models may take it again."""
STEP_BYTES: Final = 16 * MIB
"""A smaller budget is a multiple of this, so that it does not move with every page."""
NOTABLE_SHARE: Final = 1 / 16
"""A budget that is smaller by less than that share is everyday, and no reason to call the box degraded."""
PAUSE_S: Final = 0.5
"""After a worker was ended, its memory gets so long to come back before the next one goes."""
STRAIN_S: Final = 2.0
"""How long stalls or repeated reads must last before a worker goes for them, and before the next one does."""
STALL_SHARE: Final = 0.1
"""The share of time in which nothing at all moved for want of memory that is too much."""
REFAULT_BYTES_PER_S: Final = 32 * MIB
"""Bytes of weights read again in a second that are too much."""
NEAR_FLOORS: Final = 2
"""Stalls mean something only where less than so many floors are free: a container at its own limit stalls, too."""
HOG_BYTES_PER_S: Final = 1_000_000_000
"""How fast another program may take memory and be seen in time."""
LOOKS: Final = 4
"""So often the box is looked at before such a program could have taken what is free."""
SHORTEST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0


class Level(enum.StrEnum):
    """How the box is doing for memory."""

    CALM = "calm"
    """Models may take what is configured, or nearly."""
    SHORT = "short"
    """Other programs leave less than that; loads that do not fit are refused."""
    CRITICAL = "critical"
    """Less than the floor is available: even busy workers are ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    The box at one moment.

    Attributes:
        at_s: the core's clock.
        available_bytes: what could be had without swapping, pages of files included.
        private_bytes: what our workers hold and only their end gives back.
        committed_bytes: what the budget is charged with.
        stall_share: the share of the time since the last sample in which everything waited for memory.
        refault_bytes_per_s: pages of files that our workers had to read again since then.
        loading: a worker is being loaded, which reads and stalls by itself.

    """

    at_s: float
    available_bytes: int
    private_bytes: int
    committed_bytes: int
    stall_share: float = 0.0
    refault_bytes_per_s: float = 0.0
    loading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What follows from the samples so far.

    Attributes:
        level: how the box is doing.
        budget_bytes: what models may take together now.
        reason: why that is less than configured; empty if it is not.
        look_again_s: when to look again.

    """

    level: Level
    budget_bytes: int
    reason: str
    look_again_s: float


class Guard:
    """Remembers the last samples; it is told the time and reads no clock."""

    def __init__(self, *, budget_bytes: int, floor_bytes: int) -> None:
        """Begin with the configured budget: nothing was seen yet."""
        self.budget_bytes = budget_bytes
        self.floor_bytes = floor_bytes
        self.verdict = Verdict(level=Level.CALM, budget_bytes=budget_bytes, reason="", look_again_s=SHORTEST_PAUSE_S)
        self._lows: deque[tuple[float, int]] = deque()
        self._strained_since_s: float | None = None
        self._loaded_s = float("-inf")
        self._ended_s = float("-inf")

    def see(self, sample: Sample) -> Verdict:
        """Take a sample and say what follows."""
        allowed_bytes = sample.available_bytes + sample.private_bytes - self.floor_bytes
        free_bytes = allowed_bytes - sample.committed_bytes
        strained = self._is_strained(sample, free_bytes)
        self._note_low(sample.at_s, min(allowed_bytes, sample.committed_bytes - 1) if strained else allowed_bytes)
        budget_bytes = self._budget_bytes()
        level = Level.CALM
        if sample.available_bytes < self.floor_bytes:
            level = Level.CRITICAL
        elif budget_bytes < self.budget_bytes * (1 - NOTABLE_SHARE):
            level = Level.SHORT
        reason = "" if budget_bytes == self.budget_bytes else self._reason(budget_bytes, sample)
        pause_s = min(max(free_bytes / (LOOKS * HOG_BYTES_PER_S), SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        self.verdict = Verdict(level=level, budget_bytes=budget_bytes, reason=reason, look_again_s=pause_s)
        return self.verdict

    def victim(self, residents: Sequence[Resident], *, leaving: bool, now: float) -> ModelName | None:
        """
        Return the busy worker that must end at once, if one must.

        Nobody must while an idle one is left or a worker is on its way out, whose memory is about to come back. Pinned ones are
        the last, idle or busy.
        """
        idle_are_left = any(not r.busy and not r.pinned for r in residents)
        if self.verdict.level is not Level.CRITICAL or leaving or idle_are_left or now - self._ended_s < PAUSE_S:
            return None
        chosen = min(residents, key=lambda r: (r.pinned, r.value, r.model), default=None)
        if chosen is None:
            return None
        self._ended_s = now
        return chosen.model

    def _is_strained(self, sample: Sample, free_bytes: int) -> bool:
        """Whether tasks have stalled or weights were read again for long enough, with little free and no load to blame."""
        if sample.loading:
            self._loaded_s = sample.at_s
        suffers = sample.stall_share >= STALL_SHARE or sample.refault_bytes_per_s >= REFAULT_BYTES_PER_S
        is_ours = sample.at_s - self._loaded_s < STRAIN_S
        if not suffers or is_ours or free_bytes >= NEAR_FLOORS * self.floor_bytes or not sample.committed_bytes:
            self._strained_since_s = None
            return False
        if self._strained_since_s is None:
            self._strained_since_s = sample.at_s
        if sample.at_s - self._strained_since_s < STRAIN_S:
            return False
        self._strained_since_s = sample.at_s
        return True

    def _note_low(self, at_s: float, allowed_bytes: int) -> None:
        """Keep the lowest figures of the last while, lowest first: whoever is neither newer nor lower never matters again."""
        while self._lows and self._lows[-1][1] >= allowed_bytes:
            self._lows.pop()
        self._lows.append((at_s, allowed_bytes))
        while at_s - self._lows[0][0] >= CALM_S:
            self._lows.popleft()

    def _budget_bytes(self) -> int:
        lowest_bytes = max(0, self._lows[0][1])
        if lowest_bytes >= self.budget_bytes:
            return self.budget_bytes
        return lowest_bytes // STEP_BYTES * STEP_BYTES

    def _reason(self, budget_bytes: int, sample: Sample) -> str:
        return (
            f"memory is short: models may take {format_bytes(budget_bytes)} instead of {format_bytes(self.budget_bytes)}, as "
            f"{format_bytes(sample.available_bytes)} are available and {format_bytes(self.floor_bytes)} must stay so; "
            "stop what else takes memory, or lower memory.budget"
        )
