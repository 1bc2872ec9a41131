"""Two workers of one model on the real engine: both answer at once, and the weights are charged once."""

import pytest

from bench.stack import Stack, wait_until
from tests.system.conftest import Place
from tests.system.talk import PATIENCE_S, Caller, row, slowly, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def test_two_replicas_answer_at_once(world: Stack, caller: Caller, place: Place) -> None:
    """While the first worker answers, a second caller makes another come; it answers before the first has ended."""
    pair = place("a-pair", 'memory = "100MiB"\nreplicas = 2\n')
    with slowly(world, pair), caller.stream(pair) as stream:
        stream.next()
        answer = caller.complete(pair)
        told = row(world, pair)
        status = world.api.get("/status")
        throttle(world, pair, "2")
        stream.rest()

    assert whole(stream)
    assert (200, pair) == (answer.status_code, answer.json()["model"])
    assert (2, 2) == (told["replicas"], told["replicas_ready"])
    ready = {worker["model"]: worker for worker in status["workers"] if worker["status"] == "ready"}
    assert {pair, f"{pair}~2"} <= ready.keys()
    assert status["memory"]["committed_bytes"] < sum(worker["memory_bytes"] for worker in ready.values())

    world.api.post("/unload_model", {"model": pair})
    wait_until(lambda: not row(world, pair)["replicas_ready"], "both workers are gone", PATIENCE_S)
