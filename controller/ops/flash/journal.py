"""
What of a plan is done already, and where a run that was cut goes on.

A step is done if it ended well and has not changed since, and nothing before it was done again. The decision is pure; the file is
a line of JSON that is renamed into place.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.ops.flash.commands import Step

JOURNAL: Final = "windlass-flash.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """
    What an earlier run has left.

    Attributes:
        ended: steps that ended well, each with the fingerprint it had.
        began: the step that was under way when that run ended; empty for none.

    """

    ended: Mapping[str, str] = field(default_factory=dict)
    began: str = ""


def fingerprints(steps: Sequence[Step]) -> dict[str, str]:
    """Return one hash for each step, over its commands and its inputs."""
    return {step.name: _hash(step) for step in steps}


def remaining(steps: Sequence[Step], done: Done) -> tuple[Step, ...]:
    """
    Return the steps that are still to be done: from the first that is not done, or from where that one has to begin again.

    A step that had begun may have left half its work, so it begins at its `restart_from`; so does one that has changed. Whatever
    comes behind a step that is done again is done again, too.
    """
    names = [step.name for step in steps]
    prints = fingerprints(steps)
    for step in steps:
        if done.ended.get(step.name) == prints[step.name]:
            continue
        touched = step.name == done.began or step.name in done.ended
        return tuple(steps[names.index(step.restart_from if touched and step.restart_from else step.name) :])
    return ()


def _hash(step: Step) -> str:
    text = json.dumps([[str(one) for one in step.commands], step.inputs])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_journal(folder: Path) -> Done:
    """Return what an earlier run in *folder* has left; nothing where there was none, or its journal is damaged."""
    try:
        data = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        ended, began = data["ended"], data["began"]
    except (OSError, ValueError, KeyError, TypeError):
        return Done()
    return Done(ended=ended, began=began) if isinstance(ended, dict) and isinstance(began, str) else Done()


def write_journal(folder: Path, done: Done) -> None:
    """Write it whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{JOURNAL}.half"
    half.write_text(json.dumps({"ended": dict(done.ended), "began": done.began}), encoding="utf-8")
    half.replace(folder / JOURNAL)
