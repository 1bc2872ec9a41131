"""Command lines, as values. A dry run prints what a real run does: the text of a command is what a person would type."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

HIDDEN: Final = "****"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """
    One command.

    Attributes:
        argv: the program and its arguments.
        folder: where it runs; empty for wherever we are.
        environ: variables it gets beside our own.
        secrets: arguments that are never shown or written down.

    """

    argv: tuple[str, ...]
    folder: PurePosixPath | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Write it as a shell reads it, without its secrets."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environ.items()]
        words += [HIDDEN if one in self.secrets else shlex.quote(one) for one in self.argv]
        text = " ".join(words)
        return f"cd {shlex.quote(str(self.folder))} && {text}" if self.folder else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    Commands that belong together and that a run which was cut repeats together.

    Attributes:
        name: in the journal.
        says: what a person reads while it runs.
        commands: what is run, in this order; nothing for a check that is made in the program itself.
        restart_from: the earlier step to begin at where this one was cut; empty for itself.
        inputs: what it depends on beside its commands; if one of them has changed, it is done again.
        erases: it changes the board, and a person is asked before.

    """

    name: str
    says: str
    commands: tuple[Command, ...] = ()
    restart_from: str = ""
    inputs: tuple[str, ...] = ()
    erases: bool = False


def run(*argv: str | PurePosixPath, folder: PurePosixPath | None = None, **environ: str) -> Command:
    """Make a command of paths and words; variables are named by keywords."""
    return Command(argv=tuple(str(one) for one in argv), folder=folder, environ=environ)


def write_script(steps: Sequence[Step]) -> list[str]:
    """Return the lines of a dry run: every step's sentence as a comment, and its commands below."""
    lines: list[str] = []
    for step in steps:
        lines += [f"# {step.says}", *(str(one) for one in step.commands)]
    return lines
