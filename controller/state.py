"""What is observed: workers as the engine shows them, and the leases that callers hold. Immutable values."""

import enum
from dataclasses import dataclass
from typing import NewType

from controller.charges import Cards
from controller.spec import ModelName

LeaseId = NewType("LeaseId", str)
"""Made by the gateway that asks, unique over all gateways and restarts."""

RunId = NewType("RunId", str)
"""One life of one container: it changes at every start, and is empty for a container that was never started."""

NEVER_RAN = RunId("")


class Status(enum.Enum):
    """What a worker is doing, as far as anyone outside it can tell."""

    STOPPED = "stopped"
    """The container exists and holds no memory: never started, stopped by us, killed, or crashed."""
    HELD = "held"
    """Its container runs and waits for a word from us before the engine begins: until then it holds clean pages of files at most,
    which take nothing from anyone. To the core it has not begun; its life begins when it is let go."""
    STARTING = "starting"
    """Told to start or running, but not answering yet."""
    READY = "ready"
    """Running and answering."""
    STOPPING = "stopping"
    """Told to stop; its memory is not back yet."""


class ExitCause(enum.StrEnum):
    """Why a container that ran is not running any more."""

    STOPPED = "stopped"
    """It ended with status 0, or by the signal a stop sends."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed it at its own memory limit, or it stood still there."""
    OUT_OF_GPU_MEMORY = "out_of_gpu_memory"
    """It ended by itself, and its log says that it got no memory of the GPU: of a card, or of the box where they share one."""
    KILLED = "killed"
    """Somebody sent it SIGKILL."""
    CRASHED = "crashed"
    """It ended by itself with another status or signal."""
    NEVER_READY = "never_ready"
    """It ran, but did not become ready before its deadline."""
    UNRESPONSIVE = "unresponsive"
    """It ran and had been ready, but stopped answering: stuck, or frozen from outside."""

    @property
    def is_of_memory(self) -> bool:
        """Whether it wanted more memory than it got, so that more might help, or another engine."""
        return self in (ExitCause.OUT_OF_MEMORY, ExitCause.OUT_OF_GPU_MEMORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container's last run ended."""

    cause: ExitCause
    code: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """
    One labelled container.

    Attributes:
        model: from its label.
        status: what it is doing.
        memory_bytes: from its own label, not from today's configuration: a container of a deleted model weighs something too.
        spec_hash: from its label.
        run: which of its lives this is.
        exit: how its last run ended, when it is not running.
        ready_since_s: when it became ready, on the core's clock, while it is.
        cards: from its own label: what it takes of cards, or would.

    """

    model: ModelName
    status: Status
    memory_bytes: int
    spec_hash: str
    run: RunId = NEVER_RAN
    exit: Exit | None = None
    ready_since_s: float | None = None
    cards: Cards = ()

    @property
    def held_bytes(self) -> int:
        """What it takes of the box's memory now."""
        return self.memory_bytes if self.holds else 0

    @property
    def holds(self) -> bool:
        """It takes from the budget now."""
        return self.status not in (Status.STOPPED, Status.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One caller's right to talk to one worker of a model: its own, or a replica."""

    lease: LeaseId
    model: ModelName
    worker: ModelName
    run: RunId
    since_s: float
    limit_s: float
