"""A program beside the stack takes the memory: who goes, who is told, and that the kernel never had to kill."""

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.stack import Stack, place_model, stack, wait_until
from controller.units import MIB
from tests.system.conftest import CONFIG, MINI, NAME, TWIN, WIDE
from tests.system.hog import available_bytes, hog
from tests.system.talk import AS_ROOT, PATIENCE_S, Caller, row, slowly

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

BUDGET_MIB = 900
SPARE_BYTES = 3072 * MIB
"""Above the floor when the stack is started; what other programs move meanwhile must not matter."""
SOON_S = 3.0
BACK_S = 10.0

MODELS = {NAME: "100MiB", TWIN: "100MiB", "bulky": "450MiB", WIDE: "850MiB"}


@pytest.fixture(scope="module")
def floor_bytes() -> int:
    """Return a floor so high that a hog of three gigabytes reaches it."""
    return available_bytes() - SPARE_BYTES


@pytest.fixture(scope="module")
def guarded(floor_bytes: int) -> Iterator[Stack]:
    """Run a stack with that floor."""
    config = f"[memory]\nfloor = {floor_bytes}\n{CONFIG}"
    with stack("guard", budget=f"{BUDGET_MIB}MiB", config=config) as running:
        for name, memory in MODELS.items():
            place_model(MINI, running.models / name, manifest=f'memory = "{memory}"\n')
        running.wait_for_models(*MODELS)
        yield running


@pytest.fixture
def caller(guarded: Stack) -> Iterator[Caller]:
    """Return a caller of it."""
    made = Caller(guarded.url)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _the_kernel_kills_nobody() -> Iterator[None]:
    """Whatever a test does, the kernel's own choice is never asked for."""
    before = kills()
    yield
    assert before == kills()


def kills() -> int:
    """Count how often the kernel has killed since no memory was left on the box; at a container's own limit is another matter."""
    said = subprocess.run([*AS_ROOT, "dmesg"], capture_output=True, text=True, check=True).stdout
    return sum("Out of memory: Killed" in line for line in said.splitlines())


def status(running: Stack) -> dict[str, Any]:
    """Return the status."""
    return dict(running.api.get("/status"))


def budget_is_back(running: Stack) -> bool:
    """Say whether models may take all of it, and all is well."""
    said = status(running)
    return said["memory"]["budget_bytes"] == BUDGET_MIB * MIB and said["guard"]["level"] == "calm"


def test_a_hog_shrinks_the_budget_in_time_and_it_comes_back(guarded: Stack, caller: Caller, floor_bytes: int) -> None:
    """Idle models go by value until the rest fits, what does not fit is refused for now, and all comes back when it has gone."""
    for name in ("bulky", NAME, TWIN):
        for _ in range(3 if name == NAME else 1):
            caller.text(name)
    calm = status(guarded)["guard"]["level"]
    with hog(leave_bytes=floor_bytes + 250 * MIB):
        full_s = time.monotonic()
        wait_until(lambda: "bulky" not in guarded.resident(), "the bulky one is gone", SOON_S)
        took_s = time.monotonic() - full_s
        shrunk = status(guarded)
        refused = caller.complete(WIDE)
        answered = caller.complete(NAME)
        health = guarded.api.health()
    wait_until(lambda: budget_is_back(guarded), "the budget is back", BACK_S)
    again = caller.complete(WIDE)

    assert "calm" == calm
    assert took_s < SOON_S
    assert "short" == shrunk["guard"]["level"]
    assert shrunk["memory"]["committed_bytes"] <= shrunk["memory"]["budget_bytes"] < BUDGET_MIB * MIB
    assert shrunk["guard"]["stopped"] >= 1
    assert (503, "memory_short") == (refused.status_code, refused.json()["error"]["code"])
    assert int(refused.headers["retry-after"]) >= 1
    assert "MiB instead of 900 MiB" in refused.json()["error"]["message"]
    assert 200 == answered.status_code
    assert "degraded" == health["status"]
    assert 200 == again.status_code
    assert 0 == status(guarded)["guard"]["ended"]


def test_below_the_floor_a_busy_model_is_ended_and_its_caller_told(guarded: Stack, caller: Caller, floor_bytes: int) -> None:
    """Its stream ends with an error that says why, it is not tried again in vain, and it is served when the memory is back."""
    wait_until(lambda: budget_is_back(guarded), "the budget is there", PATIENCE_S)
    with slowly(guarded, TWIN), caller.stream(TWIN) as stream:
        stream.next()
        with hog(leave_bytes=floor_bytes - 200 * MIB):
            error = stream.rest()[-1]["error"]
            said = status(guarded)
        wait_until(lambda: budget_is_back(guarded), "the budget is back", BACK_S)
    answer = caller.complete(TWIN)

    assert ("memory_short", {"model": TWIN, "cause": "memory_short"}) == (error["code"], error["details"])
    assert "other programs" in error["message"]
    assert ("critical", 1) == (said["guard"]["level"], said["guard"]["ended"])
    assert not [worker for worker in said["workers"] if worker["status"] == "ready"]
    assert 200 == answer.status_code
    assert 0 == row(guarded, TWIN)["failures"]
