"""The budget on the whole stack: who waits, who leaves, and that everybody is answered by the model they asked."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.stack import Stack, output, wait_until
from tests.system.conftest import NAME, TWIN, WIDE, Place
from tests.system.talk import PATIENCE_S, Caller, leases, row, settle, slowly, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def held_bytes(running: Stack) -> int:
    """
    Return the sum of the limits of all workers whose engine runs: what the budget must hold.

    A container that is held, its entry point waiting until there is room for an engine, holds nothing yet.
    """
    listed = output(["docker", "ps", "--quiet", "--filter", f"label=windlass.owner={running.place.owner}"]).split()
    if not listed:
        return 0
    inspected = output(["docker", "inspect", "--format", "{{.State.Pid}} {{.HostConfig.Memory}}", *listed]).splitlines()
    rows = [line.split() for line in inspected]
    return sum(int(limit) for process, limit in rows if is_engine(process))


def is_engine(process: str) -> bool:
    """Say whether a process is alive, and an engine and not the entry point that waits to become one."""
    try:
        name, state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split("(", 1)[1].rsplit(")", 1)
    except OSError:
        return False
    return name != "serve" and state.split()[0] not in "ZX"


def queue(running: Stack, model: str) -> list[dict[str, Any]]:
    """Return who waits for a model."""
    return [waiter for waiter in running.api.get("/status")["queue"] if waiter["model"] == model]


def test_what_does_not_fit_now_waits_with_position_and_eta_and_is_served(world: Stack, caller: Caller, place: Place) -> None:
    """A caller of a model that fits only without a busy one is queued, told when, and answered when the busy one is done."""
    busy = place("in-the-way")
    with slowly(world, busy), caller.stream(busy) as stream, ThreadPoolExecutor() as threads:
        stream.next()
        waiting = threads.submit(caller.complete, WIDE)
        wait_until(lambda: queue(world, WIDE), "the second caller waits", PATIENCE_S)
        (waiter,) = queue(world, WIDE)
        plan = world.api.get(f"/plan/{WIDE}")
        throttle(world, busy, "2")
        stream.rest()
        answer = waiting.result(PATIENCE_S)

    assert whole(stream)
    assert (1, "interactive") == (waiter["position"], waiter["priority"])
    assert 0 < waiter["eta_s"] <= waiter["bound_s"]
    assert "wait" == plan["answer"]
    assert (200, WIDE) == (answer.status_code, answer.json()["model"])
    assert 0 < float(answer.headers["x-windlass-waited-ms"]) / 1000 <= float(answer.headers["x-windlass-bound-s"])


def test_a_caller_that_will_not_wait_that_long_is_told(world: Stack, caller: Caller, place: Place) -> None:
    """A deadline that cannot be kept is a 503 with the time to come back, not a wait in vain."""
    busy = place("still-in-the-way")
    with slowly(world, busy), caller.stream(busy) as stream:
        stream.next()
        answer = caller.http.post(
            "/v1/completions",
            json={"model": WIDE, "prompt": "x", "max_tokens": 1},
            headers={"x-windlass-max-wait-s": "0.05"},
        )

    assert (503, "deadline_not_reachable") == (answer.status_code, answer.json()["error"]["code"])
    assert int(answer.headers["retry-after"]) >= 1


def test_a_caller_that_hangs_up_while_it_waits_leaves_the_queue(world: Stack, caller: Caller, place: Place) -> None:
    """Nobody is loaded for a caller that has gone, and the one who was in the way is not disturbed."""
    busy = place("not-disturbed")
    with slowly(world, busy), caller.stream(busy) as stream:
        stream.next()
        impatient = Caller(world.url)
        try:
            with ThreadPoolExecutor() as threads:
                waiting = threads.submit(impatient.http.post, "/v1/completions", json={"model": WIDE, "prompt": "x"}, timeout=2.0)
                wait_until(lambda: queue(world, WIDE), "the second caller waits", PATIENCE_S)
                assert waiting.exception(PATIENCE_S) is not None
        finally:
            impatient.close()
        wait_until(lambda: not queue(world, WIDE), "the queue is empty", PATIENCE_S)
        throttle(world, busy, "2")
        stream.rest()

    assert whole(stream)
    assert row(world, WIDE)["state"] != "resident"


def test_many_callers_over_models_that_cannot_all_fit(world: Stack, caller: Caller) -> None:
    """Every caller is answered by the model it asked for, with the same text, and the engine never holds more than the budget."""
    budget_bytes = world.api.get("/status")["memory"]["budget_bytes"]
    models = [(NAME, TWIN, WIDE)[number % 3] for number in range(24)]
    most_bytes = 0
    with ThreadPoolExecutor(max_workers=len(models)) as threads:
        asked = [threads.submit(caller.complete, model, tokens=24) for model in models]
        while not all(one.done() for one in asked):
            most_bytes = max(most_bytes, held_bytes(world))
    answers = [one.result() for one in asked]

    assert [200] * len(models) == [answer.status_code for answer in answers]
    assert models == [answer.json()["model"] for answer in answers]
    assert 1 == len({answer.json()["choices"][0]["text"] for answer in answers})
    assert 0 < most_bytes <= budget_bytes
    waits = [(float(a.headers["x-windlass-waited-ms"]) / 1000, float(a.headers["x-windlass-bound-s"])) for a in answers]
    assert all(waited <= bound for waited, bound in waits), waits
    settle(world)


def test_callers_share_a_model_up_to_its_parallel(world: Stack, caller: Caller, place: Place) -> None:
    """As many callers as the manifest says are answered at once, and the next one waits for its turn."""
    pair = place("pair-of-slots", 'memory = "120MiB"\nparallel = 2\n')
    with (
        slowly(world, pair),
        caller.stream(pair) as first,
        caller.stream(pair) as second,
        ThreadPoolExecutor() as threads,
    ):
        first.next()
        second.next()
        third = threads.submit(caller.complete, pair)
        wait_until(lambda: queue(world, pair), "the third waits", PATIENCE_S)
        both = leases(world, pair)
        throttle(world, pair, "2")
        first.rest()
        second.rest()
        answer = third.result(PATIENCE_S)

    assert both == 2
    assert whole(first)
    assert whole(second)
    assert answer.status_code == 200


def test_a_large_model_takes_no_more_than_its_limit(world: Stack, caller: Caller, place: Place) -> None:
    """The engine's own limit of a container is what the budget was charged for it, swap included."""
    model = place("measured-by-the-engine", 'memory = "77MiB"\n')
    caller.text(model)
    limits = output(["docker", "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}", world.worker(model)])

    assert [77 * 1024 * 1024] * 2 == [int(limit) for limit in limits.split()]
    assert 77 * 1024 * 1024 == row(world, model)["footprint_bytes"]
