"""
The seam to the box: files, device nodes and commands. What a Jetson or a card tells is asked here and nowhere else.

Two implement it: `LocalSystem` asks the box at hand, `RecordedSystem` answers from what was written down of another one. Whatever
is not there, may not be read or does not end in time is an answer, too: `None`. Calls block; commands may take seconds.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

HOST_FILES: Final = Path("/run/host")
"""Where files of the host are mounted in the controller's container, each under its own path."""
COMMAND_S: Final = 10.0
"""The time limit of a command: a driver that has hung answers nobody."""
_EVERYONE: Final = 0o006
_CALM: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended: its exit code, and what it wrote to its standard output."""

    code: int
    out: str


class System(Protocol):
    """What probes ask of a box."""

    def read(self, path: str) -> str | None:
        """Return the text of a file."""
        ...

    def names(self, folder: str) -> tuple[str, ...]:
        """Return what is in a folder, sorted; nothing if it is not there."""
        ...

    def group(self, node: str) -> int | None:
        """Return the id of the group that may open a device node; `None` if it is not there, or everyone may."""
        ...

    def run(self, argv: Sequence[str]) -> Outcome | None:
        """Run a command that changes nothing; `None` if there is no such command, or it does not end in time."""
        ...


class LocalSystem:
    """
    The box at hand.

    Args:
        roots: where the host's files may be, the first that has one first.

    """

    def __init__(self, roots: Sequence[Path] = (HOST_FILES, Path("/"))) -> None:
        """Look at nothing yet."""
        self._roots = tuple(roots)

    def read(self, path: str) -> str | None:
        """Return the text of a file."""
        for root in self._roots:
            try:
                return _under(root, path).read_text(encoding="utf-8", errors="replace")
            except OSError:  # not there, not for us, or a sensor that is asleep
                continue
        return None

    def names(self, folder: str) -> tuple[str, ...]:
        """Return what is in a folder, sorted; nothing if it is not there."""
        for root in self._roots:
            try:
                return tuple(sorted(os.listdir(_under(root, folder))))  # noqa: PTH208 - names are wanted, no paths
            except OSError:
                continue
        return ()

    def group(self, node: str) -> int | None:
        """Return the id of the group that may open a device node; `None` if it is not there, or everyone may."""
        for root in self._roots:
            try:
                seen = _under(root, node).stat()
            except OSError:
                continue
            return None if seen.st_mode & _EVERYONE == _EVERYONE else seen.st_gid
        return None

    def run(self, argv: Sequence[str]) -> Outcome | None:
        """Run a command that changes nothing; `None` if there is no such command, or it does not end in time."""
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, env=_CALM, check=False, timeout=COMMAND_S
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Outcome(code=done.returncode, out=done.stdout.decode(errors="replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSystem:
    """
    A box that was written down.

    Attributes:
        files: their text, by absolute path.
        groups: device nodes and the group that may open each; 0 if everyone may.
        commands: how each ends, by its arguments with a space between them.

    """

    files: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    commands: Mapping[str, Outcome] = field(default_factory=dict)

    def read(self, path: str) -> str | None:
        """Return the text of a file."""
        return self.files.get(path)

    def names(self, folder: str) -> tuple[str, ...]:
        """Return what is in a folder, sorted; nothing if it is not there."""
        inside = (PurePosixPath(path) for path in (*self.files, *self.groups))
        parts = (path.relative_to(folder).parts for path in inside if path.is_relative_to(folder))
        return tuple(sorted({first for first, *_ in (part for part in parts if part)}))

    def group(self, node: str) -> int | None:
        """Return the id of the group that may open a device node; `None` if it is not there, or everyone may."""
        return self.groups.get(node) or None

    def run(self, argv: Sequence[str]) -> Outcome | None:
        """Say how the command ended there; `None` if nobody has written it down."""
        return self.commands.get(" ".join(argv))


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
