"""Workers that die: nothing sent yet is tried once more, and what cannot be mended is said honestly."""

import asyncio

import pytest

from tests.gateway.conftest import World
from tests.waiting import until


def outcomes(world: World) -> list[str]:
    """Return what became of the leases that were given back, in that order."""
    return [release.outcome for release in world.controller.released]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_worker_that_dies_before_the_first_byte_is_tried_once_more(near: World, *, stream: bool) -> None:
    """The caller notices nothing, and both leases are given back."""
    near.workers["mini"].deaths = 1
    near.controller.limit_s = 5.0
    answer = await near.chat(stream=stream)

    assert answer.status_code == 200
    assert len(near.controller.acquired) == 2
    await near.idle()
    assert outcomes(near) == ["error", "ok"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_was_unloaded_by_force_is_not_asked_for_again(world: World, *, stream: bool) -> None:
    """A second attempt would load at once what somebody has just unloaded: the caller gets the error instead."""
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(world.chat(stream=stream, fake={"hang": True}))
        await until("the worker to be asked", lambda: world.workers["mini"].requests)
        world.controller.revoke_all("unloaded", "mini was unloaded by force while it answered")
    error = asked.result().json()["error"]

    assert (asked.result().status_code, error["code"]) == (502, "worker_failed")
    assert error["message"] == "mini was unloaded by force while it answered"
    assert error["details"] == {"model": "mini", "cause": "unloaded"}
    assert len(world.controller.acquired) == 1
    await world.idle()


async def test_a_worker_that_is_not_there_is_tried_once_more_and_then_said_to_have_failed(near: World) -> None:
    """Two leases at most: a request that kills workers does not go on killing."""
    await near.workers["mini"].stop()
    answer = await near.chat()

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (502, "worker_failed", {"model": "mini", "cause": "unknown"})
    assert len(near.controller.acquired) == 2
    await near.idle()
    assert outcomes(near) == ["error", "error"]


@pytest.mark.parametrize(
    ("cause", "code"), [("out_of_memory", "worker_out_of_memory"), ("crashed", "worker_failed"), ("killed", "worker_failed")]
)
async def test_the_cause_of_a_workers_end_is_named(world: World, cause: str, code: str) -> None:
    """What the controller says of the worker's end is what the caller reads, out of memory told apart from a crash."""
    world.controller.limit_s = 30.0

    async def revoke_twice() -> None:
        for attempt in (1, 2):
            await until("the worker to be asked", lambda: len(world.workers["mini"].requests) == attempt)  # noqa: B023 -- used here
            world.controller.revoke_all(cause, f"it ended: {cause}")

    async with asyncio.TaskGroup() as group:
        group.create_task(revoke_twice())
        answer = await world.chat(fake={"hang": True})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (502, code, f"it ended: {cause}")
    assert error["details"]["cause"] == cause
    await world.idle()


@pytest.mark.parametrize("half", [False, True])
async def test_a_stream_that_breaks_ends_with_an_error_event(near: World, *, half: bool) -> None:
    """What has been sent stays, half an event is held back, and the last event is an error in OpenAI's form."""
    answer = await near.chat(stream=True, fake={"die_after": 2, "half": half})

    events = [line for line in answer.text.splitlines() if line]
    assert answer.status_code == 200
    assert len(events) == 3
    assert events[-1].startswith('data: {"error":{"message":')
    assert "[DONE]" not in answer.text
    assert len(near.controller.acquired) == 1
    await near.idle()
    assert outcomes(near) == ["error"]


async def test_a_kept_connection_that_the_worker_has_closed_costs_no_lease(near: World) -> None:
    """A worker closes idle connections whenever it likes; the next request opens a new one under the same lease."""
    await near.chat()
    near.workers["mini"].drop_idle()
    answer = await near.chat()

    assert answer.status_code == 200
    assert len(near.controller.acquired) == 2
    assert near.workers["mini"].connections == 2


async def test_a_kept_connection_that_is_closed_under_a_request_costs_no_lease(near: World) -> None:
    """A worker may close an idle connection at the moment it is used again; a new one tells whether the worker lives."""
    await near.chat()
    near.workers["mini"].deaths = 1
    answer = await near.chat()

    assert answer.status_code == 200
    assert len(near.controller.acquired) == 2
    assert len(near.workers["mini"].requests) == 3


async def test_connections_are_kept(near: World) -> None:
    """Requests one after the other share a connection, streams included."""
    for number in range(6):
        assert (await near.chat(stream=number % 2 == 0)).status_code == 200

    assert near.workers["mini"].connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
async def test_a_worker_that_speaks_no_http_is_a_bad_gateway(near: World, raw: bytes) -> None:
    """Whatever a worker sends, the caller gets a 502."""
    near.workers["mini"].raw = raw
    answer = await near.chat()

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "worker_failed")
    await near.idle()


async def test_an_answer_that_ends_with_its_connection_is_whole(near: World) -> None:
    """An answer without a length, as HTTP/1.0 servers send it, ends when the connection does."""
    near.workers["mini"].raw = b'HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{"id": "old"}'
    answer = await near.chat()

    assert answer.json() == {"id": "old"}
