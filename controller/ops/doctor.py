"""
What `windlass doctor` does about findings: the remedies in order, each with its steps, and a look whether it has worked.

It changes nothing unless it is told to, and does nothing that already holds, so that it can be run as often as one likes. It
never restarts the container engine or the box: it says when one of them has to be, and why.
"""

import enum
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from controller.errors import ConfigError
from controller.ops.check.values import Finding
from controller.ops.remedy import Holds, Lacks, Need, Proof, Remedy, Run, Says, Step, Write
from controller.probes.system import Outcome, System

STEP_S: Final = 300.0
"""The time limit of one step: switching off swap reads back what is in it."""


class State(enum.StrEnum):
    """What became of a remedy."""

    PLANNED = "planned"
    """It would be done."""
    ASKS = "asks"
    """It would be done if it were called by its name."""
    DONE = "done"
    """It was done, and a look afterwards shows that."""
    ALREADY = "already"
    """It had been done before."""
    YOURS = "yours"
    """It can be done only by restarting the box at once, and that is for a person to do."""
    FAILED = "failed"
    """A step failed, or nothing shows that it worked."""


class Hands(Protocol):
    """What may change the box."""

    def run(self, step: Run) -> Outcome | None:
        """Run a command; `None` if there is no such command, or it does not end in time."""
        ...

    def write(self, step: Write) -> None:
        """Write a file, all of it or nothing."""
        ...


class LocalHands:
    """The box at hand."""

    def run(self, step: Run) -> Outcome | None:
        """Run a command; `None` if there is no such command, or it does not end in time."""
        try:
            done = subprocess.run(
                step.argv,
                input=step.answer.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=STEP_S,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Outcome(code=done.returncode, out=done.stdout.decode(errors="replace"))

    def write(self, step: Write) -> None:
        """Write a file, all of it or nothing."""
        path = Path(step.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_name(f".{path.name}.arriving")
        arriving.write_text(step.text, encoding="utf-8")
        arriving.chmod(0o644)
        arriving.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """
    One remedy and what became of it.

    Attributes:
        remedy: which.
        about: what was found.
        state: what became of it.
        why: why it was not done; empty if it was.

    """

    remedy: Remedy
    about: str
    state: State
    why: str = ""

    @property
    def need(self) -> Need:
        """What must follow now; what was done before and is still found has not had its effect yet."""
        return self.remedy.need if self.state in (State.DONE, State.ALREADY) else Need.NOTHING

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "name": self.remedy.name,
            "state": self.state.value,
            "about": self.about,
            "commands": list(self.remedy.commands),
            "undo": self.remedy.undo,
            "consent": self.remedy.consent,
            "need": self.remedy.need.value,
            "why": self.why,
        }


def plan(findings: Iterable[Finding], names: Sequence[str]) -> tuple[Deed, ...]:
    """
    Return what can be done, or what is called by *names* of it.

    Raises:
        ConfigError: a name that nothing has which was found here.

    """
    found = [(finding.remedy, finding.text) for finding in findings if finding.remedy is not None]
    known = [remedy.name for remedy, _ in found]
    if unknown := [name for name in names if name not in known]:
        choice = f"wanted one of {', '.join(known)}" if known else "nothing was found that can be acted on"
        raise ConfigError([f"{', '.join(unknown)}: {choice}"])
    return tuple(
        Deed(remedy=remedy, about=text, state=State.ASKS if remedy.consent and remedy.name not in names else State.PLANNED)
        for remedy, text in found
        if not names or remedy.name in names
    )


def treat(deed: Deed, *, system: System, hands: Hands) -> Deed:
    """Do what is planned, look whether it worked, and say what became of it."""
    if deed.state is not State.PLANNED:
        return deed
    remedy = deed.remedy
    if all(holds(proof, system) for proof in remedy.proofs):
        return Deed(remedy=remedy, about=deed.about, state=State.ALREADY)
    for step in remedy.steps:
        try:
            _take(step, hands)
        except _NotTakenError as exc:
            return Deed(remedy=remedy, about=deed.about, state=exc.state, why=str(exc))
    missing = [proof for proof in remedy.proofs if not holds(proof, system)]
    if missing:
        why = f"every step was taken, and still it is not so that {missing[0]}"
        return Deed(remedy=remedy, about=deed.about, state=State.FAILED, why=why)
    return Deed(remedy=remedy, about=deed.about, state=State.DONE)


def holds(proof: Proof, system: System) -> bool:
    """Look whether something is so; what cannot be looked at is not so."""
    match proof:
        case Says(argv=argv, text=text):
            ended = system.run(argv)
            return ended is not None and text in (line.strip() for line in ended.out.splitlines())
        case Holds(path=path, text=text):
            return text in (system.read(path) or "")
        case Lacks(path=path, text=text):
            seen = system.read(path)
            return seen is not None and text not in seen


class _NotTakenError(Exception):
    """A step was not taken."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.state = state


def _take(step: Step, hands: Hands) -> None:
    if isinstance(step, Write):
        try:
            hands.write(step)
        except OSError as exc:
            raise _NotTakenError(State.FAILED, f"{step.path} cannot be written: {exc.strerror}") from exc
        return
    ended = hands.run(step)
    if ended is None:
        raise _NotTakenError(State.FAILED, f"{step.argv[0]} is not there, or did not end within {STEP_S:.0f} s")
    if step.wants_reboot and step.wants_reboot in ended.out:
        raise _NotTakenError(State.YOURS, f"it is done only by restarting the box at once: {step.command}   and answer YES")
    if ended.code:
        last = (ended.out.strip().splitlines() or ["it wrote nothing"])[-1]
        raise _NotTakenError(State.FAILED, f"`{step.command}` ended with status {ended.code}: {last}")


def is_root() -> bool:
    """Say whether we may change the system."""
    return os.geteuid() == 0
