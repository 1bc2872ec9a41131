"""
A container engine that is a dictionary: the driver's contract without containers, clocks or threads.

It is for tests and simulations, passes the same contract suite as the Docker driver, and does the same thing every time.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controller.drivers.base import Container, EngineEvent, EngineInfo, Job, Usage
from controller.drivers.gpus import reach
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError
from controller.gpu_memory import GpuReading, Pid
from controller.spec import JobSpec, ModelName, WorkerSpec
from controller.state import NEVER_RAN, Exit, ExitCause, RunId

_CODES: Final = {ExitCause.STOPPED: 0, ExitCause.OUT_OF_MEMORY: 137, ExitCause.KILLED: 137, ExitCause.CRASHED: 1}
_FIRST_PID: Final = 1000
_Queue = asyncio.Queue[EngineEvent | EngineUnavailableError | None]


@dataclass(slots=True, kw_only=True)
class _Box:
    """What the engine keeps of one container."""

    shown: Container
    spec: WorkerSpec
    anon_bytes: int = 0
    file_bytes: int = 0
    refault_bytes: int = 0
    held_bytes: Mapping[int, int] = field(default_factory=dict)
    pid: Pid = 0
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """What the engine keeps of one job."""

    shown: Job
    spec: JobSpec
    lines: list[str] = field(default_factory=list)


class MemoryEngine:
    """
    The world behind the drivers: it outlives them, as a real engine outlives its clients.

    The verbs in the past tense are what happens without being asked for: crashes, somebody's hands, an engine that goes away.

    Args:
        images: the images it has; `None` means any.
        runtimes: the OCI runtimes it knows.
        cdi_folders: where it looks for specifications of devices.
        cards: the memory of each card of the box, by its index.
        told: what it says of itself instead of that it can do everything.

    """

    def __init__(
        self,
        *,
        images: frozenset[str] | None = None,
        runtimes: tuple[str, ...] = ("runc",),
        cdi_folders: tuple[str, ...] = (),
        cards: Mapping[int, int] | None = None,
        told: EngineInfo | None = None,
    ) -> None:
        """Start with no container at all."""
        self.images = images
        self.runtimes = runtimes
        self.cdi_folders = cdi_folders
        self.told = told
        self.cards = cards or {}
        self.others_on_cards: dict[int, int] = {}
        self._boxes: dict[tuple[str, ModelName], _Box] = {}
        self._benches: dict[tuple[str, str], _Bench] = {}
        self._runs = 0
        self._away = False
        self._watchers: list[tuple[str, _Queue]] = []

    def crashed(self, owner: str, model: ModelName, *, cause: ExitCause = ExitCause.CRASHED, code: int | None = None) -> None:
        """End a running worker for *cause*, as the kernel or its own fault would."""
        box = self.box(owner, model)
        if box.shown.running:
            if cause is ExitCause.OUT_OF_MEMORY:
                self.tell(owner, model, "oom")
            self.ended(owner, box, Exit(cause=cause, code=_CODES.get(cause, 1) if code is None else code))

    def vanished(self, owner: str, model: ModelName) -> None:
        """Take a container away, as `docker rm --force` by hand does."""
        box = self._boxes.get((owner, model))
        if box is not None:
            if box.shown.running:
                self.ended(owner, box, Exit(cause=ExitCause.KILLED, code=137))
            del self._boxes[owner, model]
            self.tell(owner, model, "destroy")

    def allocated(self, owner: str, model: ModelName, anon_bytes: int) -> None:
        """Let a running worker hold *anon_bytes* of private memory; beyond its limit the kernel kills it."""
        box = self.box(owner, model)
        if anon_bytes > box.spec.memory_bytes:
            self.crashed(owner, model, cause=ExitCause.OUT_OF_MEMORY)
        else:
            box.anon_bytes = anon_bytes

    def mapped(self, owner: str, model: ModelName, file_bytes: int, *, refault_bytes: int = 0) -> None:
        """Let a running worker have *file_bytes* of files in memory, after it had to read *refault_bytes* of them again."""
        box = self.box(owner, model)
        box.file_bytes = file_bytes
        box.refault_bytes += refault_bytes

    def took_gpu(self, owner: str, model: ModelName, held_bytes: Mapping[int, int]) -> None:
        """
        Let a running worker hold memory of GPUs, by their index.

        What a card does not have it does not give: the worker says so and ends, as an engine on CUDA does.
        """
        box = self.box(owner, model)
        used_bytes = {card: self.used_bytes(card) - box.held_bytes.get(card, 0) for card in self.cards}
        if any(used_bytes[card] + wanted > self.cards[card] for card, wanted in held_bytes.items() if card in self.cards):
            box.lines.append("CUDA error: out of memory")
            self.crashed(owner, model)
        else:
            box.held_bytes = dict(held_bytes)

    def used_bytes(self, card: int) -> int:
        """Return what is taken of a card by everybody."""
        ours = sum(box.held_bytes.get(card, 0) for box in self._boxes.values() if box.shown.running)
        return ours + self.others_on_cards.get(card, 0)

    def read_gpu_memory(self) -> GpuReading:
        """Return what the driver of the GPUs would tell."""
        running = [box for box in self._boxes.values() if box.shown.running]
        return GpuReading(
            held_bytes={box.pid: box.held_bytes for box in running if box.held_bytes},
            used_bytes={card: self.used_bytes(card) for card in self.cards},
        )

    def wrote(self, owner: str, model: ModelName, line: str) -> None:
        """Let a worker write a line of log."""
        self.box(owner, model).lines.append(line)

    def went_away(self) -> None:
        """Answer nobody until `came_back`; containers go on."""
        self._away = True
        for _, queue in self._watchers:
            queue.put_nowait(EngineUnavailableError("watch the engine: it closed the connection; look again when it is back"))
        self._watchers.clear()

    def came_back(self) -> None:
        """Answer again."""
        self._away = False

    def check(self) -> None:
        """Raise while the engine is away."""
        if self._away:
            raise EngineUnavailableError("the engine does not answer; is it running?")

    def box(self, owner: str, model: ModelName) -> _Box:
        """Return what is kept of a container."""
        try:
            return self._boxes[owner, model]
        except KeyError:
            raise ContainerMissingError(
                f"wanted the worker of {model}, no container is labelled so; it has to be made first"
            ) from None

    def boxes(self, owner: str) -> Sequence[_Box]:
        """Return what is kept of all containers of *owner*, in the order of their models."""
        return [box for (whose, _), box in sorted(self._boxes.items()) if whose == owner]

    def make(self, owner: str, spec: WorkerSpec) -> None:
        """Make a container, unless it is there."""
        if (owner, spec.model) in self._boxes:
            return
        if self.images is not None and spec.image not in self.images:
            raise EngineError(f"create {spec.model}: wanted image {spec.image}, the engine has none; run `make images`")
        reach(spec.devices, self.info())
        shown = Container(
            model=spec.model,
            running=False,
            memory_bytes=spec.memory_bytes,
            spec_hash=spec.spec_hash,
            run=NEVER_RAN,
            exit=None,
            cards=spec.cards,
        )
        self._boxes[owner, spec.model] = _Box(shown=shown, spec=spec)
        self.tell(owner, spec.model, "create")

    def bench(self, owner: str, build: str) -> _Bench:
        """Return what is kept of a job."""
        try:
            return self._benches[owner, build]
        except KeyError:
            raise ContainerMissingError(f"wanted the job of build {build}, no container is labelled so") from None

    def benches(self, owner: str) -> Sequence[_Bench]:
        """Return what is kept of all jobs of *owner*, in the order of their builds."""
        return [bench for (whose, _), bench in sorted(self._benches.items()) if whose == owner]

    def begin_job(self, owner: str, spec: JobSpec) -> None:
        """Make and start a job, unless it is there."""
        if (owner, spec.build) in self._benches:
            return
        if self.images is not None and spec.image not in self.images:
            raise EngineError(f"build {spec.build}: wanted image {spec.image}, the engine has none; run `make images`")
        reach(spec.devices, self.info())
        shown = Job(build=spec.build, step=spec.step, running=True, memory_bytes=spec.memory_bytes, exit=None, cards=spec.cards)
        self._benches[owner, spec.build] = _Bench(shown=shown, spec=spec)

    def job_ended(self, owner: str, build: str, *, code: int = 0, cause: ExitCause | None = None) -> None:
        """End a running job, as its own program or the kernel would."""
        bench = self.bench(owner, build)
        how = cause or (ExitCause.CRASHED if code else ExitCause.STOPPED)
        bench.shown = replace(bench.shown, running=False, exit=Exit(cause=how, code=code))

    def drop_job(self, owner: str, build: str) -> None:
        """Take a job away, running or not."""
        self._benches.pop((owner, build), None)

    def begin(self, owner: str, model: ModelName) -> None:
        """Start a container, unless it runs."""
        box = self.box(owner, model)
        if not box.shown.running:
            self._runs += 1
            box.shown = replace(box.shown, running=True, run=RunId(f"run-{self._runs}"), exit=None)
            box.anon_bytes = box.file_bytes = box.refault_bytes = 0
            box.held_bytes, box.pid = {}, _FIRST_PID + self._runs
            self.tell(owner, model, "start")

    def ended(self, owner: str, box: _Box, how: Exit) -> None:
        """Record that a worker runs no more."""
        box.shown = replace(box.shown, running=False, exit=how)
        self.tell(owner, box.shown.model, "die")

    def tell(self, owner: str, model: ModelName, action: str) -> None:
        """Tell everybody who watches this owner."""
        for whose, queue in self._watchers:
            if whose == owner:
                queue.put_nowait(EngineEvent(model=model, action=action))

    def info(self) -> EngineInfo:
        """Say what it is."""
        return self.told or EngineInfo(
            version="memory",
            cgroup_version=2,
            memory_limits=True,
            swap_limits=True,
            runtimes=self.runtimes,
            storage_driver="memory",
            architecture="x86_64",
            cdi_folders=self.cdi_folders,
        )

    def watch(self, owner: str) -> _Queue:
        """Begin to collect what happens to the containers of *owner*."""
        queue: _Queue = asyncio.Queue()
        self._watchers.append((owner, queue))
        return queue

    def unwatch(self, queue: _Queue) -> None:
        """Collect no more for *queue*."""
        self._watchers = [watcher for watcher in self._watchers if watcher[1] is not queue]


class MemoryDriver:
    """
    Workers that are rows in a `MemoryEngine`.

    Two drivers on one engine are two installations, or one controller before and after its restart.
    """

    def __init__(self, owner: str = "windlass", *, engine: MemoryEngine | None = None) -> None:
        """Use *engine*, or one of its own."""
        self.engine = engine or MemoryEngine()
        self._owner = owner
        self._queues: list[_Queue] = []

    def crash(self, model: ModelName, *, cause: ExitCause = ExitCause.CRASHED, code: int | None = None) -> None:
        """End a running worker for *cause*; a test's control, not a verb."""
        self.engine.crashed(self._owner, model, cause=cause, code=code)

    def vanish(self, model: ModelName) -> None:
        """Take a container away behind everybody's back; a test's control, not a verb."""
        self.engine.vanished(self._owner, model)

    def allocate(self, model: ModelName, anon_bytes: int) -> None:
        """Let a worker hold private memory, and die if it is beyond its limit; a test's control, not a verb."""
        self.engine.allocated(self._owner, model, anon_bytes)

    def allocate_on_gpu(self, model: ModelName, held_bytes: Mapping[int, int]) -> None:
        """Let a worker hold memory of GPUs, and end if there is none left; a test's control, not a verb."""
        self.engine.took_gpu(self._owner, model, held_bytes)

    def write(self, model: ModelName, line: str) -> None:
        """Let a worker write a line of log; a test's control, not a verb."""
        self.engine.wrote(self._owner, model, line)

    async def list(self) -> Sequence[Container]:
        """Return every container of this owner, running or not, in the order of their models."""
        self.engine.check()
        return [box.shown for box in self.engine.boxes(self._owner)]

    async def create(self, spec: WorkerSpec) -> None:
        """Make the container and start nothing."""
        self.engine.check()
        self.engine.make(self._owner, spec)

    async def start(self, model: ModelName) -> None:
        """Start the container that was made before."""
        self.engine.check()
        self.engine.begin(self._owner, model)

    async def kill(self, model: ModelName) -> None:
        """End it at once."""
        self.engine.check()
        box = self.engine.box(self._owner, model)
        if box.shown.running:
            self.engine.ended(self._owner, box, Exit(cause=ExitCause.KILLED, code=_CODES[ExitCause.KILLED]))

    async def remove(self, model: ModelName) -> None:
        """Delete the container, killing it first if it runs."""
        self.engine.check()
        self.engine.vanished(self._owner, model)

    async def usage(self, model: ModelName) -> Usage:
        """Read the memory of a running container."""
        self.engine.check()
        box = self.engine.box(self._owner, model)
        if not box.shown.running:
            raise EngineError(f"usage of {model}: wanted its memory, got no figures; it does not run")
        return Usage(
            limit_bytes=box.spec.memory_bytes,
            anon_bytes=box.anon_bytes,
            file_bytes=box.file_bytes,
            refault_bytes=box.refault_bytes,
        )

    async def pids(self, model: ModelName) -> frozenset[Pid]:
        """Return the one process of a running container."""
        self.engine.check()
        box = self.engine.box(self._owner, model)
        if not box.shown.running:
            raise EngineError(f"processes of {model}: wanted them, got none; it does not run")
        return frozenset({box.pid})

    async def logs(self, model: ModelName, *, tail: int) -> str:
        """Return the last *tail* lines the worker wrote."""
        self.engine.check()
        lines = self.engine.box(self._owner, model).lines
        return "".join(f"{line}\n" for line in lines[max(len(lines) - tail, 0) :])

    async def jobs(self) -> Sequence[Job]:
        """Return every job of this owner, running or not, in the order of their builds."""
        self.engine.check()
        return [bench.shown for bench in self.engine.benches(self._owner)]

    async def begin_job(self, spec: JobSpec) -> None:
        """Make the container of a step and start it, unless it has run."""
        self.engine.check()
        self.engine.begin_job(self._owner, spec)

    async def end_job(self, build: str) -> None:
        """Delete the container of a build."""
        self.engine.check()
        self.engine.drop_job(self._owner, build)

    async def job_logs(self, build: str, *, tail: int) -> str:
        """Return the last *tail* lines the step wrote."""
        self.engine.check()
        lines = self.engine.bench(self._owner, build).lines
        return "".join(f"{line}\n" for line in lines[max(len(lines) - tail, 0) :])

    async def has_image(self, tag: str) -> bool:
        """Say whether the engine has an image of this tag."""
        self.engine.check()
        return self.engine.images is None or tag in self.engine.images

    async def info(self) -> EngineInfo:
        """Say that everything can be enforced."""
        self.engine.check()
        return self.engine.info()

    def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens to our containers from this call on."""
        queue = self.engine.watch(self._owner)
        self._queues.append(queue)
        try:
            self.engine.check()
        except EngineUnavailableError as exc:
            queue.put_nowait(exc)
        return self._follow(queue)

    async def close(self) -> None:
        """End the event streams; containers stay as they are."""
        for queue in self._queues:
            queue.put_nowait(None)
        self._queues.clear()

    async def _follow(self, queue: _Queue) -> AsyncIterator[EngineEvent]:
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, EngineUnavailableError):
                    raise item
                yield item
        finally:
            self.engine.unwatch(queue)
            if queue in self._queues:
                self._queues.remove(queue)
