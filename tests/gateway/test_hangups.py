"""Callers that leave: wherever they are, their lease is given back and the worker stops working for them."""

import asyncio
from pathlib import Path

from tests.gateway.conftest import World, running
from tests.gateway.fakes import CHAT, connection, request
from tests.waiting import until

BODY = {"model": "mini", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_caller_that_leaves_the_queue_is_taken_out_of_it(world: World) -> None:
    """A hang-up while waiting releases the wait, and no worker ever hears of it."""
    world.controller.holding = True
    async with connection(world.port) as (_, writer):
        writer.write(request(CHAT, BODY))
        await until("the caller to wait", lambda: world.controller.waiting)
    await world.idle()

    assert [release.outcome for release in world.controller.released] == ["cancelled"]
    assert world.workers["mini"].requests == []


async def test_a_caller_that_leaves_before_the_first_byte_stops_the_worker(world: World) -> None:
    """A hang-up while the worker thinks closes the connection to the worker."""
    for stream in (False, True):
        async with connection(world.port) as (_, writer):
            writer.write(request(CHAT, {**BODY, "stream": stream, "fake": {"hang": True}}))
            await until("the worker to be asked", lambda: world.workers["mini"].active == 1)
        await world.idle()
        await until("the worker to see it", lambda: world.workers["mini"].active == 0)

    assert world.workers["mini"].hung_up == 2
    assert {release.outcome for release in world.controller.released} == {"cancelled"}


async def test_a_caller_that_leaves_in_the_middle_of_a_stream_stops_the_worker(world: World) -> None:
    """A hang-up after some events closes the connection to the worker."""
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"hang_after": 2}}))
        await reader.readuntil(b" upon")
    await world.idle()
    await until("the worker to see it", lambda: world.workers["mini"].hung_up == 1)

    assert [release.outcome for release in world.controller.released] == ["cancelled"]


async def test_a_slow_reader_that_leaves_stops_the_worker(world: World) -> None:
    """Back pressure reaches the worker, and a hang-up ends it all the same."""
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"flood": 64 * 1024 * 1024}}))
        await reader.readuntil(b" upon")
        # From here on nothing is read: buffers fill up to the worker, which then waits.
        await until("the worker to be stuck", lambda: world.workers["mini"].active == 1)
        assert world.controller.leases == 1
        writer.transport.abort()
    await world.idle()
    await until("the worker to see it", lambda: world.workers["mini"].active == 0)

    assert [release.outcome for release in world.controller.released] == ["cancelled"]


async def test_a_slow_reader_does_not_hold_a_worker_that_is_done(world: World) -> None:
    """What the worker has said is kept for a caller that does not read yet, and the lease is given back."""
    async with connection(world.port) as (reader, writer):
        writer.transport.pause_reading()
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"flood": 900_000}}))
        await until("the lease to be given back", lambda: world.controller.released)
        await world.idle()
        writer.transport.resume_reading()
        text = await reader.readuntil(b"0\r\n\r\n")

    assert len(text) > 800_000
    assert [release.outcome for release in world.controller.released] == ["ok"]


async def test_a_caller_that_leaves_in_the_middle_of_its_body_costs_nothing(world: World) -> None:
    """Half a request asks for no lease."""
    async with connection(world.port) as (_, writer):
        writer.write(request(CHAT, BODY)[:-10])
        await writer.drain()
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, BODY))
        await reader.readuntil(b"said hi")
    await world.idle()

    assert len(world.controller.acquired) == 1


async def test_a_batch_whose_caller_leaves_gives_all_leases_back(world: World) -> None:
    """Waiting and running items end together."""
    world.controller.holding = True
    async with connection(world.port) as (_, writer):
        writer.write(request("/batch_inference", {"model": "mini", "prompts": ["a", "b", "c"]}))
        await until("all items to wait", lambda: len(world.controller.waiting) == 3)
    await world.idle()

    assert [release.outcome for release in world.controller.released] == ["cancelled"] * 3


async def test_a_hundred_callers_that_leave_at_any_moment_leave_nothing_behind(world: World) -> None:
    """Hang-ups at every stage, all at once, end with no lease and no busy worker."""

    async def caller(number: int) -> None:
        fake = [{}, {"hang": True}, {"hang_after": number % 4}, {"flood": 4_000_000}][number % 4]
        async with connection(world.port) as (reader, writer):
            writer.write(request(CHAT, {**BODY, "stream": number % 3 > 0, "fake": fake}))
            if number % 2:
                await reader.read(1 + number)
            writer.transport.abort()

    await asyncio.gather(*(asyncio.wait_for(caller(number), 10) for number in range(100) if number % 4 != 1 or number % 2 == 0))
    await world.idle()
    await until("the worker to be idle", lambda: world.workers["mini"].active == 0)

    assert (await world.chat()).status_code == 200


async def test_a_request_that_holds_its_worker_too_long_is_cut(world: World) -> None:
    """The grant's time limit ends a stream with an error event, and a silent worker with a status; the lease is back at once."""
    world.controller.limit_s = 0.2
    streamed = await world.chat(stream=True, fake={"hang_after": 1})
    silent = await world.chat(fake={"hang": True})

    assert '"code":"time_limit_exceeded"' in streamed.text.splitlines()[-2]
    assert (silent.status_code, silent.json()["error"]["code"]) == (504, "time_limit_exceeded")
    await world.idle()
    assert [release.outcome for release in world.controller.released] == ["error", "error"]
    assert world.workers["mini"].hung_up == 2


async def test_a_slow_reader_loses_its_worker_at_the_time_limit(world: World) -> None:
    """A caller that does not read cannot hold a worker for longer than others can."""
    world.controller.limit_s = 0.2
    async with connection(world.port) as (_, writer):
        writer.transport.pause_reading()
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"flood": 64 * 1024 * 1024}}))
        await until("the lease to be given back", lambda: world.controller.released)
        await until("the worker to be let go", lambda: world.workers["mini"].active == 0)


async def test_what_outlives_the_grace_period_is_told_so(tmp_path: Path) -> None:
    """A caller in the queue gets a status, one in a stream an error event, and no lease is left."""
    async with running(tmp_path) as world, connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "stream": True, "fake": {"hang_after": 2}}))
        await reader.readuntil(b" upon")
        world.controller.holding = True
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.chat())
            await until("the caller to wait", lambda: world.controller.waiting)
            world.server.should_exit = True
        streamed = await reader.read()
        await world.idle()

    assert (waiting.result().status_code, waiting.result().json()["error"]["code"]) == (503, "stopping")
    assert b'"code":"stopping"' in streamed


async def test_stopping_the_gateway_lets_running_answers_end(tmp_path: Path) -> None:
    """When told to stop it takes nobody new in, and a stream that is running is delivered whole."""
    async with running(tmp_path) as world, connection(world.port) as (reader, writer):
        world.controller.holding = True
        writer.write(request(CHAT, {**BODY, "stream": True}))
        await until("the caller to wait", lambda: world.controller.waiting)
        world.server.should_exit = True
        await until("the port to be closed", lambda: not world.server.servers[0].is_serving())
        world.controller.grant_all()
        text = await reader.read()
        while part := await reader.read():
            text += part

    assert b"[DONE]" in text
