"""
Carry a plan out: one step after the other, with a journal, so that a run which was cut goes on.

A board is written only after its person has said so: by the board's name, typed, or by `YES=1`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from controller.errors import WindlassError
from controller.ops.flash.commands import Command, Step
from controller.ops.flash.journal import Done, fingerprints, read_journal, remaining, write_journal

Perform = Callable[[str, Command], None]
"""Runs one command of a step, named for the person who waits, and raises if it fails."""


class NotConfirmedError(WindlassError):
    """A person was asked before something is lost, and did not say yes."""


def carry_out(steps: Sequence[Step], folder: Path, perform: Perform, *, again: Collection[str] = ()) -> tuple[str, ...]:
    """
    Do what is left of a plan and return the names of the steps that were done.

    The journal says before a step that it has begun and after it that it has ended, so a cut at any moment is seen.

    Args:
        steps: the whole plan.
        folder: where its journal is.
        perform: runs one command.
        again: steps that are done each time: there may be another board on the cable.

    """
    prints = fingerprints(steps)
    before = read_journal(folder)
    done = replace(before, ended={name: mark for name, mark in before.ended.items() if name not in again})
    left = remaining(steps, done)
    names = [step.name for step in steps]
    for step in left:
        earlier = set(names[: names.index(step.name)])
        done = Done(ended={name: mark for name, mark in done.ended.items() if name in earlier}, began=step.name)
        write_journal(folder, done)
        for command in step.commands:
            perform(step.says, command)
        done = replace(done, ended={**done.ended, step.name: prints[step.name]}, began="")
        write_journal(folder, done)
    return tuple(step.name for step in left)


def confirm(question: str, word: str, *, yes: bool, ask: Callable[[str], str]) -> None:
    """
    Ask before something is lost.

    Args:
        question: what will be lost.
        word: what has to be typed.
        yes: a person has said so already.
        ask: shows a text and returns what is typed.

    Raises:
        NotConfirmedError: it was not.

    """
    if yes:
        return
    typed = ask(f"{question}\nType {word} to go on: ").strip()
    if typed != word:
        raise NotConfirmedError(f"nothing was written: wanted {word!r}, got {typed!r}")
