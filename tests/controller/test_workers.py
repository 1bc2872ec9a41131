"""What workers, engine and catalog do behind the pool's back, and what it makes of it."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from controller.drivers.faulty import Fault, Verb
from controller.drivers.memory import MemoryDriver
from controller.errors import Reason, RefusedError
from controller.shortlist import MOST
from controller.spec import ApiPath, ModelName
from controller.state import ExitCause
from controller.units import MIB
from controller.wire import Ask, Granted, Refused
from tests.controller.rig import OWNER, Machine, Manner, Rig, model, reaches, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

A, B = ModelName("a"), ModelName("b")


async def test_a_worker_that_never_answers_is_ended_and_reported(folder: Path, machine: Machine) -> None:
    """Loading for ever is a failure like a crash: after the last attempt its caller hears of it, and nothing runs."""
    machine.manners["a"] = Manner.LOADING
    async with running(folder, [model("a")], machine=machine, knobs={"max_failures": 2}) as rig:
        answer = await rig.answered(rig.ask("a"))
        await rig.converges()

        assert isinstance(answer, Refused)
        assert Reason.WORKER_FAILED == answer.reason
        assert "never_ready" in answer.message
        assert ["a", "a"] == machine.starts
        assert not machine.running
        assert rig.pool.scheduler.record(A).last_exit.cause is ExitCause.NEVER_READY  # type: ignore[union-attr]


@pytest.mark.parametrize("manner", [Manner.DEAF, Manner.ENDLESS])
async def test_a_worker_that_stops_answering_is_ended(folder: Path, machine: Machine, manner: Manner) -> None:
    """Silence, and noise without an end, are found by asking; who used it hears why, and the next one is served by a new run."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.manners["a"] = manner
        revoked = await rig.revoked(lease)
        machine.manners["a"] = Manner.READY
        await rig.serve("a")
        await rig.converges()

        assert ExitCause.UNRESPONSIVE == revoked.cause
        assert "stopped answering" in revoked.message
        assert ["a", "a"] == machine.starts


async def test_a_worker_that_stands_still_at_its_limit_ran_out_of_memory(folder: Path, machine: Machine) -> None:
    """The kernel has killed nobody yet, but there is nothing left to work with: the next run gets more."""
    async with running(folder, [model("a", mib=50)], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.allocated(OWNER, A, 49 * MIB)
        machine.manners["a"] = Manner.DEAF
        revoked = await rig.revoked(lease)
        machine.manners["a"] = Manner.READY
        await rig.serve("a")
        measured = rig.pool.meter.ledger.find(rig.pool.host.ledger_key(model("a", mib=50)))

        assert ExitCause.OUT_OF_MEMORY == revoked.cause
        assert "ran out of memory" in revoked.message
        assert measured is not None
        assert 50 * MIB == measured.out_of_memory_bytes


async def test_a_worker_given_up_is_ended_although_the_kill_is_lost(folder: Path, machine: Machine) -> None:
    """The engine does not answer when the frozen worker is to be killed; it is asked again until the worker is gone."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.manners["a"] = Manner.DEAF
        rig.driver.arm(Fault(verb=Verb.KILL, times=3))
        revoked = await rig.revoked(lease)
        machine.manners["a"] = Manner.READY
        await rig.serve("a")
        await rig.converges()

        assert ExitCause.UNRESPONSIVE == revoked.cause
        assert 4 == rig.driver.calls[Verb.KILL]
        assert ["a", "a"] == machine.starts


async def test_one_missed_answer_is_forgiven(folder: Path, machine: Machine) -> None:
    """A worker that is busy for a moment is not ended for it."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.manners["a"] = Manner.DEAF
        await asyncio.sleep(5.0)
        machine.manners["a"] = Manner.READY
        await asyncio.sleep(15.0)

        assert rig.ear.revoked(lease) is None
        assert ["a"] == machine.starts


async def test_a_crash_loop_rests_and_says_so(folder: Path, machine: Machine) -> None:
    """After the last failure in a row callers are told, newcomers at once, until somebody loads it by hand."""
    machine.fatal = {"a"}
    async with running(folder, [model("a"), model("b")], machine=machine, knobs={"max_failures": 3}) as rig:
        first = await rig.answered(rig.ask("a"))
        second = await rig.answered(rig.ask("a"), patience_s=1.0)
        other = await rig.answered(rig.ask("b"), patience_s=5.0)

        assert isinstance(first, Refused)
        assert "3 times in a row" in first.message
        assert isinstance(second, Refused)
        assert Reason.UNAVAILABLE == second.reason
        assert second.retry_after_s is not None
        assert isinstance(other, Granted)
        assert 3 == machine.starts.count("a")

        machine.fatal = set()
        await rig.pool.load(A)

        assert rig.pool.is_resident(A)


async def test_a_model_removed_while_it_serves_is_drained(folder: Path, machine: Machine) -> None:
    """Who is being answered is answered to the end; who waits is refused; then worker and container go."""
    async with running(folder, [model("a"), model("b")], machine=machine) as rig:
        lease = await rig.granted("a")
        waiting = rig.ask("a")
        rig.pool.register({B: model("b")})
        refused = await rig.answered(waiting)
        await asyncio.sleep(10.0)

        assert isinstance(refused, Refused)
        assert Reason.UNKNOWN_MODEL == refused.reason
        assert rig.ear.revoked(lease) is None
        assert {"a"} == machine.running

        rig.release(lease)
        await reaches("its container has gone", lambda: machine.existing == {"b"})
        await rig.converges()

        assert not machine.running


async def test_a_model_changed_while_it_serves_is_made_anew(folder: Path, machine: Machine) -> None:
    """The old worker ends with its lease, and whoever waited is served by one with the new weights."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        old = rig.pool.workers[A].spec_hash
        rig.pool.register({A: model("a", digest="new")})
        waiting = rig.ask("a")
        await asyncio.sleep(10.0)

        assert rig.ear.answer(waiting) is None

        rig.release(lease)
        answer = await rig.answered(waiting)

        assert isinstance(answer, Granted)
        assert old != rig.pool.workers[A].spec_hash


async def test_an_engine_that_is_away_at_the_start_is_waited_for(folder: Path, machine: Machine) -> None:
    """The pool comes up when the engine does, and adopts what it shows."""
    machine.went_away()
    async with running(folder, [model("a")], machine=machine, wait=False) as rig:
        await asyncio.sleep(30.0)

        assert rig.pool.engine_away is not None

        machine.came_back()
        await rig.pool.adopted()
        await rig.serve("a")

        assert rig.pool.engine_away is None


async def test_an_engine_that_goes_in_the_middle_is_waited_for(folder: Path, machine: Machine) -> None:
    """What runs goes on serving, who needs a load waits, and all is done when the engine is back."""
    async with running(folder, [model("a", mib=60), model("b", mib=60)], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.went_away()
        waiting = rig.ask("b")
        rig.release(lease)
        await asyncio.sleep(60.0)

        assert rig.pool.engine_away is not None
        assert rig.ear.answer(waiting) is None

        machine.came_back()
        answer = await rig.answered(waiting)
        await rig.converges()

        assert isinstance(answer, Granted)
        assert {"b"} == machine.running


async def test_a_crash_while_nobody_listens_is_seen_when_the_events_are_back(folder: Path, machine: Machine) -> None:
    """What happens between two streams of events is found as soon as the second begins, not at the next resync."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        machine.went_away()
        machine.came_back()
        await asyncio.sleep(0.3)
        rig.memory.crash(A)
        began_s = asyncio.get_running_loop().time()
        await rig.revoked(lease)

        assert asyncio.get_running_loop().time() - began_s < 2.0


async def test_an_idle_worker_that_is_killed_comes_back(folder: Path, machine: Machine) -> None:
    """Nobody asks for it, and it is in memory again after its pause, killed or removed."""
    async with running(folder, [model("a")], machine=machine) as rig:
        await rig.serve("a")
        rig.memory.crash(A, cause=ExitCause.KILLED)
        await reaches("it is started again", lambda: len(machine.starts) == 2)
        await rig.converges()

        assert {"a"} == machine.running


async def test_a_container_started_by_hand_is_ended(folder: Path, machine: Machine) -> None:
    """What nobody wants does not hold memory for long."""
    async with running(folder, [model("a"), model("b")], machine=machine) as rig:
        await rig.serve("a")
        await reaches("b's container is there", lambda: "b" in machine.existing)
        await rig.memory.start(B)
        await rig.converges()

        assert {"a"} == machine.running


async def test_containers_of_another_owner_are_left_alone(folder: Path, machine: Machine) -> None:
    """Two installations on one engine do not see each other."""
    async with running(folder, [model("a")], machine=machine) as rig:
        await rig.serve("a")
        other = MemoryDriver("other", engine=machine)
        await other.create(rig.pool._specs[A])
        await rig.pool.unload(A, force=False)
        await rig.converges()

        assert 1 == len(await other.list())


async def test_an_unload_by_force_revokes_and_says_so(folder: Path, machine: Machine) -> None:
    """Who is cut off hears that a person did it, and the memory is back when the call returns."""
    async with running(folder, [model("a")], machine=machine) as rig:
        lease = await rig.granted("a")
        await rig.pool.unload(A, force=True)
        revoked = await rig.revoked(lease)

        assert "unloaded" == revoked.cause
        assert not machine.running
        assert 0 == rig.pool.held_bytes(A)


async def test_a_request_weighs_few_of_many_models(folder: Path, machine: Machine) -> None:
    """However many are registered: a named model is weighed alone, a free choice is among a few, a wrong name costs none."""
    many = [model(f"m{number}") for number in range(2_000)]
    async with running(folder, many, machine=machine) as rig:
        await rig.serve("m7")
        path = ApiPath.CHAT.value

        assert ["m9"] == [*rig.pool._eligible(Ask(mode="manual", model="m9", api_path=path))]
        assert ["m9", "m8"] == [*rig.pool._eligible(Ask(mode="hybrid", model="m9", fallback=("m8", "x"), api_path=path))]
        assert MOST + 2 >= len(rig.pool._eligible(Ask(mode="auto", api_path=path)))
        assert "m7" in rig.pool._eligible(Ask(mode="auto", api_path=path))

        with pytest.raises(RefusedError, match="m19999"):
            rig.pool._eligible(Ask(mode="manual", model="m19999", api_path=path))


@pytest.mark.parametrize("seed", range(6))
async def test_the_budget_holds_under_hostile_load(folder: Path, machine: Machine, seed: int) -> None:
    """Whatever callers, workers, people and the engine do: never too much memory, and everybody is served."""
    chance = random.Random(seed)  # noqa: S311 -- a test's dice
    sizes = {"a": 30, "b": 40, "c": 50, "d": 60, "e": 90}
    models = {ModelName(name): model(name, mib=mib, load_s=0.5) for name, mib in sizes.items()}
    machine.load_s = {name: chance.uniform(0.0, 3.0) for name in sizes}
    async with running(folder, models.values(), machine=machine, knobs={"quantum_s": 2.0, "max_failures": 50}) as rig:
        open_: set[str] = set()

        def served() -> bool:
            """Let some of those go that have been granted, and say whether nobody is left."""
            for lease in sorted(open_):
                answer = rig.ear.answer(lease)
                assert not isinstance(answer, Refused), answer
                if answer is not None and chance.random() < 0.5:
                    rig.release(lease)
                    open_.discard(lease)
            return not open_

        for _ in range(60):
            open_.add(rig.ask(chance.choice([*sizes]), priority=chance.choice(["interactive", "batch"])))
            _trouble(rig, machine, chance)
            await asyncio.sleep(chance.expovariate(2.0))
            served()
        machine.came_back()
        await reaches("everybody is served", served, step_s=0.5)
        await rig.converges()

        assert not rig.pool.scheduler.leases
        assert not rig.pool._callers


def _trouble(rig: Rig, machine: Machine, chance: random.Random) -> None:
    """Let one thing go wrong now and then."""
    victim = ModelName(chance.choice("abcde"))
    match chance.randrange(16):
        case 0:
            with contextlib.suppress(Exception):
                rig.memory.crash(victim)
        case 1:
            rig.memory.vanish(victim)
        case 2:
            machine.went_away()
        case 3 | 4:
            machine.came_back()
        case 5:
            with contextlib.suppress(Exception):
                rig.memory.allocate(victim, 2**40)
        case 6:
            rig.pool.register(
                {
                    name: model(name, mib=spec.weights_bytes >> 20, digest=f"d{chance.random()}") if name == victim else spec
                    for name, spec in rig.pool.models.items()
                }
            )
