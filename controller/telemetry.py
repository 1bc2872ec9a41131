"""
What the processes write: one line an event, a name and keys, on standard error.

`log = telemetry.get_logger(); log.info("worker.ready", model=name, took_s=0.9)`. No prompts, no answers, no secrets: their values
are cut before a line is written, whoever passes them. Lines of libraries come out in the same form.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from controller.errors import ConfigError

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

SECRET_KEYS: Final = frozenset(
    {"prompt", "messages", "content", "input", "response", "authorization", "api_key", "secret", "token"}
)
"""Keys whose values belong to a user, or open something."""

CUT: Final = "(cut)"


def configure(*, level: str, json_lines: bool, stream: TextIO | None = None) -> None:
    """
    Set up logging for this process, libraries' included.

    Args:
        level: one of `LEVELS`; lines below it are not written.
        json_lines: one JSON object a line; without it, text for people.
        stream: where to write; standard error if none is given.

    Raises:
        ConfigError: there is no such level.

    """
    if level not in LEVELS:
        raise ConfigError([f"log.level: wanted one of {', '.join(LEVELS)}, got {level!r}"])
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        cut_secrets,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json_lines
        # The plain formatter: the default one shows local variables, prompts and keys among them.
        else [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)


def get_logger(**keys: object) -> structlog.typing.FilteringBoundLogger:
    """Return a logger that adds *keys* to each of its lines."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**keys)
    return logger


def cut_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every key in `SECRET_KEYS`."""
    for key in SECRET_KEYS.intersection(event):
        event[key] = CUT
    return event
