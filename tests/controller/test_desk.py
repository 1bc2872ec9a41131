"""What operators may ask, verb by verb, with good and with bad arguments; and how well the desk says all of it is."""

# ruff: noqa: ANN401 -- arguments of any type are handed on
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.build_desk import BuildDesk
from controller.config import Settings
from controller.desk import Desk
from controller.device import NO_GPU
from controller.drivers.faulty import Fault, Verb
from controller.errors import Reason, RefusedError
from controller.fallbacks import Fallbacks
from controller.forge.forge import Forge
from controller.probes.system import LocalSystem
from controller.spec import ModelName
from controller.store.catalog import Problem, Scanner
from controller.store.database import open_database
from controller.store.engine_files import EngineFiles
from controller.store.findings import Findings
from controller.store.keys import Keys
from controller.store.setbacks import Setbacks
from controller.tenancy import Tenancy
from controller.yardstick import Yardstick
from tests.controller.rig import Machine, Rig, model, reaches, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

A, B = ModelName("a"), ModelName("b")


def builds(rig: Rig, settings: Settings, files: EngineFiles) -> BuildDesk:
    """Return a desk for builds that nobody has ordered."""
    tenancy = Tenancy(rig.pool)
    forge = Forge(
        driver=rig.driver,
        files=files,
        settings=settings.builds,
        images=str,
        memory=tenancy,
        models=tenancy,
        changed=rig.pool.look_again,
        clock=rig.pool.clock,
    )
    scanner = Scanner(settings, shelf=files)
    fallbacks = Fallbacks(Setbacks(open_database(files.folder / "setbacks.db"), wall=time.time), changed=rig.pool.look_again)
    return BuildDesk(forge=forge, scanner=scanner, models=lambda: rig.pool.models, fallbacks=fallbacks)


@contextlib.asynccontextmanager
async def desk(folder: Path, machine: Machine, **knobs: Any) -> AsyncIterator[tuple[Rig, Desk, list[str]]]:
    """Run a pool with a desk; the list grows when keys change."""
    changed: list[str] = []

    async def keys_changed() -> None:
        changed.append("keys")

    models = [model("a", mib=60), model("b", mib=60), model("huge", mib=200), model("pinned", mib=10, pinned=True)]
    database = open_database(folder / "desk.db")
    settings = Settings.model_validate({"home": str(folder), "run": str(folder / "run")})
    async with running(folder, models, machine=machine, knobs=knobs) as rig:
        yield (
            rig,
            Desk(
                pool=rig.pool,
                settings=settings,
                database=database,
                keys=Keys(database),
                keys_changed=keys_changed,
                builds=builds(rig, settings, EngineFiles(folder / "engines", database)),
                device=NO_GPU,
                yardstick=Yardstick(LocalSystem(), settings.home, Findings(database), wall=time.time),
            ),
            changed,
        )
    database.close()


BAD = [
    ("load", {}, Reason.MALFORMED),
    ("load", {"model": 7}, Reason.MALFORMED),
    ("load", {"model": "aa"}, Reason.UNKNOWN_MODEL),
    ("load", {"model": "a", "wait": "no"}, Reason.MALFORMED),
    ("load", {"model": "huge"}, Reason.NEVER_FITS),
    ("unload", {"model": "nobody"}, Reason.UNKNOWN_MODEL),
    ("unload", {"model": "a", "force": 1}, Reason.MALFORMED),
    ("unload", {"model": "pinned"}, Reason.CONFLICT),
    ("plan", {"model": None}, Reason.MALFORMED),
    ("performance", {"window_s": 0}, Reason.MALFORMED),
    ("performance", {"window_s": "1"}, Reason.MALFORMED),
    ("performance", {"window_s": True}, Reason.MALFORMED),
    ("performance", {"window_s": float("inf")}, Reason.MALFORMED),
    ("performance", {"window_s": float("nan")}, Reason.MALFORMED),
    ("logs", {"model": "a", "tail": -1}, Reason.MALFORMED),
    ("logs", {"model": "a", "tail": 1e300}, Reason.MALFORMED),
    ("logs", {"model": ["a"]}, Reason.MALFORMED),
    ("keys.create", {"scopes": ["root"]}, Reason.MALFORMED),
    ("keys.create", {"scopes": 5}, Reason.MALFORMED),
    ("keys.create", {"rate_limit_per_min": 0}, Reason.MALFORMED),
    ("keys.create", {"rate_limit_per_min": True}, Reason.MALFORMED),
    ("keys.create", {"rate_limit_per_min": 10**30}, Reason.MALFORMED),
    ("keys.revoke", {}, Reason.MALFORMED),
    ("keys.revoke", {"id": "nobodys"}, Reason.MALFORMED),
]


@pytest.mark.parametrize(("verb", "arguments", "reason"), BAD)
async def test_bad_arguments_are_refused(
    folder: Path, machine: Machine, verb: str, arguments: dict[str, Any], reason: Reason
) -> None:
    """Each with what was wanted and what came; nothing happens."""
    async with desk(folder, machine) as (rig, asked, _):
        await reaches("the pinned model is there", lambda: rig.pool.is_resident(ModelName("pinned")))
        with pytest.raises(RefusedError) as caught:
            await asked.verbs[verb](arguments)

        assert reason is caught.value.reason
        assert {"pinned"} == machine.running


async def test_models_are_loaded_and_unloaded(folder: Path, machine: Machine) -> None:
    """A load waits until the model is there, an unload until its memory is back; a plan says before what both would do."""
    machine.load_s["b"] = 4.0
    async with desk(folder, machine) as (rig, asked, _):
        loaded = await asked.load({"model": "a"})
        plan = await asked.plan({"model": "b"})
        again = await asked.plan({"model": "a"})
        begun = await asked.load({"model": "b", "wait": False})
        await reaches("b is there", lambda: rig.pool.is_resident(B))
        unloaded = await asked.unload({"model": "b"})

        assert ("resident", 60 << 20) == (loaded["state"], loaded["bytes"])
        assert ["a"] == [row["model"] for row in plan["evict"]]
        assert ("start", True, False) == (plan["answer"], plan["fits"], plan["resident"])
        assert (True, 0.0) == (again["resident"], again["load_s"])
        assert "loading" == begun["state"]
        assert ("stopped", 60 << 20) == (unloaded["state"], unloaded["bytes"])
        assert {"pinned"} == machine.running


async def test_the_plan_for_a_model_that_can_never_fit_says_so(folder: Path, machine: Machine) -> None:
    """And by how much."""
    async with desk(folder, machine) as (_, asked, _changed):
        plan = await asked.plan({"model": "huge"})

        assert ("refuse", False) == (plan["answer"], plan["fits"])


async def test_a_busy_model_is_unloaded_by_force_alone(folder: Path, machine: Machine) -> None:
    """Otherwise whoever uses it would be cut off by mistake."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.granted("a")
        with pytest.raises(RefusedError, match="a") as caught:
            await asked.unload({"model": "a"})
        await asked.unload({"model": "a", "force": True})

        assert Reason.CONFLICT is caught.value.reason
        assert {"pinned"} == machine.running


async def test_optimize_unloads_what_is_idle(folder: Path, machine: Machine) -> None:
    """What is pinned stays, and the answer says what was done."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.serve("a")
        done = (await asked.optimize({}))["done"]

        assert any("unloaded a" in text for text in done)
        assert {"pinned"} == machine.running


async def test_logs_are_the_workers_last_lines(folder: Path, machine: Machine) -> None:
    """As many as were asked for; a model that never had a container has none."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.serve("a")
        for number in range(5):
            rig.memory.write(A, f"line {number}")
        lines = await asked.logs({"model": "a", "tail": 2})

        assert ["line 3", "line 4"] == lines["lines"]


async def test_keys_are_made_listed_and_revoked(folder: Path, machine: Machine) -> None:
    """The secret is shown once, and gateways are told of every change."""
    async with desk(folder, machine) as (_, asked, changed):
        made = await asked.create_key({"name": "phone", "rate_limit_per_min": 5})
        revoked = await asked.revoke_key({"id": made["id"]})
        listed = (await asked.list_keys({}))["keys"]

        assert made["secret"]
        assert [made["id"]] == [row["id"] for row in listed]
        assert "secret" not in listed[0]
        assert revoked["revoked_at"]
        assert 2 == len(changed)


async def test_status_models_and_performance_tell_what_happens(folder: Path, machine: Machine) -> None:
    """Workers, leases, the queue with promises, states of models, and what was served."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.serve("a")
        await rig.granted("a")
        rig.ask("b", priority="batch")
        await asyncio.sleep(2.5)
        status, models, figures = await asked.status({}), await asked.models({}), await asked.performance({})

        assert 1 == status["leases"]
        assert ["b"] == [row["model"] for row in status["queue"]]
        assert "batch" == status["queue"][0]["priority"]
        assert 70 << 20 == status["memory"]["held_bytes"] == status["memory"]["committed_bytes"]
        assert {"a": "resident", "b": "loading", "huge": "stopped", "pinned": "resident"} == {
            row["name"]: row["state"] for row in models["models"]
        }
        assert 1 == figures["totals"]["requests"]
        assert 2 == figures["totals"]["loads"]


async def health(asked: Desk) -> tuple[str, str]:
    """Return the state, and the reasons as one text."""
    said = await asked.verbs["health"]({})
    return said["state"], "; ".join(said["reasons"])


async def test_all_is_well_until_it_is_not(folder: Path, machine: Machine) -> None:
    """A folder that is not served makes it degraded, and says which."""
    async with desk(folder, machine) as (rig, asked, _):
        await reaches("the pinned model is there", lambda: rig.pool.is_resident(ModelName("pinned")))
        before = await health(asked)
        asked.problems = (Problem(folder="broken", text="has no weights"),)
        after = await health(asked)

        assert ("ok", "") == before
        assert "degraded" == after[0]
        assert "broken" in after[1]


async def test_an_engine_that_is_away_is_a_failure(folder: Path, machine: Machine) -> None:
    """Nobody can be loaded; when it is back, all is well."""
    async with desk(folder, machine) as (_, asked, _changed):
        machine.went_away()
        await asyncio.sleep(2.0)
        away = await health(asked)
        machine.came_back()
        await asyncio.sleep(3.0)
        back = await health(asked)

        assert "failing" == away[0]
        assert "engine does not answer" in away[1]
        assert "ok" == back[0]


async def test_an_action_that_hangs_is_a_failure(folder: Path, machine: Machine) -> None:
    """After two minutes nobody believes in it any more."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.serve("b")
        rig.driver.arm(Fault(verb=Verb.KILL, delay_s=300.0, error=None))
        rig.ask("a", deadline_s=10_000.0)
        await asyncio.sleep(60.0)
        early = await health(asked)
        await asyncio.sleep(100.0)
        late = await health(asked)

        assert "ok" == early[0]
        assert "failing" == late[0]
        assert "stop of b" in late[1]


async def test_a_caller_beyond_its_promise_is_a_failure(folder: Path, machine: Machine) -> None:
    """The bound was published, so breaking it is news."""
    async with desk(folder, machine) as (rig, asked, _):
        await rig.serve("b")
        rig.driver.arm(Fault(verb=Verb.KILL, delay_s=3000.0, error=None))
        rig.ask("a")
        await asyncio.sleep(1000.0)
        state, why = await health(asked)

        assert "failing" == state
        assert "longer than was promised" in why


async def test_a_model_that_rests_is_worth_a_word(folder: Path, machine: Machine) -> None:
    """All others are served, so it is not a failure; its row says how it ended."""
    machine.fatal = {"a"}
    async with desk(folder, machine, max_failures=2) as (rig, asked, _):
        await rig.answered(rig.ask("a"))
        state, why = await health(asked)
        rows = {row["name"]: row for row in (await asked.models({}))["models"]}

        assert "degraded" == state
        assert "a keeps failing" in why
        assert "failed" == rows["a"]["state"]
        assert "crashed" in rows["a"]["reason"]
