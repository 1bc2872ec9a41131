"""Leases over the controller's own socket: what a gateway hears, and what becomes of what it holds."""

# ruff: noqa: ANN401 -- arguments of any type are handed on

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.errors import Reason
from controller.pool import Pool
from controller.server import Server
from controller.spec import ModelName
from controller.state import ExitCause
from controller.wire import Call, Catalog, Failed, Granted, ModelCard, Refused, Renew
from tests.controller.rig import Machine, Rig, model, reaches, running
from tests.controller.wire_client import Client, connected

pytestmark = pytest.mark.looptime(noop_cycles=1)

SOCKET = "c.sock"
CARD = ModelCard(
    name="m" * 60,
    engine="e",
    tier="small",
    tags=("t" * 60,) * 8,
    api_paths=(),
    context_tokens=1,
    parameters=1,
    created_s=1,
    chat=True,
    tools=False,
)


async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    """Answer what was asked."""
    return arguments


async def buggy(_: dict[str, Any]) -> None:
    """Fail as code does that has a mistake in it."""
    raise ZeroDivisionError("a mistake")


async def endless(_: dict[str, Any]) -> None:
    """Never answer."""
    await asyncio.get_running_loop().create_future()


def server(pool: Pool, **changes: Any) -> Server:
    """Make a server with a few verbs."""
    verbs = {"echo": echo, "buggy": buggy, "endless": endless}
    catalog = Catalog(models=(CARD,) * 100, keys=())
    return Server(pool=pool, verbs=verbs, instance="life-1", catalog=lambda: catalog, **changes)


@contextlib.asynccontextmanager
async def line(folder: Path, machine: Machine, **knobs: Any) -> AsyncIterator[tuple[Rig, Client]]:
    """Run a pool with two models of which one fits, its socket, and a client on it."""
    models = [model("a", mib=60), model("b", mib=60)]
    async with (
        running(folder, models, machine=machine, knobs=knobs) as rig,
        server(rig.pool).listening(folder / SOCKET),
        connected(folder / SOCKET) as client,
    ):
        yield rig, client


async def test_a_session_begins_with_welcome_and_catalog(folder: Path, machine: Machine) -> None:
    """A gateway learns first whom it talks to, and what there is."""
    async with line(folder, machine) as (_, client):
        await reaches("the greeting", lambda: len(client.heard) == 2)

        assert ["Welcome", "Catalog"] == [type(m).__name__ for m in client.heard]
        assert "life-1" == client.instance


async def test_the_socket_is_the_groups_and_nobody_elses(folder: Path, machine: Machine) -> None:
    """Reading and writing for owner and group, nothing for the rest of the box."""
    async with line(folder, machine):
        mode = (folder / SOCKET).stat().st_mode

        assert stat.S_ISSOCK(mode)
        assert 0o660 == stat.S_IMODE(mode)


async def test_a_caller_hears_of_its_place_of_the_load_and_of_the_grant(folder: Path, machine: Machine) -> None:
    """Behind another model's lease a caller is queued, then its model is loaded, then it is told where and for how long."""
    machine.load_s["b"] = 5.0
    async with line(folder, machine) as (rig, client):
        await client.granted("a", lease="1")
        client.ask("b", lease="2")
        await reaches("its place is known", lambda: client.words("2") == ["Queued"])
        client.release("1", outcome="ok", prompt_tokens=3, completion_tokens=4, total_s=1.0)
        granted = await client.grant("2")

        assert ["Queued", "Loading", "Granted"] == client.words("2")
        assert granted.waited_s >= 5.0
        assert granted.waited_s <= granted.bound_s
        assert 30.0 == granted.limit_s
        assert granted.socket.endswith("/b/worker.sock")
        assert granted.route is not None
        assert {"b"} == machine.running
        assert {"2"} == set(rig.pool.scheduler.leases)


async def test_a_closed_connection_gives_everything_back(folder: Path, machine: Machine) -> None:
    """What a gateway held and what it waited for ends with it, and the next in line is served."""
    async with line(folder, machine) as (rig, client):
        await client.granted("a", lease="1")
        client.ask("a", lease="2")
        async with connected(folder / SOCKET) as other:
            other.ask("b", lease="3")
            await reaches("all are in", lambda: rig.pool.scheduler.waiting == 2)
            await client.close()
            granted = await other.grant("3")

            assert granted.waited_s < 30.0, "it was the time limit that ended the first"
            assert {"3"} == set(rig.pool.scheduler.leases)
            assert 0 == rig.pool.scheduler.waiting
            assert {"3"} == set(rig.pool._callers)


async def test_a_lease_is_renewed_after_a_restart_and_nothing_is_loaded_again(folder: Path, machine: Machine) -> None:
    """A new controller adopts the worker that runs, gives the lease back to its gateway, and only then takes it for idle."""
    async with line(folder, machine) as (_, client):
        run = (await client.granted("a", lease="1")).run
    async with line(folder, machine, adoption_grace_s=3.0) as (rig, client):
        renewed = await client.renewed("1", "a", run)
        client.ask("b", lease="2")
        await asyncio.sleep(10.0)

        assert run == renewed.run
        assert ["a"] == machine.starts
        assert client.about("2", Granted) is None

        client.release("1")
        await client.grant("2")

        assert ["a", "b"] == machine.starts
        assert machine.most_bytes <= rig.pool.budget_bytes


async def test_a_lease_on_another_life_is_not_renewed(folder: Path, machine: Machine) -> None:
    """If the worker ended while the controller was away, its stream is broken, and the gateway hears so."""
    async with line(folder, machine) as (rig, client):
        run = (await client.granted("a", lease="1")).run
    rig.memory.crash(ModelName("a"))
    async with line(folder, machine) as (_, client):
        client.send(Renew(id="1", model="a", run=run))
        refused = await client.refused("1")

        assert Reason.WORKER_FAILED == refused.reason


async def test_a_gateway_that_comes_again_takes_its_lease_over(folder: Path, machine: Machine) -> None:
    """The new connection of a gateway may be there before the old one is known to be lost; the lease goes over, once."""
    async with line(folder, machine) as (rig, client):
        run = (await client.granted("a", lease="1")).run
        async with connected(folder / SOCKET) as again:
            await again.renewed("1", "a", run)
            await client.close()
            await asyncio.sleep(5.0)

            assert {"1"} == set(rig.pool.scheduler.leases)

        await reaches("it ends with the second", lambda: not rig.pool.scheduler.leases)


async def test_an_id_is_one_callers(folder: Path, machine: Machine) -> None:
    """A second request under an id in use is refused, and whose it is keeps what it has; nobody else can give it back."""
    async with line(folder, machine) as (rig, client):
        await client.granted("a", lease="1")
        async with connected(folder / SOCKET) as other:
            other.ask("b", lease="1")
            refused = await other.refused("1")
            other.release("1")
            other.send(Renew(id="1", model="b", run="run-9"))
            assert await other.call("echo", x=1) == {"x": 1}

            assert Reason.MALFORMED == refused.reason
            assert {"1"} == set(rig.pool.scheduler.leases)
            assert {"a"} == machine.running


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        (lambda rig: rig.memory.allocate(ModelName("a"), 2**40), ExitCause.OUT_OF_MEMORY, "ran out of memory"),
        (lambda rig: rig.memory.crash(ModelName("a"), cause=ExitCause.KILLED), ExitCause.KILLED, "killed from outside"),
        (lambda rig: rig.memory.crash(ModelName("a"), cause=ExitCause.STOPPED), ExitCause.STOPPED, "stopped from outside"),
        (lambda rig: rig.memory.crash(ModelName("a")), ExitCause.CRASHED, "crashed"),
        (lambda rig: rig.memory.vanish(ModelName("a")), "removed", "was removed"),
        (lambda rig: None, "time_limit", "longest it may"),
    ],
    ids=["oom", "kill", "stop", "crash", "rm", "time"],
)
async def test_a_lease_is_revoked_with_its_cause(folder: Path, machine: Machine, end: Any, cause: str, words: str) -> None:
    """Whatever ends a worker in use, the caller hears what it was, once, and the model serves again."""
    async with line(folder, machine) as (rig, client):
        await client.granted("a", lease="1")
        end(rig)
        revoked = await client.revoked("1")
        again = await client.granted("a", lease="2")
        client.release("1")
        await client.call("echo")

        assert cause == revoked.cause
        assert words in revoked.message
        assert ["Granted", "Revoked"] == [w for w in client.words("1") if w not in ("Queued", "Loading")]
        assert {"2"} == set(rig.pool.scheduler.leases)
        assert again.model == "a"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"type": "acquire"}\n',
        b'{"type": "acquire", "id": 7, "ask": {}}\n',
        b'{"type": "welcome", "version": "1", "instance": "x"}\n',
        b'{"type": "release", "id": "1", "rank": 1}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\x00\n",
        b"x" * (9 * 1024 * 1024) + b"\n",
    ],
    ids=["empty", "http", "incomplete", "types", "reply", "extra", "deep", "bytes", "long"],
)
async def test_nonsense_ends_its_session_alone(folder: Path, machine: Machine, nonsense: bytes) -> None:
    """Who sends no message of ours is cut and loses what it held; all others go on."""
    async with line(folder, machine) as (rig, client), connected(folder / SOCKET) as other:
        await client.granted("a", lease="1")
        other.ask("a", lease="2")
        with contextlib.suppress(ConnectionError):
            client.writer.write(nonsense)
            await client.writer.drain()
        await reaches("it is cut", lambda: client.is_cut)
        await other.grant("2")

        assert {"2"} == set(rig.pool.scheduler.leases)
        assert {"x": [1]} == await other.call("echo", x=[1])


async def test_half_a_line_at_the_end_is_no_message(folder: Path, machine: Machine) -> None:
    """A gateway that dies in the middle of a line has said nothing."""
    async with line(folder, machine) as (rig, client), connected(folder / SOCKET) as other:
        client.writer.write(b'{"type": "acquire", "id": "1"')
        await client.writer.drain()
        await client.close()

        assert {} == await other.call("echo")
        assert not rig.pool._callers


async def test_an_unknown_verb_and_a_mistake_in_a_verb_are_answers(folder: Path, machine: Machine) -> None:
    """Neither ends the session or the leases in it."""
    async with line(folder, machine) as (rig, client):
        await client.granted("a", lease="1")
        unknown, mistake = await client.call("dance"), await client.call("buggy")

        assert isinstance(unknown, Failed)
        assert Reason.MALFORMED == unknown.reason
        assert "buggy, echo, endless" in unknown.message
        assert isinstance(mistake, Failed)
        assert Reason.UNAVAILABLE == mistake.reason
        assert {"1"} == set(rig.pool.scheduler.leases)


async def test_a_call_ends_with_its_session(folder: Path, machine: Machine) -> None:
    """Nobody works on for a caller that is gone."""
    async with line(folder, machine) as (rig, client):
        client.send(Call(id="9", verb="endless"))
        await client.call("echo")
        before = len(asyncio.all_tasks())
        await client.close()
        await reaches("its task has ended", lambda: len(asyncio.all_tasks()) < before - 1)

        assert not rig.pool._callers


async def test_a_client_that_does_not_read_is_cut_and_others_go_on(folder: Path, machine: Machine) -> None:
    """What is written for it grows up to a limit; then its leases are given back."""
    async with running(folder, [model("a")], machine=machine) as rig:
        serving = server(rig.pool, max_backlog_bytes=256 * 1024)
        async with serving.listening(folder / SOCKET), connected(folder / SOCKET) as client, connected(folder / SOCKET) as deaf:
            await deaf.granted("a", lease="1")
            client.ask("a", lease="2")
            deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(50):
                serving.announce()
                await reaches("the other hears it", lambda heard=number + 2: len(client.catalogs()) >= heard)  # type: ignore[misc]
            granted = await client.grant("2")

            assert granted.waited_s < 30.0, "it was the time limit that ended the other lease"
            assert {"2"} == set(rig.pool.scheduler.leases)
            assert 1 == len(serving._sessions)


async def test_a_stale_socket_file_is_replaced(folder: Path, machine: Machine) -> None:
    """What a killed controller left does not keep the next one from listening."""
    (folder / SOCKET).write_bytes(b"")
    async with line(folder, machine) as (_, client):
        assert {} == await client.call("echo")


async def test_a_refusal_says_why_and_when_to_come_again(folder: Path, machine: Machine) -> None:
    """An unknown name, a full queue and a deadline nobody can meet are refused at once."""
    async with line(folder, machine, queue_limit=1) as (_, client):
        await client.granted("a", lease="1")
        client.ask("ab", lease="unknown")
        client.ask("b", lease="waits")
        client.ask("b", lease="full")
        unknown, full = await client.refused("unknown"), await client.refused("full")
        client.release("waits")
        client.ask("b", lease="late", deadline_s=0.1)
        late = await client.refused("late")

        assert Reason.UNKNOWN_MODEL == unknown.reason
        assert Reason.QUEUE_FULL == full.reason
        assert full.retry_after_s is not None
        assert Reason.TOO_LATE == late.reason
        assert client.about("waits", Refused) is None
