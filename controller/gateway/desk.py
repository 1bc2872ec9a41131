"""What every handler works with, and how paths are described."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from controller.config import Settings
from controller.gateway.auth import Guard, Need
from controller.gateway.health import Health
from controller.gateway.inbound import Inbound
from controller.gateway.lease import Session
from controller.gateway.metrics import Metrics
from controller.gateway.schemas import Body
from controller.gateway.upstream import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    What every handler works with.

    Attributes:
        settings: the configuration.
        session: the connection to the controller.
        workers: the connections to the workers.
        health: what the controller last said of its health.
        guard: who may ask for what.
        metrics: what is counted.
        cause_patience_s: how long the controller may take to say why a worker is gone. It hears of it from the engine, a moment
            after our connection has ended; and only then does a second attempt meet another worker than the dead one.

    """

    settings: Settings
    session: Session
    workers: Workers
    health: Health
    guard: Guard
    metrics: Metrics
    cause_patience_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """
    One method at one path.

    Attributes:
        method: in capitals.
        path: a template; `{name}` stands for one segment, in the last place for all that follow.
        need: what it asks of its callers.
        handle: answers.
        summary: one line for the documentation.
        body: what it takes.
        query: its query parameters, each with a JSON schema.
        answers: a JSON schema of its answer.
        streams: the answer may be a stream of events.

    """

    method: str
    path: str
    need: Need
    handle: Callable[[Desk, Inbound], Awaitable[None]]
    summary: str
    body: type[Body] | None = None
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    content_type: str = "application/json"
    streams: bool = False
