"""The driver that fails on purpose does so in the calls it was told to, and in no others."""

import asyncio

import pytest

from controller.drivers.faulty import ALL_FAULTS, Fault, FaultyDriver, Verb, When
from controller.drivers.memory import MemoryDriver
from controller.errors import EngineError, EngineUnavailableError
from controller.spec import ModelName


async def outcomes(driver: FaultyDriver, calls: int) -> list[bool]:
    """List so many times and say which calls worked."""
    worked = []
    for _ in range(calls):
        try:
            await driver.list()
            worked.append(True)
        except EngineUnavailableError:
            worked.append(False)
    return worked


async def test_the_nth_call_fails_and_so_many_after_it() -> None:
    """Calls are counted from 1, and a fault ends after its number of times."""
    driver = FaultyDriver(MemoryDriver(), Fault(verb=Verb.LIST, nth=2, times=2))

    assert await outcomes(driver, 5) == [True, False, False, True, True]
    assert driver.calls[Verb.LIST] == 5


async def test_a_fault_armed_later_counts_from_then() -> None:
    """What was called before does not count."""
    driver = FaultyDriver(MemoryDriver())
    before = await outcomes(driver, 3)

    driver.arm(Fault(verb=Verb.LIST))

    assert (before, await outcomes(driver, 2)) == ([True] * 3, [False, True])


async def test_disarmed_faults_do_nothing() -> None:
    """After disarming everything works."""
    driver = FaultyDriver(MemoryDriver(), Fault(verb=Verb.LIST, times=100))

    driver.disarm()

    assert await outcomes(driver, 2) == [True, True]


async def test_a_fault_may_raise_something_else() -> None:
    """The error is the caller's choice."""
    driver = FaultyDriver(MemoryDriver(), Fault(verb=Verb.INFO, error=lambda: EngineError("disk full")))

    with pytest.raises(EngineError, match="disk full"):
        await driver.info()


@pytest.mark.looptime
async def test_a_fault_may_only_take_time() -> None:
    """A delay without an error makes a call slow and lets it succeed."""
    driver = FaultyDriver(MemoryDriver(), Fault(verb=Verb.LIST, delay_s=60.0, error=None))
    began_s = asyncio.get_running_loop().time()

    shown = await driver.list()

    assert not shown
    assert asyncio.get_running_loop().time() - began_s == 60.0


async def test_events_break_before_the_first() -> None:
    """A stream that fails before its effect yields nothing."""
    driver = FaultyDriver(MemoryDriver(), Fault(verb=Verb.EVENTS))

    with pytest.raises(EngineUnavailableError):
        await anext(driver.events())


async def test_events_break_after_the_first() -> None:
    """A stream that fails after its effect yields one event, and a new stream works."""
    inner = MemoryDriver()
    driver = FaultyDriver(inner, Fault(verb=Verb.EVENTS, when=When.AFTER))
    broken, whole = driver.events(), driver.events()
    for queue in (broken, whole):
        inner.engine.tell("windlass", ModelName("tiny"), "start")
        assert (await anext(queue)).action == "start"

    with pytest.raises(EngineUnavailableError):
        await anext(broken)

    assert (await anext(whole)).action == "start"


def test_all_faults_are_every_verb_before_and_after() -> None:
    """The list that fault injection goes through leaves nothing out."""
    assert {(fault.verb, fault.when) for fault in ALL_FAULTS} == {(verb, when) for verb in Verb for when in When}
