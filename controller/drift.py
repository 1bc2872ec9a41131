"""
Models that need more than they are charged: their figure was an estimate, or what they are asked has changed. Pure.

A worker that holds more privately than its figure allows still lives, since its weights make room: pages of files are dropped
first.
Where that has gone so far that it reads them again and again while its container is full, every token waits for the disk.
"""

from dataclasses import dataclass
from typing import Final

from controller.spec import ModelName
from controller.state import RunId
from controller.units import MIB, format_bytes

FULL_SHARE: Final = 0.95
"""A container that holds so much of its limit has no room for pages."""
REFAULT_BYTES_PER_S: Final = 8 * MIB
"""Bytes of weights read again in a second that are too much for one model."""
LASTING_S: Final = 2.0
"""How long that must go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    One look at a worker.

    Attributes:
        private_bytes: what it holds that only its end gives back.
        charged_bytes: that, and the pages of files that count against its limit.
        refault_bytes_per_s: pages of files that it has read again lately.
        weights_bytes: the part of its figure that is mapped from files.
        memory_bytes: what it is charged and limited to.

    """

    private_bytes: int
    charged_bytes: int
    refault_bytes_per_s: float
    weights_bytes: int
    memory_bytes: int

    @property
    def allowed_bytes(self) -> int:
        """What its figure leaves for private memory."""
        return max(0, self.memory_bytes - self.weights_bytes)


def is_choked(private_bytes: int, *, memory_bytes: int, oom_kills: int) -> bool:
    """
    Say whether a worker that answers nothing does so for want of memory: it has none left, or the kernel has killed in it.

    The container outlives a kill at its limit for a while where the kernel chose a helper of the server, where the server gets
    no processor time to die in, or where the kernel was told to wait. The memory of the killed may be free again by then.
    """
    return oom_kills > 0 or private_bytes >= FULL_SHARE * memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """
    One worker that needs more than it is charged.

    Attributes:
        why: a sentence for people.
        private_bytes: what it holds that only its end gives back.
        allowed_bytes: what its figure allows for that.
        thrashes: it reads its weights again and again, and must be given a larger limit.

    """

    why: str
    private_bytes: int
    allowed_bytes: int
    thrashes: bool


@dataclass(slots=True)
class _Watched:
    run: RunId
    since_s: float | None = None
    found: Drift | None = None


class Drifts:
    """The workers that have drifted, each as long as its run lasts; time comes in as an argument."""

    def __init__(self) -> None:
        """Know of none."""
        self._watched: dict[ModelName, _Watched] = {}

    def of(self, model: ModelName, run: RunId) -> Drift | None:
        """Return how a model has drifted in this run of its worker."""
        watched = self._watched.get(model)
        return watched.found if watched is not None and watched.run == run else None

    def see(self, model: ModelName, run: RunId, reading: Reading, *, now: float) -> Drift | None:
        """Take a reading of a ready worker, and return its drift if that is news: it is the first, or has become worse."""
        watched = self._watched.get(model)
        if watched is None or watched.run != run:
            watched = self._watched[model] = _Watched(run)
        thrashes = self._thrashes(watched, reading, now)
        if watched.found is not None and (watched.found.thrashes or not thrashes):
            return None
        if not thrashes and reading.private_bytes <= reading.allowed_bytes:
            return None
        watched.found = Drift(
            why=_why(reading, thrashes=thrashes),
            private_bytes=reading.private_bytes,
            allowed_bytes=reading.allowed_bytes,
            thrashes=thrashes,
        )
        return watched.found

    def _thrashes(self, watched: _Watched, reading: Reading, now: float) -> bool:
        full = reading.charged_bytes >= FULL_SHARE * reading.memory_bytes
        if not full or reading.refault_bytes_per_s < REFAULT_BYTES_PER_S:
            watched.since_s = None
            return False
        if watched.since_s is None:
            watched.since_s = now
        return now - watched.since_s >= LASTING_S


def _why(reading: Reading, *, thrashes: bool) -> str:
    if thrashes:
        return f"it reads its weights again and again, as they do not fit its limit of {format_bytes(reading.memory_bytes)}"
    held, allowed = format_bytes(reading.private_bytes), format_bytes(reading.allowed_bytes)
    return f"it holds {held} privately, and its figure allows for {allowed}"
