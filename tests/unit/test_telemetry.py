"""Lines that processes write."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from controller import telemetry
from controller.errors import ConfigError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return what was written, a dictionary for each line."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_event_and_its_keys() -> None:
    """One JSON object, with level and time in UTC."""
    out = io.StringIO()
    telemetry.configure(level="info", json_lines=True, stream=out)
    telemetry.get_logger(part="pool").info("worker.ready", model="mini", took_s=0.9)
    (line,) = lines(out)

    assert str(line.pop("time")).endswith("Z")
    assert line == {"event": "worker.ready", "level": "info", "part": "pool", "model": "mini", "took_s": 0.9}


def test_lines_below_the_level_are_not_written() -> None:
    """Ours and those of libraries."""
    out = io.StringIO()
    telemetry.configure(level="warning", json_lines=True, stream=out)
    telemetry.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    telemetry.get_logger().warning("loud")

    assert [line["event"] for line in lines(out)] == ["loud"]


@pytest.mark.parametrize("key", sorted(telemetry.SECRET_KEYS))
def test_what_belongs_to_users_is_cut(key: str) -> None:
    """Whoever passes a prompt or a secret by mistake, it is not written."""
    out = io.StringIO()
    telemetry.configure(level="debug", json_lines=True, stream=out)
    telemetry.get_logger().error("request", **{key: "my private words"})

    assert lines(out)[0][key] == telemetry.CUT
    assert "private" not in out.getvalue()


def test_libraries_write_the_same_form() -> None:
    """A line of the standard library's logging is JSON with the same keys, its exception included."""
    out = io.StringIO()
    telemetry.configure(level="info", json_lines=True, stream=out)
    logging.getLogger("library").error("went %s", "wrong", exc_info=ZeroDivisionError("by nothing"))
    (line,) = lines(out)

    assert (line["event"], line["level"]) == ("went wrong", "error")
    assert "ZeroDivisionError: by nothing" in str(line["exception"])


def test_people_get_text() -> None:
    """Without JSON the event and its keys stand in one readable line."""
    out = io.StringIO()
    telemetry.configure(level="info", json_lines=False, stream=out)
    telemetry.get_logger().info("worker.ready", model="mini")

    assert "worker.ready" in out.getvalue()
    assert "model=mini" in out.getvalue()


def test_a_level_that_there_is_not_is_a_configuration_error() -> None:
    """The text says which there are."""
    with pytest.raises(ConfigError, match=r"log\.level: wanted one of debug, info, warning, error, got 'loud'"):
        telemetry.configure(level="loud", json_lines=True)
