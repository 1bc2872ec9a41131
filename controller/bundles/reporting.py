"""What became of each folder of a bundle, for whoever asked; and who is told meanwhile how far it is."""

import enum
from dataclasses import dataclass
from typing import Any, Protocol


class State(enum.StrEnum):
    """What was done with a folder, or would be."""

    COPIED = "copied"
    """It was not there, or not whole, and is now."""
    REPLACED = "replaced"
    """Another of its name was there."""
    THERE = "there"
    """It was there already, as it is in the bundle."""
    LEFT = "left"
    """It is not for this box, or was not asked for."""
    FAILED = "failed"
    """It was tried, and is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What became of a folder.

    Attributes:
        at: where it lies, such as `models/qwen`.
        state: what was done.
        size_bytes: all its files together.
        reason: why, where it is not plain.

    """

    at: str
    state: State
    size_bytes: int
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Describe it for programs."""
        kind, _, name = self.at.partition("/")
        return {
            "kind": {"models": "model", "engines": "engine_file"}[kind],
            "name": name,
            "state": self.state.value,
            "size_bytes": self.size_bytes,
            "reason": self.reason or None,
        }


class Progress(Protocol):
    """Whoever shows how far it is."""

    def begin(self, what: str, size_bytes: int) -> None:
        """Take note that a folder of this size begins."""
        ...

    def moved(self, count_bytes: int) -> None:
        """Take note that so many bytes more are done: copied, or compared since they were there already."""
        ...
