"""What a machine says on its serial line, and waiting for it to say something."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STEP_S: Final = 0.1
_COLOUR: Final = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


class Console:
    """The log of a serial line, read from where the last wait has ended."""

    def __init__(self, path: Path) -> None:
        """Begin before the first word."""
        self._path = path
        self._read = 0

    @property
    def text(self) -> str:
        """Everything that has been said, without colours."""
        try:
            return plain(self._path.read_bytes().decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def tail(self, lines: int = 60) -> str:
        """Return the last lines."""
        return "\n".join(self.text.splitlines()[-lines:])

    def skip(self) -> None:
        """Let the next wait see only what is said from now on."""
        self._read = len(self.text)

    def wait_for(self, pattern: str, *, within_s: float, while_true: Callable[[], bool] = lambda: True) -> re.Match[str]:
        """
        Return where *pattern* stands in what was said since the last wait.

        Args:
            pattern: a regular expression, `^` and `$` meaning lines.
            within_s: how long to wait.
            while_true: gives up as soon as this is false and the pattern is not there.

        """
        deadline_s = time.monotonic() + within_s
        while True:
            going_on = while_true() and time.monotonic() < deadline_s
            if found := re.compile(pattern, re.MULTILINE).search(self.text, self._read):
                self._read = found.end()
                return found
            if not going_on:
                raise AssertionError(f"waited {within_s:.0f} s for {pattern!r} on the console; its end:\n{self.tail()}")
            time.sleep(_STEP_S)


def plain(text: str) -> str:
    """Take away what is meant for a terminal."""
    return _COLOUR.sub("", text)
