"""A gateway that leaves: it takes nobody new, and everybody it has is answered."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from controller.config import Settings
from controller.gateway.app import build
from controller.gateway.lease import Session
from controller.gateway.listener import server
from tests.gateway.conftest import World
from tests.gateway.fakes import CHAT, connection, request
from tests.waiting import until

BODY = {"model": "mini", "messages": [{"role": "user", "content": "hi"}]}
LONG_S = 60.0
ROOT = Path(__file__).parents[2]


def leave(world: World, *, limit_s: float = LONG_S) -> asyncio.Task[None]:
    """Have the gateway leave."""
    assert world.server is not None
    return asyncio.create_task(world.server.drain(limit_s=limit_s, is_waiting=lambda: world.session.waiting > 0))


async def answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the head of an answer and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
    return head, await reader.readexactly(length)


async def test_who_waits_to_be_accepted_is_answered(world: World) -> None:
    """A caller that the kernel has let in, and nobody has heard yet, is not lost when the gateway stops listening."""
    unheard = socket.create_connection(("127.0.0.1", world.port))  # no turn of the loop until the gateway leaves
    left = leave(world)
    reader, writer = await asyncio.open_connection(sock=unheard)
    writer.write(request(CHAT, BODY))
    head, _ = await answer(reader)
    writer.close()
    await left

    assert head.startswith("http/1.1 200")
    assert "connection: close" in head


async def test_nobody_new_is_taken(world: World) -> None:
    """Whoever comes now comes to another gateway, or to none."""
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, {**BODY, "fake": {"hang": True}}))
        await until("the worker to be asked", lambda: world.workers["mini"].active == 1)
        left = leave(world)
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", world.port)
        assert not left.done()
        writer.close()
        await left
        del reader


async def test_an_idle_connection_has_one_more_answer(world: World) -> None:
    """It is not closed under a caller that may be sending at this moment; the answer says that it was the last."""
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, BODY))
        before, _ = await answer(reader)
        left = leave(world)
        await asyncio.sleep(0.1)
        assert not left.done()
        writer.write(request(CHAT, BODY))
        last, _ = await answer(reader)
        rest = await reader.read()
    await left

    assert "connection: close" not in before
    assert "connection: close" in last
    assert b"" == rest


async def test_a_caller_that_waits_is_waited_for(world: World) -> None:
    """Waiting for memory has a bound of its own: the limit begins when the answer does."""
    world.controller.holding = True
    async with connection(world.port) as (reader, writer):
        writer.write(request(CHAT, BODY))
        await until("the caller to wait", lambda: world.session.waiting == 1)
        left = leave(world, limit_s=0.05)
        await asyncio.sleep(0.3)
        assert not left.done()
        world.controller.grant_all()
        head, _ = await answer(reader)
    await left

    assert head.startswith("http/1.1 200")


async def test_a_leave_that_goes_wrong_ends_all_the_same(world: World) -> None:
    """It does not listen any more: a process that stayed would serve nobody and never end."""

    def is_waiting() -> bool:
        raise RuntimeError("broken")

    assert world.server is not None
    async with connection(world.port):
        await until("the caller to be there", lambda: world.server and world.server.server_state.connections)
        with pytest.raises(RuntimeError, match="broken"):
            await world.server.drain(limit_s=LONG_S, is_waiting=is_waiting)

    assert world.server.should_exit


async def test_a_gateway_may_leave_before_it_listens() -> None:
    """There is nobody to wait for."""
    served = server(build(Settings(), Session("/nonexistent")), host="127.0.0.1", port=0, max_header_bytes=1024, grace_s=1.0)
    await served.drain(limit_s=LONG_S, is_waiting=lambda: False)
    async with asyncio.timeout(10):
        await served.serve()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["reads its modules", "waits for keys"])
async def test_a_process_that_does_not_serve_yet_ends_when_it_is_told(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    """At every moment, and as one that ends well: a signal is neither its death nor lost."""
    environ = {"PATH": os.environ["PATH"], "WINDLASS_RUN": str(tmp_path), "WINDLASS_LISTEN": "0.0.0.0:0"}
    argv = (sys.executable, "-m", "controller", "gateway")
    process = await asyncio.create_subprocess_exec(*argv, env=environ, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        if moment == "reads its modules":
            status = Path(f"/proc/{process.pid}/status")
            await until("it to hold the signal back", lambda: holds_back(status.read_text(encoding="utf-8"), number))
        else:
            assert b"gateway.waits_for_keys" in await process.stderr.readline()
        process.send_signal(number)
        _, said = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()

    assert (0, True) == (process.returncode, b"gateway.stopped" in said), said


def holds_back(status: str, number: signal.Signals) -> bool:
    """Read the kernel's words on a process."""
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked, 16) >> (number - 1) & 1)


async def test_an_answer_that_takes_too_long_is_not_waited_for(world: World) -> None:
    """After the limit the server is told to end, whoever is still there."""
    async with connection(world.port) as (_, writer):
        writer.write(request(CHAT, {**BODY, "fake": {"hang": True}}))
        await until("the worker to be asked", lambda: world.workers["mini"].active == 1)
        async with asyncio.timeout(10):
            await leave(world, limit_s=0.1)

        assert world.server is not None
        assert world.server.should_exit
