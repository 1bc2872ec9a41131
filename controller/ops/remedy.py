"""
What a program may do about a finding, as values: the steps, how to see that they have worked, and what is left to a person.

A remedy is safe to begin at any time: it asks for nothing, can be undone by the command that it names, and restarts nothing that
answers callers. What somebody may have wanted as it is, it changes only when it is called by its name.
"""

import enum
import shlex
from dataclasses import dataclass


class Need(enum.StrEnum):
    """What must follow before a remedy has its whole effect."""

    NOTHING = "nothing"
    """It works at once."""
    ENGINE = "a restart of the container engine"
    """The engine reads its configuration when it starts; its containers end with it."""
    REBOOT = "a restart of the box"
    """The system reads it when it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    Run a command as root.

    Attributes:
        argv: the command.
        answer: what it is told if it asks.
        wants_reboot: what it writes when it can do this only by restarting the box; empty if it never does.

    """

    argv: tuple[str, ...]
    answer: str = ""
    wants_reboot: str = ""

    @property
    def command(self) -> str:
        """The same for a person to type."""
        return f"sudo {shlex.join(self.argv)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write a file that is ours alone."""

    path: str
    text: str

    @property
    def command(self) -> str:
        """The same for a person to type."""
        escaped = self.text.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
        folder = self.path.rpartition("/")[0]
        return f"sudo mkdir -p {folder} && printf {shlex.quote(escaped)} | sudo tee {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A command that changes nothing says *text*, in a line of its own; warnings may stand before it."""

    argv: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"`{shlex.join(self.argv)}` says {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """A file holds *text*."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} holds {self.text.splitlines()[0]!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacks:
    """A file does not hold *text*."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} names no {self.text}"


Step = Run | Write
Proof = Says | Holds | Lacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """
    What can be done about one finding.

    Attributes:
        name: what `windlass doctor` calls it.
        steps: what to do, in this order.
        proofs: what holds when it is done; then it need not be done again.
        undo: the command that takes it back.
        need: what must follow.
        consent: why it is done only when it is called by its name; empty if it is always safe.

    """

    name: str
    steps: tuple[Step, ...]
    proofs: tuple[Proof, ...]
    undo: str
    need: Need = Need.NOTHING
    consent: str = ""

    @property
    def commands(self) -> tuple[str, ...]:
        """The steps for a person to type."""
        return tuple(step.command for step in self.steps)
