"""What the scheduler says to a caller. Immutable values."""

from dataclasses import dataclass
from typing import Literal

from controller.errors import Reason
from controller.spec import ModelName
from controller.state import ExitCause, LeaseId, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """This caller may talk to this worker of the model. `waited_s` is what it took, `bound_s` what had been promised at most."""

    lease: LeaseId
    model: ModelName
    worker: ModelName
    run: RunId
    waited_s: float
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """This caller gets an error, before anything was sent to it."""

    lease: LeaseId
    reason: Reason
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """This caller's lease is over while it was in use."""

    lease: LeaseId
    model: ModelName
    cause: ExitCause | Literal["time_limit", "removed", "unloaded", "memory_short"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """This caller still waits: its place, counted from 1, and how long it will be."""

    lease: LeaseId
    model: ModelName
    position: int
    eta_s: float
    bound_s: float
    loading: bool
    evicting: tuple[ModelName, ...] = ()


Answer = Grant | Refusal | Revocation | Notice
