"""A whole controller on a box with two cards: where it puts workers, what it tells of them, and how it finds them again."""

import contextlib
from pathlib import Path

from controller.app import SOCKET_NAME
from controller.errors import Reason
from controller.spec import ModelName
from controller.units import GIB, MIB
from tests.controller.rig import OWNER, Machine
from tests.controller.test_app import add
from tests.controller.test_identity import controller, greeted
from tests.controller.wire_client import connected
from tests.devices import recorded

A, B, C = (ModelName(n) for n in "abc")
EACH = "gpu_memory = '600MiB'"
"""One of them fits on a card, and no two."""


def two_cards(folder: Path, machine: Machine) -> contextlib.AbstractAsyncContextManager[object]:
    """Run a controller on the box with two cards, that gives models little of each."""
    found: contextlib.AbstractAsyncContextManager[object] = controller(
        folder, machine, recorded("discrete-2"), memory={"budget": 8 * GIB}, gpu={"budget": 1000 * MIB}
    )
    return found


def cards_of(machine: Machine, model: ModelName) -> list[int]:
    """Return the cards that a container was made for, and see to it that it can open no other."""
    spec = machine.box(OWNER, model).spec
    cards = [part.card for part in spec.cards]
    assert all(any(str(card) in device for device in spec.devices) for card in cards)
    return cards


async def test_two_models_compute_on_two_cards_and_the_status_says_so(folder: Path, machine: Machine) -> None:
    """Each card holds one of them, both budgets are told, and a third one would take the place of the one that is idle."""
    for name in (A, B, C):
        add(folder, name, EACH)
    async with two_cards(folder, machine), connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        for name in (A, B):
            await client.granted(name, lease=name)
        assert sorted([*cards_of(machine, A), *cards_of(machine, B)]) == [0, 1]

        client.release(A, outcome="ok")
        status, plan = await client.call("status"), await client.call("plan", model=C)
        models = await client.call("models")

    (card,) = cards_of(machine, A)
    row = status["cards"][card]
    assert (row["index"], row["configured_budget_bytes"], row["committed_bytes"]) == (card, 1000 * MIB, 600 * MIB)
    assert row["workers"] == [{"model": "a", "bytes": 600 * MIB}]
    assert (row["held_bytes"], row["free_bytes"]) == (600 * MIB, 400 * MIB)
    assert (plan["answer"], [gone["model"] for gone in plan["evict"]]) == ("start", ["a"])
    assert plan["gpus"] == [{"index": card, "bytes": 600 * MIB, "budget_bytes": 1000 * MIB, "free_bytes": 400 * MIB}]
    assert {m["name"]: m["gpus"] for m in models["models"]}["a"] == [{"index": card, "bytes": 600 * MIB}]


async def test_a_controller_that_comes_back_finds_workers_where_they_are(folder: Path, machine: Machine) -> None:
    """Their labels say it: nothing is moved, and what is free is the rest."""
    for name in (A, B, C):
        add(folder, name, EACH)
    async with two_cards(folder, machine), connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        runs = {name: (await client.granted(name, lease=name)).run for name in (A, B)}
    before = {name: cards_of(machine, name) for name in (A, B)}
    (folder / "r" / SOCKET_NAME).unlink(missing_ok=True)
    async with two_cards(folder, machine), connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        assert {name: (await client.renewed(name, name, run)).run for name, run in runs.items()} == runs
        client.release(B, outcome="ok")
        await client.granted(C, lease="c")

        assert {A: before[A], C: before[B]} == {name: cards_of(machine, name) for name in (A, C)}
        assert (await client.call("status"))["cards"][before[A][0]]["workers"] == [{"model": "a", "bytes": 600 * MIB}]


async def test_what_fits_on_no_card_is_refused_and_the_budget_named(folder: Path, machine: Machine) -> None:
    """There is memory enough, and the cards are too small."""
    add(folder, A, "gpu_memory = '4GiB'")
    async with two_cards(folder, machine), connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        client.ask(A, lease="1")
        refused = await client.refused("1")

    assert refused.reason is Reason.NEVER_FITS
    assert "needs 4 GiB of a GPU's memory (override)" in refused.message
