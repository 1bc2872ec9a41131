"""What `windlass check` looks at and what it finds. Immutable values."""

import enum
from dataclasses import dataclass
from typing import Final

from controller.config import Settings
from controller.device import NO_GPU, Device
from controller.drivers.base import EngineInfo
from controller.ops.remedy import Remedy
from controller.probes.condition import UNKNOWN, Condition
from controller.probes.host import DiskReading
from controller.probes.memory import MemoryReading
from controller.spec import ModelSpec


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something will not work."""
    WARNING = "warning"
    """It will work, but slower, shorter or less safely than it could."""
    NOTE = "note"
    """Nothing is wrong, and it is still good to know."""


class Access(enum.Enum):
    """What can be done with a folder."""

    WRITABLE = "writable"
    """It exists, or can be made, and can be written."""
    FORBIDDEN = "forbidden"
    """Whoever asked may not write there; the controller, who runs as root, may."""
    READ_ONLY = "read_only"
    """Nobody may: the file system is mounted read-only."""
    NOT_A_FOLDER = "not_a_folder"
    """Something else has its name."""


class Port(enum.Enum):
    """Who has the address that the gateway wants."""

    FREE = "free"
    """Nobody."""
    OURS = "ours"
    """A gateway of Windlass."""
    TAKEN = "taken"
    """Somebody else."""
    NO_ADDRESS = "no_address"
    """This host does not have the address."""
    FORBIDDEN = "forbidden"
    """Whoever asked may not listen there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One problem.

    Attributes:
        severity: how bad it is.
        subject: what it is about, in a word or two.
        text: what is so, and what it means.
        fix: what to do, a command where there is one.
        remedy: the same for `windlass doctor`, where a program may do it.

    """

    severity: Severity
    subject: str
    text: str
    fix: str
    remedy: Remedy | None = None

    def as_json(self) -> dict[str, str | None]:
        """Return it for programs."""
        return {
            "severity": self.severity.value,
            "subject": self.subject,
            "text": self.text,
            "fix": self.fix,
            "remedy": self.remedy.name if self.remedy else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """
    What is known of the container engine.

    Attributes:
        info: what it says of itself; `None` if it does not answer.
        problem: why it does not answer.
        missing_images: pairs of engine and image tag that are not there; `None` if nobody could look.

    """

    info: EngineInfo | None = None
    problem: str = ""
    missing_images: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """
    What a running controller has found out; `None` where it has not, or where none runs.

    Attributes:
        read_bytes_per_s: how fast the disk of the models reads.
        gpu_memory_charged: whether a container's limit holds what it takes for the GPU.
        uses_gpu: whether it gives workers a GPU.

    """

    read_bytes_per_s: float | None = None
    gpu_memory_charged: bool | None = None
    uses_gpu: bool | None = None


NOT_TRIED: Final = Tried()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """
    How the last update of the operating system has ended.

    Attributes:
        at: when, UTC.
        result: `confirmed`, `failed`, `refused`, `unfinished` or `back`.
        version: of the system that it would have brought; empty where it could not be read.
        text: a sentence of the box.

    """

    at: str
    result: str
    version: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    Everything that was looked at.

    Attributes:
        config_problems: what is wrong with the configuration; then `settings` are the defaults.
        settings: the configuration.
        memory: the box's memory.
        home: what can be done with the home folder.
        run: what can be done with the run folder.
        disk: the file system of the home folder.
        engine: the container engine.
        port: who has the gateway's address.
        key_count: how many API keys exist; `None` if the controller did not tell.
        models: the models that can be served.
        folder_problems: pairs of folder and what is wrong with it.
        device: what the box is.
        condition: the state of its operating system.
        tried: what a running controller has found out.
        update: how the last update of the operating system has ended, if there was one.

    """

    config_problems: tuple[str, ...]
    settings: Settings
    memory: MemoryReading
    home: Access
    run: Access
    disk: DiskReading
    engine: EngineFacts
    port: Port
    key_count: int | None
    models: tuple[ModelSpec, ...]
    folder_problems: tuple[tuple[str, str], ...]
    device: Device = NO_GPU
    condition: Condition = UNKNOWN
    tried: Tried = NOT_TRIED
    update: Update | None = None


def error(subject: str, text: str, fix: str) -> Finding:
    """Make a finding of something that will not work."""
    return Finding(severity=Severity.ERROR, subject=subject, text=text, fix=fix)


def warning(subject: str, text: str, fix: str) -> Finding:
    """Make a finding of something that works worse than it could."""
    return Finding(severity=Severity.WARNING, subject=subject, text=text, fix=fix)


def note(subject: str, text: str, fix: str) -> Finding:
    """Make a finding of something that is good to know."""
    return Finding(severity=Severity.NOTE, subject=subject, text=text, fix=fix)


def curable(subject: str, text: str, remedy: Remedy, *, also: str = "", severity: Severity = Severity.WARNING) -> Finding:
    """Make a finding that `windlass doctor` can act on: what it would do is what to do. *also* is for people alone."""
    fix = "\n".join(filter(None, (*remedy.commands, also)))
    return Finding(severity=severity, subject=subject, text=text, fix=fix, remedy=remedy)
