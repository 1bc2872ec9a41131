"""Every verb of the driver fails, before and after its effect: what is wanted comes about all the same."""

import asyncio
import itertools
from pathlib import Path

import pytest

from controller.drivers.faulty import JOB_VERBS, Fault, Verb, When
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError, WindlassError
from controller.guard import LONGEST_PAUSE_S
from controller.wire import Granted
from tests.controller.rig import CHANGES, Machine, model, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

ERRORS: dict[str, type[WindlassError] | None] = {
    "unavailable": EngineUnavailableError,
    "refused": EngineError,
    "missing": ContainerMissingError,
    "slow": None,
}
ABOUT_ONE = (*CHANGES, Verb.USAGE, Verb.LOGS)
"""The verbs that name a container, which may be missing."""


def fault(verb: Verb, when: When, error: str, *, nth: int = 1, times: int = 1) -> Fault:
    """Make a fault from the words of a test's name."""
    kind = ERRORS[error]
    raised = None if kind is None else lambda: kind("a fault on purpose")
    return Fault(verb=verb, when=when, error=raised, nth=nth, times=times, delay_s=0.0 if kind else 7.0)


CASES = [
    pytest.param(verb, when, error, id=f"{verb}-{when.value}-{error}")
    for verb, when, error in itertools.product(Verb, When, ERRORS)
    if verb not in JOB_VERBS and (error != "missing" or verb in ABOUT_ONE)
]


@pytest.mark.parametrize(("verb", "when", "error"), CASES)
async def test_callers_are_served_although_a_call_fails(
    folder: Path, machine: Machine, verb: Verb, when: When, error: str
) -> None:
    """Models that do not fit together are asked for in turn, and one of them changes, while one verb fails once."""
    models = [model("a"), model("b"), model("c")]
    async with running(folder, models, machine=machine, faults=[fault(verb, when, error)]) as rig:
        for name in ("a", "b", "c", "a"):
            await rig.serve(name)
        models[0] = model("a", digest="new weights")
        rig.pool.register({spec.name: spec for spec in models})
        await rig.serve("a")
        await asyncio.sleep(2 * LONGEST_PAUSE_S)
        await rig.converges()

        # those are for people, for GPUs, or for a choice between engines
        assert rig.driver.calls[verb] or verb in (Verb.LOGS, Verb.HAS_IMAGE, Verb.INFO, Verb.PIDS)
        assert "a" in machine.running
        assert rig.pool.engine_away is None


@pytest.mark.parametrize(("verb", "when", "error"), [c for c in CASES if c.values[0] in (*CHANGES, Verb.LIST)])
async def test_callers_are_served_although_a_call_fails_again_and_again(
    folder: Path, machine: Machine, verb: Verb, when: When, error: str
) -> None:
    """The same with three calls in a row that fail, in the middle of a swap."""
    models = [model("a", mib=60), model("b", mib=60)]
    async with running(folder, models, machine=machine) as rig:
        await rig.serve("a")
        rig.driver.arm(fault(verb, when, error, times=3))
        answer = await rig.answered(rig.ask("b"))
        await rig.converges()

        assert isinstance(answer, Granted)
        assert {"b"} == machine.running
