"""Where an answer must end: stop strings, found in text that arrives in pieces."""

from collections.abc import Sequence


class StopFinder:
    """
    Let text through up to the first stop string.

    A stop string may be spread over several pieces, so an ending that could still become one is held back until the next piece
    decides. What has been let through is never part of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Take the next piece and return what may be shown of everything so far; after a stop string that is nothing."""
        if self.found:
            return ""
        text = self._held + piece
        cut = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.found, self._held = True, ""
            return text[:cut]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: no more text will come, so it is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of *text* are a beginning of *stop*."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
