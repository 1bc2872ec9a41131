"""
A driver that fails on purpose: wraps any other one and breaks chosen calls, before or after their effect.

What a caller must survive is the second kind: the engine did what was asked, and the answer was lost.
"""

import asyncio
import enum
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from controller.drivers.base import Container, Driver, EngineEvent, EngineInfo, Job, Usage
from controller.errors import EngineUnavailableError, WindlassError
from controller.gpu_memory import Pid
from controller.spec import JobSpec, ModelName, WorkerSpec

_T = TypeVar("_T")


class Verb(enum.StrEnum):
    """A call of the driver that can be made to fail."""

    LIST = "list"
    CREATE = "create"
    START = "start"
    KILL = "kill"
    REMOVE = "remove"
    USAGE = "usage"
    PIDS = "pids"
    LOGS = "logs"
    JOBS = "jobs"
    BEGIN_JOB = "begin_job"
    END_JOB = "end_job"
    JOB_LOGS = "job_logs"
    HAS_IMAGE = "has_image"
    INFO = "info"
    EVENTS = "events"


JOB_VERBS: Final = frozenset({Verb.JOBS, Verb.BEGIN_JOB, Verb.END_JOB, Verb.JOB_LOGS})
"""The calls about builds; who only serves models never makes them."""


class When(enum.Enum):
    """Where in a call the fault strikes."""

    BEFORE = "before"
    """Nothing has happened."""
    AFTER = "after"
    """The effect is there; only the answer is lost. For `events`: after the first event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    What goes wrong, and in which calls.

    Attributes:
        verb: the call that suffers.
        nth: the first call that does, counted from 1 when the fault is armed.
        times: how many calls in a row suffer from there on.
        when: before or after the effect.
        delay_s: how long the call takes longer.
        error: what is raised; `None` only delays.

    """

    verb: Verb
    nth: int = 1
    times: int = 1
    when: When = When.BEFORE
    delay_s: float = 0.0
    error: Callable[[], WindlassError] | None = lambda: EngineUnavailableError("the engine does not answer: a fault on purpose")


ALL_FAULTS: Final = tuple(Fault(verb=verb, when=when) for verb in Verb for when in When)
"""Every verb, failing once before and once after its effect."""


class FaultyDriver:
    """
    The driver *inner*, with faults.

    Attributes:
        calls: how often each verb was called, faults included.

    """

    def __init__(self, inner: Driver, *faults: Fault) -> None:
        """Wrap *inner* and arm *faults*."""
        self._inner = inner
        self._armed: list[tuple[Fault, int]] = []
        self.calls: Counter[Verb] = Counter()
        for fault in faults:
            self.arm(fault)

    def arm(self, fault: Fault) -> None:
        """Add a fault; its calls are counted from now."""
        self._armed.append((fault, self.calls[fault.verb]))

    def disarm(self) -> None:
        """Let everything work from now on."""
        self._armed.clear()

    async def list(self) -> Sequence[Container]:
        """Return every container of this owner, running or not."""
        return await self._call(Verb.LIST, self._inner.list)

    async def create(self, spec: WorkerSpec) -> None:
        """Make the container and start nothing."""
        await self._call(Verb.CREATE, lambda: self._inner.create(spec))

    async def start(self, model: ModelName) -> None:
        """Start the container that was made before."""
        await self._call(Verb.START, lambda: self._inner.start(model))

    async def kill(self, model: ModelName) -> None:
        """End it at once."""
        await self._call(Verb.KILL, lambda: self._inner.kill(model))

    async def remove(self, model: ModelName) -> None:
        """Delete the container, killing it first if it runs."""
        await self._call(Verb.REMOVE, lambda: self._inner.remove(model))

    async def usage(self, model: ModelName) -> Usage:
        """Read the memory of a running container."""
        return await self._call(Verb.USAGE, lambda: self._inner.usage(model))

    async def pids(self, model: ModelName) -> frozenset[Pid]:
        """Return the processes of a running container."""
        return await self._call(Verb.PIDS, lambda: self._inner.pids(model))

    async def logs(self, model: ModelName, *, tail: int) -> str:
        """Return the last *tail* lines the worker wrote."""
        return await self._call(Verb.LOGS, lambda: self._inner.logs(model, tail=tail))

    async def jobs(self) -> Sequence[Job]:
        """Return every job of this owner, running or not."""
        return await self._call(Verb.JOBS, self._inner.jobs)

    async def begin_job(self, spec: JobSpec) -> None:
        """Make the container of a step and start it, unless it has run."""
        await self._call(Verb.BEGIN_JOB, lambda: self._inner.begin_job(spec))

    async def end_job(self, build: str) -> None:
        """Delete the container of a build, killing it first if it runs."""
        await self._call(Verb.END_JOB, lambda: self._inner.end_job(build))

    async def job_logs(self, build: str, *, tail: int) -> str:
        """Return the last *tail* lines the step wrote."""
        return await self._call(Verb.JOB_LOGS, lambda: self._inner.job_logs(build, tail=tail))

    async def has_image(self, tag: str) -> bool:
        """Say whether the engine has an image of this tag."""
        return await self._call(Verb.HAS_IMAGE, lambda: self._inner.has_image(tag))

    async def info(self) -> EngineInfo:
        """Ask the engine what it is and what it can enforce."""
        return await self._call(Verb.INFO, self._inner.info)

    def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens to our containers, until a fault ends it."""
        fault = self._next(Verb.EVENTS)
        # The inner stream is opened here and not when it is first read, since it promises what happens from the call on.
        return self._follow(self._inner.events(), fault)

    async def close(self) -> None:
        """Close the inner driver; this never fails."""
        await self._inner.close()

    async def _follow(self, source: AsyncIterator[EngineEvent], fault: Fault | None) -> AsyncIterator[EngineEvent]:
        if fault and fault.when is When.BEFORE:
            await _strike(fault)
        async for event in source:
            yield event
            if fault and fault.when is When.AFTER:
                await _strike(fault)

    async def _call(self, verb: Verb, work: Callable[[], Awaitable[_T]]) -> _T:
        fault = self._next(verb)
        if fault and fault.when is When.BEFORE:
            await _strike(fault)
        result = await work()
        if fault and fault.when is When.AFTER:
            await _strike(fault)
        return result

    def _next(self, verb: Verb) -> Fault | None:
        """Count this call and return the fault that is due."""
        self.calls[verb] += 1
        return next((fault for fault, since in self._armed if _due(fault, verb, self.calls[verb] - since)), None)


def _due(fault: Fault, verb: Verb, nth: int) -> bool:
    return fault.verb is verb and fault.nth <= nth < fault.nth + fault.times


async def _strike(fault: Fault) -> None:
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.error is not None:
        raise fault.error()
