"""`engine = "auto"` on the real engine: a build that the kernel ends for want of memory, and the engine that takes over."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench.stack import Stack, output, place_model, stack, wait_until
from tests.system.conftest import CHECKPOINT, CONFIG
from tests.system.talk import Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

WITHIN_S = 400.0
"""Long, since a build has the least claim on the cores."""
TOO_LITTLE = '[builds]\nmemory = "64MiB"\nkeep_free = "64MiB"\nmax_failures = 1\n'
"""Less than Python takes with torch: no checkpoint is ever converted here."""


@pytest.fixture(scope="module")
def hungry() -> Iterator[Stack]:
    """Run a stack whose builds have too little memory."""
    with stack("auto", budget="1100MiB", config=CONFIG + TOO_LITTLE) as running:
        yield running


def row(running: Stack, model: str) -> dict[str, Any]:
    """Return what is told of a model."""
    found: list[dict[str, Any]] = [one for one in running.api.get("/models")["models"] if one["name"] == model]
    return found[0] if found else {"engine": None}


def events(running: Stack, event: str) -> list[dict[str, Any]]:
    """Return the lines of this kind that the controller has written."""
    return [json.loads(line) for line in running.logs("controller").splitlines() if f'"{event}"' in line]


def test_a_build_without_memory_leaves_the_model_to_the_next_engine(hungry: Stack) -> None:
    """It answers by that one, says why, and does so after a restart without another try."""
    place_model(CHECKPOINT, hungry.models / "chosen", manifest='engine = "auto"\nmemory = "850MiB"\n')
    hungry.wait_for_models("chosen")
    wait_until(lambda: row(hungry, "chosen")["engine"] == "transformers", "the next engine has it", WITHIN_S)
    caller = Caller(hungry.url)
    text = caller.text("chosen")
    told, plan = row(hungry, "chosen"), hungry.api.get("/plan/chosen")
    failed = events(hungry, "engine.failed")
    output([*hungry.compose, "restart", "--timeout", "10", "controller"])
    wait_until(lambda: row(hungry, "chosen")["engine"] == "transformers", "it is known again", WITHIN_S)
    again = caller.text("chosen")
    caller.close()

    assert text
    assert again
    assert "llama-cpp could not be built here: convert the checkpoint" in told["engine_choice"]["reason"]
    assert "more memory than its limit" in told["engine_choice"]["reason"]
    assert (True, "transformers") == (plan["engine_choice"]["fell_back"], plan["engine"])
    assert ["llama-cpp"] == [one["engine"] for one in failed]
    assert 1 == len(events(hungry, "build.began"))
