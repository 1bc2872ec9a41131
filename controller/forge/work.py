"""
One build, from its first step to the file with a name.

Each step is a container of the image that has the tool. The engine is asked again and again how it is, since that is how its
progress is seen anyway; an engine that does not answer for a while ends nothing.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import structlog

from controller.complaints import gpu_memory_complaint
from controller.config import BuildSettings
from controller.device import NO_GPU, Device
from controller.drivers.base import Driver, Job
from controller.engines.base import SOURCE_MOUNT
from controller.engines.builds import OUT_MOUNT, BuildStep
from controller.errors import EngineError, EngineUnavailableError, WindlassError
from controller.forge.tickets import State, Ticket
from controller.probes.host import read_disk
from controller.spec import JobSpec, Mount
from controller.state import Exit, ExitCause
from controller.store.engine_files import EngineFiles

log: Final = structlog.get_logger()

POLL_S: Final = 0.5
"""How often a step is looked after."""
AWAY_PAUSE_S: Final = 1.0
END_TRIES: Final = 3
TAIL_LINES: Final = 20
FULL_SHARE: Final = 0.5
"""With less than this share of `keep_free` left, a build is stopped before the disk is full."""
_NO_SPACE: Final = ("no space left", "errno 28", "disk quota", "enospc", "disk full")

_T = TypeVar("_T")


class StepError(WindlassError):
    """
    A step of a build failed.

    Attributes:
        out_of_memory: the kernel ended it at its limit, or it got no memory of the GPU.

    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        """Keep why beside the text."""
        super().__init__(message)
        self.out_of_memory = out_of_memory


class DiskFullError(WindlassError):
    """A build ran out of disk: it begins again when there is room."""


class UnwantedError(WindlassError):
    """Nobody wants a build any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """
    What a build is done with.

    Attributes:
        driver: the container engine.
        files: where the result goes.
        settings: its limits.
        images: the image of each engine, by tag.
        slow: threads for what takes long.
        clock: the core's clock.
        device: the box, for the steps that need its GPU.

    """

    driver: Driver
    files: EngineFiles
    settings: BuildSettings
    images: Callable[[str], str]
    slow: Executor
    clock: Callable[[], float]
    device: Device = NO_GPU

    def memory_bytes(self, ticket: Ticket) -> int:
        """Return what the largest step of a build may take."""
        return max(self.step_bytes(ticket, step) for step in ticket.order.recipe.steps)

    def needs_card(self, ticket: Ticket) -> bool:
        """Say whether a build needs a card of the box, with memory of its own."""
        return any(step.gpu for step in ticket.order.recipe.steps) and self.device.has_gpu and not self.device.unified

    def step_bytes(self, ticket: Ticket, step: BuildStep) -> int:
        """Return what one step may take."""
        wanted_bytes = int(step.memory_bytes * ticket.growth)
        return min(wanted_bytes, self.settings.memory) if self.settings.memory else wanted_bytes

    async def build(self, ticket: Ticket) -> None:
        """
        Do all steps that are left, and keep what they have made.

        Raises:
            StepError: one failed.
            DiskFullError: the disk is full.
            UnwantedError: nobody wants it any more.
            StoreError: what was made could not be kept.

        """
        order, began_s = ticket.order, ticket.since_s
        out = self.files.out(order.fingerprint) if ticket.adopted else None
        if out is None:
            ticket.step = 0
            await self.end(order.fingerprint)
            out = await asyncio.to_thread(self.files.begin, order.fingerprint)
        for number, step in enumerate(order.recipe.steps[ticket.step :], start=ticket.step):
            ticket.step, ticket.state = number, State.BUILDING
            log.info("build.step", model=order.model, step=step.title, fingerprint=order.fingerprint)
            await self._do(ticket, number, step, out)
        ticket.state = State.FINISHING
        await self.run_slowly(
            lambda: self.files.commit(order.key, order.recipe.output, model=order.model, seconds=self.clock() - began_s)
        )

    async def clear(self, ticket: Ticket) -> None:
        """Take away the container of a build and what it has written; what resists is taken away before the next try."""
        fingerprint = ticket.order.fingerprint
        with contextlib.suppress(StepError):
            await self.end(fingerprint)
        await asyncio.to_thread(self.files.abandon, fingerprint)

    async def end(self, fingerprint: str) -> None:
        """
        Take away the container of a build.

        Raises:
            StepError: the engine refuses, several times.

        """
        for tries_left in reversed(range(END_TRIES)):
            try:
                await self.engine(lambda: self.driver.end_job(fingerprint))
            except EngineError as exc:
                log.warning("build.not_ended", fingerprint=fingerprint, error=str(exc))
                if not tries_left:
                    raise StepError(f"the container of a step could not be removed: {exc}") from exc
                await asyncio.sleep(AWAY_PAUSE_S)
            else:
                return

    async def engine(self, call: Callable[[], Awaitable[_T]], ticket: Ticket | None = None) -> _T:
        """Ask the container engine, again and again while it is away."""
        while True:
            try:
                return await call()
            except EngineUnavailableError as exc:
                log.info("build.engine_away", error=str(exc))
                check_wanted(ticket)
                await asyncio.sleep(AWAY_PAUSE_S)

    async def jobs(self) -> Sequence[Job]:
        """Return what runs or has run, as long as it takes until the engine says so."""
        while True:
            try:
                return await self.engine(self.driver.jobs)
            except EngineError as exc:
                log.warning("build.jobs_not_listed", error=str(exc))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def run_slowly(self, work: Callable[[], _T]) -> _T:
        """Run what takes long in a thread that goes last; it is not left half done when the controller stops."""
        return await asyncio.get_running_loop().run_in_executor(self.slow, work)

    def job(self, ticket: Ticket, number: int, step: BuildStep, out: PurePosixPath) -> JobSpec:
        """
        Describe the container of a step.

        Raises:
            StepError: it needs a GPU, and there is none.

        """
        if step.gpu and not self.device.has_gpu:
            raise StepError(f"{step.title}: it needs a GPU, and this box has none that a container can use; see `windlass check`")
        return JobSpec(
            build=ticket.order.fingerprint,
            step=number,
            image=self.images(step.image),
            argv=step.argv,
            mounts=(
                Mount(source=ticket.order.source, target=SOURCE_MOUNT, read_only=True),
                Mount(source=out, target=OUT_MOUNT, read_only=False),
                *(Mount(source=path, target=path, read_only=True) for path in step.host_files),
            ),
            memory_bytes=self.step_bytes(ticket, step),
            pids_limit=step.pids_limit,
            cpus=self.settings.cpus,
            env=step.env,
            cards=ticket.cards,
            devices=self.device.requests(tuple(part.card for part in ticket.cards)) if step.gpu else (),
            groups=self.device.gpu_groups if step.gpu else (),
        )

    async def _do(self, ticket: Ticket, number: int, step: BuildStep, out: Path) -> None:
        spec = self.job(ticket, number, step, PurePosixPath(out))
        try:
            if not ticket.adopted:
                await self.engine(lambda: self.driver.begin_job(spec), ticket)
            ticket.adopted = False
            ended = await self._ended(ticket, spec)
        except EngineError as exc:
            raise StepError(f"{step.title}: {exc}") from exc
        await self._read_log(ticket)
        await self.end(spec.build)
        if ended.code:
            raise self._why_failed(ticket, step, ended)

    async def _ended(self, ticket: Ticket, spec: JobSpec) -> Exit:
        """Look after a step until it has ended."""
        while True:
            job = await self.engine(lambda: self._job(spec.build), ticket)
            if job is None:
                raise StepError(f"the container of step {spec.step + 1} was removed by somebody else")
            if job.exit is not None:
                return job.exit
            if not job.running:  # it was made, and its start was lost
                await self.engine(lambda: self.driver.begin_job(spec), ticket)
            await self._read_log(ticket)
            await self._look_at_disk(ticket)
            check_wanted(ticket)
            await asyncio.sleep(POLL_S)

    async def _job(self, build: str) -> Job | None:
        return next((job for job in await self.driver.jobs() if job.build == build), None)

    async def _look_at_disk(self, ticket: Ticket) -> None:
        ticket.done_bytes = max(ticket.done_bytes, await asyncio.to_thread(self.files.building_bytes, ticket.order.fingerprint))
        if await asyncio.to_thread(self.is_full):
            raise DiskFullError("the disk was about to be full, and the build was stopped")

    async def _read_log(self, ticket: Ticket) -> None:
        try:
            text = await self.driver.job_logs(ticket.order.fingerprint, tail=TAIL_LINES)
        except EngineError:
            return  # it is for people, and the next look brings it
        ticket.log = tuple(line[:500] for line in text.replace("\r", "\n").splitlines() if line.strip())[-TAIL_LINES:]

    def is_full(self) -> bool:
        """Say whether so little of the disk is left that a build must stop."""
        return read_disk(self.files.folder).free_bytes < FULL_SHARE * self.settings.keep_free

    def _why_failed(self, ticket: Ticket, step: BuildStep, ended: Exit) -> WindlassError:
        said = " ".join(ticket.log).lower()
        if any(words in said for words in _NO_SPACE) or self.is_full():
            return DiskFullError(f"{step.title}: the disk was full")
        if ended.cause is ExitCause.OUT_OF_MEMORY:
            return StepError(f"{step.title}: it needs more memory than its limit", out_of_memory=True)
        if complaint := gpu_memory_complaint("\n".join(ticket.log)):
            return StepError(f"{step.title}: the GPU had no memory for it: {complaint}", out_of_memory=True)
        last = ticket.log[-1] if ticket.log else "it wrote nothing"
        return StepError(f"{step.title}: {told_reason(last) or f'ended with code {ended.code}: {last}'}")


def told_reason(line: str) -> str:
    """Return the reason that a step gave in its last line, if it gave one as the builder does; else nothing."""
    try:
        told = json.loads(line)
    except ValueError:
        return ""
    reason = told.get("reason") if isinstance(told, dict) else None
    return reason if isinstance(reason, str) else ""


def check_wanted(ticket: Ticket | None) -> None:
    """Raise if a build is to be stopped."""
    if ticket is not None and (ticket.stop or not ticket.wanted):
        raise UnwantedError("nobody wants it any more")
