"""The whole controller in one process, from settings and folders to the socket, and again after a restart."""

# ruff: noqa: ANN401 -- settings are of any type
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from controller.app import SOCKET_NAME, serve
from controller.config import Settings
from controller.drivers.memory import MemoryDriver
from controller.state import ExitCause
from controller.units import MIB
from tests.checkpoints import write_gguf_folder
from tests.controller.rig import OWNER, Machine
from tests.controller.wire_client import Client, connected
from tests.waiting import until


def add(folder: Path, name: str, manifest: str = "") -> None:
    """Put a model's folder in place whole, as if it had been there for long."""
    hidden = write_gguf_folder(folder / "models", f".{name}", manifest=manifest)
    for path in (*hidden.iterdir(), hidden):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    hidden.rename(folder / "models" / name)


def settings(folder: Path, **changes: Any) -> Settings:
    """Make settings whose home is *folder*."""
    return Settings.model_validate({"home": str(folder), "run": str(folder / "r"), "memory": {"budget": 200 * MIB}, **changes})


@contextlib.asynccontextmanager
async def controller(folder: Path, machine: Machine, **changes: Any) -> AsyncIterator[Client]:
    """Run a controller, and be connected to it, as long as the block runs."""
    (folder / "r").mkdir(exist_ok=True)
    (folder / "r" / SOCKET_NAME).unlink(missing_ok=True)
    serving = asyncio.create_task(serve(settings(folder, **changes), MemoryDriver(OWNER, engine=machine)))
    try:
        await until("it listens", lambda: serving.done() or (folder / "r" / SOCKET_NAME).exists())
        if serving.done():
            await serving
        async with connected(folder / "r" / SOCKET_NAME) as client:
            await until("the greeting", client.catalogs)
            yield client
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def names(client: Client) -> list[str]:
    """Return the models of the catalog heard last."""
    return [card.name for card in client.catalogs()[-1].models]


async def test_a_request_is_served_and_remembered_over_a_restart(folder: Path, machine: Machine) -> None:
    """Folders become models, a lease is granted, and the next life knows worker, lease, key and measurements."""
    add(folder, "a")
    add(folder, "b", "pinned = true")
    (folder / "models" / "broken").mkdir()
    async with controller(folder, machine) as client:
        run = (await client.granted("a", lease="1")).run
        key = await client.call("keys.create", name="phone")
        problems = (await client.call("models"))["problems"]
        first = client.instance

        assert ["a", "b"] == names(client)
        assert ["broken"] == [row["folder"] for row in problems]
        assert [key["id"]] == [card.id for card in client.catalogs()[-1].keys]

    async with controller(folder, machine) as client:
        renewed = await client.renewed("1", "a", run)
        client.release("1", outcome="ok", prompt_tokens=5, completion_tokens=5, total_s=0.5)
        rows = {row["name"]: row for row in (await client.call("models"))["models"]}

        assert run == renewed.run
        assert first != client.instance
        assert [key["id"]] == [card.id for card in client.catalogs()[-1].keys]
        assert 1 == machine.starts.count("a") == machine.starts.count("b")
        assert rows["a"]["load_s"] < 0.7, "the load was measured, and is not the estimate any more"


async def test_a_folder_that_comes_and_goes_is_announced(folder: Path, machine: Machine) -> None:
    """Gateways hear of a new model without asking, and of its end."""
    add(folder, "a")
    async with controller(folder, machine) as client:
        add(folder, "c")
        await until("the new one is announced", lambda: names(client) == ["a", "c"])
        await client.granted("c", lease="1")
        client.release("1")
        (folder / "models" / "c").rename(folder / "models" / ".c")
        await until("its end is announced", lambda: names(client) == ["a"])
        await until("its worker has ended", lambda: "c" not in machine.existing)


async def test_what_ran_out_of_memory_gets_more_in_the_next_life(folder: Path, machine: Machine) -> None:
    """The kernel's verdict is kept: the footprint is larger than what was too little."""
    add(folder, "a")
    async with controller(folder, machine) as client:
        await client.granted("a", lease="1")
        before = (await client.call("models"))["models"][0]["footprint_bytes"]
        machine.crashed(OWNER, next(m for m in machine.running if m == "a"), cause=ExitCause.OUT_OF_MEMORY)  # type: ignore[arg-type]
        revoked = await client.revoked("1")
    async with controller(folder, machine) as client:
        after = (await client.call("models"))["models"][0]["footprint_bytes"]

        assert ExitCause.OUT_OF_MEMORY == revoked.cause
        assert before < after


async def test_without_any_model_it_is_up_and_says_so(folder: Path, machine: Machine) -> None:
    """An empty box is a working box."""
    async with controller(folder, machine) as client:
        client.ask("a", lease="1")
        refused = await client.refused("1")

        assert "unknown_model" == refused.reason
        assert "ok" == (await client.call("health"))["state"]
