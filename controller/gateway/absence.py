"""
A controller that is away, and what callers are to expect of it. Pure.

Two limits, since a release that takes over may need a minute on a slow box: people are told early, callers wait for long.
"""

import math
from dataclasses import dataclass
from typing import Final

ALARM_S: Final = 20.0
"""How long it may be away before health says that it fails: longer than a start on most boxes, and callers go on waiting."""
LIMIT_S: Final = 300.0
"""How long callers wait for it: a slow box begins a controller in a minute, and the first attempt may fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """
    A controller that is away.

    Attributes:
        since_s: when it was lost; minus infinity where none has been there yet, and nobody waits for that one.
        limit_s: how long callers wait for it.

    """

    since_s: float = -math.inf
    limit_s: float = LIMIT_S

    @property
    def until_s(self) -> float:
        """Until when anybody waits for it."""
        return self.since_s + self.limit_s

    def is_alarming(self, now: float) -> bool:
        """Say whether people should look after it."""
        return now - self.since_s >= min(ALARM_S, self.limit_s)

    def is_given_up(self, now: float) -> bool:
        """Say whether nobody waits for it any more."""
        return now >= self.until_s

    def patience_ends_s(self, *, asked_at_s: float, deadline_s: float | None) -> float:
        """Return until when a caller waits for it: no longer than anybody does, and no longer than it has said."""
        return self.until_s if deadline_s is None else min(self.until_s, asked_at_s + deadline_s)
