"""The container engine goes away and comes back: what runs goes on serving, and what was missed meanwhile is made good."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.stack import Stack, output, place_model, stack, wait_until
from tests.system.conftest import CONFIG, MINI, NAME, TWIN
from tests.system.line import Line
from tests.system.talk import PATIENCE_S, Caller, slowly, started_at, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Lay a line to the engine that can be cut."""
    with Line(tmp_path / "engine.sock") as made:
        yield made


@pytest.fixture
def behind(line: Line, tmp_path: Path) -> Iterator[Stack]:
    """Run a stack whose controller has no other way to the engine."""
    with stack("away", budget="300MiB", config=CONFIG, engine_socket=tmp_path / "engine.sock") as running:
        for name in (NAME, TWIN):
            place_model(MINI, running.models / name, manifest='memory = "100MiB"\n')
        running.wait_for_models(NAME, TWIN)
        yield running


def state(running: Stack) -> str:
    """Return how well the stack is, in a word."""
    return str(running.api.health()["status"])


def test_an_engine_that_restarts_costs_no_answer(behind: Stack, line: Line) -> None:
    """Streams go on, resident models answer, health says what is wrong; workers lost meanwhile are started when it is back."""
    caller = Caller(behind.url)
    expected = caller.text(TWIN)
    with slowly(behind, NAME), caller.stream(NAME) as stream:
        stream.next()
        before = started_at(behind, NAME)
        line.cut()
        wait_until(lambda: "failing" == state(behind), "health says that the engine is away", PATIENCE_S)
        reasons = behind.api.health()["reasons"]
        meanwhile = caller.text(TWIN)
        output(["docker", "kill", behind.worker(TWIN)])
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(caller.complete, TWIN)
            line.mend()
            answer = waiting.result(PATIENCE_S)
        wait_until(lambda: "ok" == state(behind), "all is well again", PATIENCE_S)
        throttle(behind, NAME, "2")
        stream.rest()
        after = caller.text(TWIN)
    caller.close()

    assert any("engine" in reason for reason in reasons)
    assert whole(stream)
    assert before == started_at(behind, NAME)
    assert 200 == answer.status_code
    assert expected == meanwhile == after
