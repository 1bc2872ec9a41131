"""Controller and gateway die and come back: what runs goes on, who waits is answered, nothing is loaded twice."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bench.stack import Stack, output, wait_until
from tests.system.conftest import NAME, WIDE, Place
from tests.system.talk import PATIENCE_S, Caller, leases, row, settle, slowly, started_at, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def back(running: Stack) -> bool:
    """Say whether gateway and controller talk to each other and all is well."""
    return running.api.health()["status"] in ("ok", "degraded") and bool(running.api.get("/status")["version"])


def test_a_stream_outlives_the_controller(world: Stack, caller: Caller, place: Place) -> None:
    """Killed in the middle of an answer, the controller comes back, takes over worker and lease, and the answer is whole."""
    served = place("outlives")
    expected = caller.complete(served, tokens=900, ignore_eos=True).json()["choices"][0]["text"]
    with slowly(world, served), caller.stream(served) as stream:
        stream.next()
        before = started_at(world, served)
        world.kill_controller()
        wait_until(lambda: back(world), "the controller is back", PATIENCE_S)
        wait_until(lambda: leases(world, served) == 1, "the lease is renewed", PATIENCE_S)
        throttle(world, served, "2")
        stream.rest()
    settle(world)

    assert whole(stream)
    assert expected == stream.text
    assert before == started_at(world, served)
    assert "resident" == row(world, served)["state"]


def test_running_workers_are_adopted_and_not_loaded_again(world: Stack, caller: Caller) -> None:
    """A worker that runs when the controller is killed serves the next request, in the same life."""
    expected = caller.text(NAME)
    before = started_at(world, NAME)
    world.kill_controller()
    wait_until(lambda: back(world), "the controller is back", PATIENCE_S)
    after = caller.text(NAME)

    assert expected == after
    assert before == started_at(world, NAME)


def test_requests_are_answered_while_the_controller_is_away(world: Stack, caller: Caller) -> None:
    """A request that comes while nobody decides waits until somebody does."""
    caller.text(NAME)
    with ThreadPoolExecutor() as threads:
        killing = threads.submit(world.kill_controller)
        answers = [threads.submit(caller.complete, NAME) for _ in range(8)]
        statuses = [answer.result(PATIENCE_S).status_code for answer in answers]
        killing.result(PATIENCE_S)

    assert [200] * 8 == statuses


def test_a_controller_killed_in_the_middle_of_a_swap_finishes_it(world: Stack, caller: Caller) -> None:
    """One model leaves and another comes when the controller dies; those who waited are answered, and nothing is left over."""
    caller.text(NAME)
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(caller.complete, WIDE) for _ in range(3)]
        wait_until(
            lambda: row(world, WIDE)["state"] == "loading" or row(world, NAME)["state"] != "resident", "the swap has begun", 30
        )
        world.kill_controller()
        answers = [answer.result(PATIENCE_S) for answer in waiting]
    settle(world)
    status = world.api.get("/status")

    assert [(200, WIDE)] * 3 == [(answer.status_code, answer.json()["model"]) for answer in answers]
    assert WIDE in world.resident()
    assert status["memory"]["held_bytes"] <= status["memory"]["budget_bytes"]
    assert "ok" == status["state"]


def test_killed_again_and_again_it_converges(world: Stack, caller: Caller, place: Place) -> None:
    """Two kills in a row, each in another state, with folders coming and going, and the last request is answered."""
    for number in range(2):
        name = place(f"comes-and-goes-{number}")
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(caller.complete, (name, WIDE)[number])
            world.kill_controller()
            assert asked.result(PATIENCE_S).status_code == 200
    settle(world)

    assert 200 == caller.complete(NAME).status_code
    assert "ok" == world.api.health()["status"]


def test_a_gateway_that_dies_frees_its_leases(world: Stack, caller: Caller, place: Place) -> None:
    """The kernel closes the gateway's connection, its leases are free at once, and its callers know that they were cut off."""
    served = place("outlives-nobody")
    with slowly(world, served):
        with caller.stream(served) as stream:
            stream.next()
            output(["docker", "restart", "--time", "0", world.container("gateway")])
            with pytest.raises(httpx.TransportError):
                stream.rest()
        wait_until(lambda: back(world), "the gateway is back", PATIENCE_S)
        held = leases(world, served)
        throttle(world, served, "2")
        answer = caller.complete(served)

    assert 0 == held
    assert 200 == answer.status_code


def test_a_gateway_told_to_stop_lets_answers_come_to_their_end(world: Stack, caller: Caller, place: Place) -> None:
    """Stopped politely, it goes on with what it has begun, and the caller gets the whole answer."""
    served = place("comes-to-its-end")
    with slowly(world, served), caller.stream(served) as stream, ThreadPoolExecutor() as threads:
        stream.next()
        stopping = threads.submit(output, [*world.compose, "restart", "--timeout", "40", "gateway"])
        wait_until(lambda: "gateway.stopping" in world.logs("gateway"), "it was told to stop", PATIENCE_S)
        throttle(world, served, "2")
        stream.rest()
        stopping.result(PATIENCE_S)
    wait_until(lambda: back(world), "the gateway is back", PATIENCE_S)

    assert whole(stream)
