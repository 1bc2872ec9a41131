"""The session with the controller: it may go away and come back."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.conftest import World, running
from tests.gateway.fakes import CHAT, connection, request
from tests.waiting import until

BODY = {"model": "mini", "messages": [{"role": "user", "content": "hi"}]}


async def test_waiting_callers_survive_a_restart_of_the_controller(world: World) -> None:
    """What waits is asked for again, with the same id and the time it has waited, and the caller just goes on waiting."""
    world.controller.holding = True
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(world.chat())
        await until("the caller to wait", lambda: world.controller.waiting)
        await world.controller.stop()
        await until("the session to be lost", lambda: not world.session.connected)
        world.controller.holding = False
        await world.controller.start()

    first, again = world.controller.acquired
    assert asked.result().status_code == 200
    assert first.id == again.id
    assert first.waited_s == 0 < again.waited_s
    await world.idle()


async def test_a_running_stream_survives_a_restart_of_the_controller(world: World) -> None:
    """The bytes do not pass through the controller, and the lease is renewed for the same worker's life."""
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"hang_after": 2}}))
        await reader.readuntil(b" upon")
        await world.controller.stop()
        await until("the session to be lost", lambda: not world.session.connected)
        await world.controller.start()
        await until("the lease to be renewed", lambda: world.controller.renewed)
        (renew,) = world.controller.renewed
        assert (renew.model, renew.run) == ("mini", "run-1")
        assert world.workers["mini"].active == 1
    await world.idle()


async def test_a_request_during_a_restart_waits_for_the_controller(world: World) -> None:
    """A caller that comes in the seconds without a controller is served when it is back."""
    await world.controller.stop()
    await until("the session to be lost", lambda: not world.session.connected)
    health = await world.http.get("/health")
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(world.chat())
        await until("the caller to wait", lambda: world.session.held)
        await world.controller.start()

    assert asked.result().status_code == 200
    assert (health.status_code, health.json()["status"]) == (200, "degraded")


async def test_a_controller_that_stays_away_ends_the_waiting(tmp_path: Path) -> None:
    """After a while waiting callers and new ones are told to come again, and health says that it fails; a stream goes on."""
    async with running(tmp_path, away_limit_s=0.2) as world, connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"hang_after": 2}}))
        await reader.readuntil(b" upon")
        world.controller.holding = True
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(world.chat())
            await until("the caller to wait", lambda: world.controller.waiting)
            await world.controller.stop()
        later = await world.chat()
        health = await world.http.get("/health")

        for answer in (asked.result(), later):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert (health.status_code, health.json()["status"]) == (503, "failing")
        assert world.workers["mini"].active == 1


async def test_a_catalog_that_changes_is_used_at_once(near: World) -> None:
    """A model that appears is served and listed, one that is gone is not found."""
    del near.controller.models["mini"]
    near.controller.announce()
    await until("the catalog to come", lambda: "mini" not in near.session.known().models)
    gone = await near.chat()
    listed = await near.http.get("/v1/models")

    assert gone.status_code == 404
    assert [entry["id"] for entry in listed.json()["data"]] == ["large", "vectors"]


async def test_a_caller_hears_nothing_of_a_call_that_was_cut_but_that_it_was(near: World) -> None:
    """A question that the controller does not live to answer is a 503."""
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(near.http.get("/performance"))  # which the fake never answers
        await until("the call to arrive", lambda: near.controller.calls)
        await near.controller.stop()

    assert (asked.result().status_code, asked.result().json()["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b'{"type": "granted"}\n'])
async def test_nonsense_from_the_controller_is_answered_with_a_new_session(near: World, line: bytes) -> None:
    """A line that is no message ends the connection, and the next one works."""
    for writer in list(near.controller._writers):
        writer.write(line)
    await until("the session to be lost", lambda: not near.session.connected)
    await until("the session to be back", lambda: near.session.connected)

    assert (await near.chat()).status_code == 200
