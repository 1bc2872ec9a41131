"""Conversations in the workers: what is written, read, proved, forgotten, and kept apart."""

# ruff: noqa: ANN401 -- arguments of any type are handed on

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.copies import Counts
from controller.slots import IDLE_S
from controller.spec import ModelName, ModelSpec
from controller.store.conversations import FOLDER, Limits
from controller.talks import LEAVING_S
from controller.wire import Granted, Refused, Renew, Talk
from tests.controller.cells import Cells
from tests.controller.rig import OWNER, Machine, Rig, model, reaches, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

LIMITS = Limits(budget_bytes=10_000, file_bytes=5_000, age_s=1e6)
ANNA = Talk(owner="anna", name="a", origin="a", lasting=True)
OTHER = Talk(owner="anna", name="b", origin="b", lasting=True)
BERT = Talk(owner="bert", name="a", origin="a", lasting=True)
SAID = b"anna says " * 50
SAID_BY_OTHER = b"something else " * 40


class House:
    """A rig whose workers hold conversations, and short ways to talk to them."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.cells: Cells = rig.machine.cells
        self.kept = folder / "k" / FOLDER

    @property
    def counts(self) -> Counts:
        """What was done."""
        return self.rig.pool.talks.copies.counts

    @property
    def files(self) -> int:
        """How many conversations are on the disk."""
        return len(list(self.kept.iterdir()))

    @property
    def litter(self) -> list[Path]:
        """Return what lies in the workers' own directories."""
        return [path for path in self.kept.parent.glob("[a-z]*/*") if path.is_file()]

    async def granted(self, talk: Talk, *, of: str = "a") -> tuple[str, Granted]:
        """Ask, and wait for the grant."""
        lease = self.rig.ask(of, talk=talk)
        answer = await self.rig.answered(lease)
        assert isinstance(answer, Granted), answer
        return lease, answer

    async def say(self, talk: Talk, said: bytes, *, of: str = "a", **report: Any) -> int:
        """Have a conversation computed from its grant to its end, and return how much of it was there already."""
        lease, granted = await self.granted(talk, of=of)
        assert granted.slot is not None
        assert granted.fields["id_slot"] == granted.slot
        cached = self.cells.compute(of, granted.slot, said, reuse=granted.fields.get("cache_prompt", True))
        self.rig.release(lease, **{"prompt_tokens": len(said), "cached_tokens": cached} | report)
        return cached

    async def swap(self, *, to: str = "b") -> None:
        """Have another model take all the memory."""
        await self.rig.serve(to)
        await reaches(f"{to} is alone", lambda: self.rig.machine.running == {to})
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def house(folder: Path, machine: Machine, *, kept: Limits | None = LIMITS, **changes: Any) -> AsyncIterator[House]:
    """Run two models of which one fits."""
    models = [model("a", mib=60, **changes), model("b", mib=60)]
    knobs = {"min_residency_s": 0.0}
    async with running(folder, models, machine=machine, kept=kept, knobs=knobs) as rig:
        yield House(rig, folder)


async def test_a_conversation_survives_a_swap(folder: Path, machine: Machine) -> None:
    """It is written before its worker ends, read when it goes on, and what the engine reused proves it."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        assert (1, 1) == (home.files, home.counts.saves)

        assert len(SAID) == await home.say(ANNA, SAID + b"more")
        assert (1, len(SAID), len(SAID)) == (home.counts.restores, home.counts.restored_tokens, home.counts.reused_tokens)
        assert (0, 0, []) == (home.counts.unused, home.counts.failures, home.litter)


async def test_a_single_question_survives_a_swap_as_well(folder: Path, machine: Machine) -> None:
    """Nobody can tell whether it will be gone on with; and what goes on from it finds it by what it was called."""
    async with house(folder, machine) as home:
        await home.say(Talk(owner="anna", name="first"), SAID)
        await home.swap()

        assert len(SAID) == await home.say(Talk(owner="anna", name="second", origin="first", lasting=True), SAID + b"more" * 9)
        await home.swap()
        assert 1 == home.files


async def test_what_rests_is_written_before_anybody_needs_its_place(folder: Path, machine: Machine) -> None:
    """Then a swap-out has nothing to write; and it is written once."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await asyncio.sleep(IDLE_S * 5)
        assert ["save a 0"] == home.cells.asked

        await home.swap()
        assert ["save a 0"] == home.cells.asked


async def test_two_conversations_take_turns_in_one_slot(folder: Path, machine: Machine) -> None:
    """Each is written when the other one comes, and read when it comes back."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.say(OTHER, SAID_BY_OTHER)

        assert len(SAID) == await home.say(ANNA, SAID + b"more" * 9)
        assert len(SAID_BY_OTHER) == await home.say(OTHER, SAID_BY_OTHER + b"more")


async def test_two_slots_hold_two_conversations(folder: Path, machine: Machine) -> None:
    """Nothing need be written or read as long as there is room."""
    async with house(folder, machine, parallel=2) as home:
        for _ in range(3):
            await home.say(ANNA, SAID)
            await home.say(BERT, SAID_BY_OTHER)

        assert [] == home.cells.asked


async def test_another_owner_meets_nothing_of_the_last_one(folder: Path, machine: Machine) -> None:
    """Neither what is in the slot nor what is on the disk, though it is called the same and says the same."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)

        assert 0 == await home.say(BERT, SAID)
        assert ["save a 0", "erase a 0"] == home.cells.asked
        await home.swap()
        assert 2 == home.files
        assert len(SAID) == await home.say(BERT, SAID)


async def test_what_cannot_be_erased_is_not_reused(folder: Path, machine: Machine) -> None:
    """Then the engine is told to compute everything."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        home.cells.broken.add("erase")
        _, granted = await home.granted(BERT)

        assert {"id_slot": 0, "cache_prompt": False} == granted.fields


async def test_a_bug_while_a_slot_is_prepared_costs_the_computing(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is granted all the same, and the engine is told to reuse nothing."""

    async def buggy(*_: object) -> bool:
        raise RuntimeError("a bug on purpose")

    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        monkeypatch.setattr(home.rig.pool.talks.copies, "erase", buggy)
        _, granted = await home.granted(BERT)

        assert {"id_slot": 0, "cache_prompt": False} == granted.fields


async def test_without_a_store_owners_are_kept_apart_all_the_same(folder: Path, machine: Machine) -> None:
    """Nothing is written, and a slot is erased between two owners."""
    async with house(folder, machine, kept=None) as home:
        await home.say(ANNA, SAID)
        await home.say(BERT, SAID)
        await home.swap()

        assert ["erase a 0"] == home.cells.asked


@pytest.mark.parametrize("fault", ["broken", "deaf"])
async def test_a_restore_that_fails_costs_the_computing(folder: Path, machine: Machine, fault: str) -> None:
    """The request is served, what could not be read is gone, and the slot is emptied of whatever was read."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        getattr(home.cells, fault).add("restore")

        assert 0 == await home.say(ANNA, SAID)
        assert ["restore a 0", "erase a 0"] == home.cells.asked[-2:]
        assert (1, 0, 0, []) == (home.counts.failures, home.counts.restores, home.files, home.litter)


async def test_a_restore_that_does_nothing_is_noticed(folder: Path, machine: Machine) -> None:
    """The engine says that it has worked, but has reused nothing: it is counted, and what was read is thrown away."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        home.cells.silent = True
        await home.say(ANNA, SAID)
        await asyncio.sleep(0.1)

        assert (1, 0) == (home.counts.unused, home.counts.reused_tokens)
        assert 0 == home.files
        await home.swap()
        assert 1 == home.files


async def test_an_engine_that_does_not_count_proves_nothing(folder: Path, machine: Machine) -> None:
    """Nothing is thrown away for it, and nothing is said to have been reused."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        await home.say(ANNA, SAID, cached_tokens=None)

        assert (1, 0, 0) == (home.files, home.counts.unused, home.counts.reused_tokens)


async def test_damage_on_the_disk_costs_the_computing(folder: Path, machine: Machine) -> None:
    """A file that is not what was written never reaches the worker."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        (file,) = home.kept.iterdir()
        file.write_bytes(SAID.replace(b"anna", b"bert"))

        assert 0 == await home.say(ANNA, SAID)
        assert "restore a 0" not in home.cells.asked
        assert 0 == home.files


async def test_a_swap_out_waits_for_a_save_only_so_long(folder: Path, machine: Machine) -> None:
    """A worker that does not answer is ended all the same, and what it has written of it is believed by nobody."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        home.cells.deaf.add("save")
        began_s = asyncio.get_running_loop().time()
        await home.swap()

        assert asyncio.get_running_loop().time() - began_s < LEAVING_S + 2.0
        assert (0, []) == (home.files, home.litter)
        assert 0 == await home.say(ANNA, SAID)


async def test_a_save_that_fails_is_not_tried_again_at_once(folder: Path, machine: Machine) -> None:
    """Not before the conversation has grown; it leaves nothing behind."""
    async with house(folder, machine) as home:
        home.cells.broken.add("save")
        await home.say(ANNA, SAID)
        await asyncio.sleep(IDLE_S * 10)

        assert (1, 1, 0, []) == (len(home.cells.asked), home.counts.failures, home.files, home.litter)


async def test_a_caller_that_leaves_while_its_slot_is_prepared_loses_nobody_a_turn(folder: Path, machine: Machine) -> None:
    """The next one waits until the slot is what it is said to be."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        home.cells.deaf.add("restore")
        leaving = home.rig.ask("a", talk=ANNA)
        await reaches("the restore has begun", lambda: "restore a 0" in home.cells.asked)
        home.rig.release(leaving, outcome="cancelled")
        home.cells.deaf.clear()

        assert 0 == await home.say(BERT, SAID)
        assert home.rig.ear.answer(leaving) is None


async def test_a_worker_that_dies_while_a_slot_is_prepared_costs_its_caller_an_error(folder: Path, machine: Machine) -> None:
    """It has not heard of the grant, so it hears of a refusal."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        home.cells.deaf.add("restore")
        lease = home.rig.ask("a", talk=ANNA)
        await reaches("the restore has begun", lambda: "restore a 0" in home.cells.asked)
        machine.crashed(OWNER, ModelName("a"))

        assert isinstance(await home.rig.answered(lease), Refused)
        home.cells.deaf.clear()
        await home.say(BERT, SAID)


async def test_after_a_restart_a_conversation_comes_back_from_the_disk(folder: Path, machine: Machine) -> None:
    """What the worker still holds could be anybody's, so it is replaced, or erased."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await asyncio.sleep(IDLE_S * 2)
    async with house(folder, machine) as home:
        assert len(SAID) == await home.say(ANNA, SAID)
    async with house(folder, machine) as home:
        assert 0 == await home.say(BERT, SAID)
        assert "erase a 0" == home.cells.asked[-1]


async def test_a_lease_from_before_a_restart_brings_its_conversation_with_it(folder: Path, machine: Machine) -> None:
    """It was computed in its slot, and is saved from there."""
    async with house(folder, machine) as home:
        lease, granted = await home.granted(ANNA)
        home.cells.compute("a", 0, SAID)
    async with house(folder, machine) as home:
        home.rig.asked = 1  # whose id the old one has
        home.rig.pool.renew(Renew(id=lease, model="a", run=granted.run, slot=granted.slot, talk=ANNA), home.rig.ear)
        await home.rig.answered(lease)
        home.rig.release(lease, prompt_tokens=len(SAID))

        assert len(SAID) == await home.say(ANNA, SAID)
        await home.swap()
        assert 1 == home.files


async def test_a_stopped_answer_is_saved_as_far_as_it_was_computed(folder: Path, machine: Machine) -> None:
    """The engine knows how far that was, and the next restore is measured by it."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID, outcome="cancelled")
        home.cells.compute("a", 0, SAID[:300])
        await home.swap()

        assert 300 == await home.say(ANNA, SAID)
        assert 300 == home.counts.restored_tokens


async def test_a_conversation_is_forgotten_in_memory_and_on_the_disk(folder: Path, machine: Machine) -> None:
    """By its name or by the id in the list; another owner's of the same name stays."""
    async with house(folder, machine, parallel=2) as home:
        talks = home.rig.pool.talks
        await home.say(ANNA, SAID)
        await home.say(BERT, SAID)
        await asyncio.sleep(IDLE_S * 2)
        assert 2 == home.files
        (listed,) = talks.of_owner("bert")

        assert (1, 1) == await talks.forget(owner="anna", name="a", talk="nonsense")
        assert ["save a 0", "save a 1", "erase a 0"] == home.cells.asked
        assert (0, 0) == await talks.forget(owner="anna", name="a", talk=listed.talk)
        assert (1, 1) == await talks.forget(owner="bert", name="nonsense", talk=listed.talk)
        assert {} == home.cells.contents
        assert 0 == home.files


async def test_a_conversation_that_is_forgotten_in_use_is_erased_after_it(folder: Path, machine: Machine) -> None:
    """It is not written any more, whatever happens to its worker."""
    async with house(folder, machine) as home:
        lease, _ = await home.granted(ANNA)
        home.cells.compute("a", 0, SAID)

        assert (0, 1) == await home.rig.pool.talks.forget(owner="anna", name="a")
        home.rig.release(lease, prompt_tokens=len(SAID))
        await reaches("it is erased", lambda: home.cells.asked == ["erase a 0"])
        await home.swap()
        assert 0 == home.files


async def test_everybodys_are_forgotten(folder: Path, machine: Machine) -> None:
    """Which is what an administrator asks for; an owner without a key is one of them."""
    async with house(folder, machine, parallel=2) as home:
        await home.say(ANNA, SAID)
        await home.say(Talk(name="x", lasting=True), SAID)
        await asyncio.sleep(IDLE_S * 2)

        assert (2, 2) == await home.rig.pool.talks.forget()
        assert (0, {}) == (home.files, home.cells.contents)


async def test_an_owners_are_forgotten_with_its_key(folder: Path, machine: Machine) -> None:
    """All of them, and nobody else's."""
    async with house(folder, machine, parallel=2) as home:
        await home.say(ANNA, SAID)
        await home.say(BERT, SAID)
        await asyncio.sleep(IDLE_S * 2)

        assert (1, 1) == await home.rig.pool.talks.forget(owner="anna")
        assert [("a", 1)] == list(home.cells.contents)


def changed(spec: ModelSpec) -> list[ModelSpec]:
    """Return what else a model might become."""
    return [replace(spec, digest="other"), replace(spec, context_tokens=2048), replace(spec, engine="transformers")]


@pytest.mark.parametrize("which", range(3))
async def test_a_model_that_changes_loses_its_conversations(folder: Path, machine: Machine, which: int) -> None:
    """They were computed with something else, and would be nonsense now."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        pool = home.rig.pool
        assert 1 == home.files

        pool.register(dict(pool.models))
        assert 1 == home.files
        pool.register({"a": changed(model("a", mib=60))[which], "b": pool.models["b"]})  # type: ignore[dict-item, index]
        assert 0 == home.files


async def test_what_a_model_leaves_behind_that_was_changed_is_not_written(folder: Path, machine: Machine) -> None:
    """Its worker ends for it, and what that has computed is good for nothing any more."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        home.rig.pool.register({"b": home.rig.pool.models[ModelName("b")]})  # type: ignore[dict-item]
        await reaches("it has left", lambda: not home.rig.machine.running)

        assert ([], 0) == (home.cells.asked, home.files)


async def test_engines_that_cannot_are_left_alone(folder: Path, machine: Machine) -> None:
    """They get no slot and no fields, and are asked for nothing."""
    async with house(folder, machine, engine="transformers") as home:
        lease, granted = await home.granted(ANNA)
        home.rig.release(lease, prompt_tokens=500)
        await home.swap()

        assert (None, {}, []) == (granted.slot, granted.fields, home.cells.asked)


async def test_several_answers_at_once_are_kept_from_the_others(folder: Path, machine: Machine) -> None:
    """They may be in any slot, so whoever comes beside them has its own erased, and nothing is saved that may be theirs."""
    async with house(folder, machine, parallel=2) as home:
        many, _ = await home.granted(replace_talk(BERT, scatters=True))
        assert 0 == await home.say(ANNA, SAID)
        home.rig.release(many, prompt_tokens=500)
        await asyncio.sleep(IDLE_S * 2)

        assert ["erase a 1"] == home.cells.asked
        assert 0 == home.files


def replace_talk(talk: Talk, **changes: Any) -> Talk:
    """Return a conversation that differs in these."""
    return Talk(**{name: getattr(talk, name) for name in talk.__struct_fields__} | changes)


async def test_what_is_old_goes_without_anybody_asking(folder: Path, machine: Machine) -> None:
    """It is somebody's data, and not kept for longer than was said."""
    async with house(folder, machine, kept=replace(LIMITS, age_s=200.0)) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        assert 1 == home.files
        await asyncio.sleep(280.0)

        assert 0 == home.files


async def test_the_figures_say_what_was_done(folder: Path, machine: Machine) -> None:
    """How many are kept, what they take, and whether it was of use."""
    async with house(folder, machine) as home:
        await home.say(ANNA, SAID)
        await home.swap()
        await home.say(ANNA, SAID)
        told = home.rig.pool.talks.figures()

        assert {"enabled": True, "count": 1, "size_bytes": len(SAID), "budget_bytes": 10_000}.items() <= told.items()
        assert {"saves": 1, "restores": 1, "reused_tokens": len(SAID), "unused": 0, "failures": 0}.items() <= told.items()
