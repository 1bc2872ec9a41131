"""
The seam to the container engine.

Two drivers implement it and pass one contract suite: `docker`, and `memory` for tests and virtual time. The contract:

- A driver sees and touches only containers that carry its own owner label.
- Every verb may fail with `EngineUnavailableError`, before or after its effect; the caller looks again, and never assumes.
- `create` of a worker that exists, `start` of one that runs and `kill` of one that does not are no errors: what is wanted holds.
- `start`, `kill`, `usage` and `pids` of a worker that does not exist raise `ContainerMissingError`; `remove` of one does not.
- `kill` returns when the engine shows the container as not running.
- Jobs are containers of another kind: `list`, `events` and the verbs of workers do not see them. A job runs once: `begin_job` of
  one that exists is no error, starts it if it never ran, and never starts it again. `end_job` of one that is not there is none.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.charges import Cards
from controller.gpu_memory import Pid
from controller.spec import JobSpec, ModelName, WorkerSpec
from controller.state import Exit, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """
    One container as the engine shows it.

    Attributes:
        model: from its label.
        running: the engine says that it runs (a paused one runs).
        memory_bytes: from its label.
        spec_hash: from its label.
        run: which of its lives this is; empty if it was never started.
        exit: how its last run ended; `None` while it runs and when it never ran.
        cards: from its label: what it takes of the memory of cards.

    """

    model: ModelName
    running: bool
    memory_bytes: int
    spec_hash: str
    run: RunId
    exit: Exit | None
    cards: Cards = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    Memory of one running container: what its cgroup counts, and what whoever watches the GPUs adds to that.

    By the sources of its driver, what a Jetson's GPU takes of the box's memory is memory of the kernel, so it is in no cgroup's
    `anon`; newer releases of L4T have it charged to the container, older ones do not.

    Attributes:
        limit_bytes: the kernel kills beyond this.
        anon_bytes: private memory, which only the end of the process gives back.
        file_bytes: pages of files charged to it, which the kernel can drop and read again.
        refault_bytes: pages of files that it dropped and had to read again, since it was started.
        kernel_bytes: what the kernel holds for it and charges to it; 0 where it does not tell that apart.
        unified_bytes: what it holds of the box's memory for a GPU that shares it.
        gpu_bytes: what it holds of the memory of cards, all together.
        oom_kills: how many of its processes the kernel has killed at the limit, as far as it counts them.
        gpu_unseen: it computes on a GPU whose memory nobody could look at, so it may hold more than is said here.

    """

    limit_bytes: int
    anon_bytes: int
    file_bytes: int
    refault_bytes: int
    kernel_bytes: int = 0
    unified_bytes: int = 0
    gpu_bytes: int = 0
    oom_kills: int = 0
    gpu_unseen: bool = False

    @property
    def charged_bytes(self) -> int:
        """What counts against the limit now."""
        return self.anon_bytes + self.file_bytes + self.kernel_bytes

    @property
    def private_bytes(self) -> int:
        """What it holds of the box's memory that only its end gives back."""
        return self.anon_bytes + self.unified_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    One step of a build as the engine shows it.

    Attributes:
        build: from its label.
        step: from its label.
        running: the engine says that it runs.
        memory_bytes: from its label.
        exit: how it ended; `None` while it runs and when it never ran.
        cards: from its label.

    """

    build: str
    step: int
    running: bool
    memory_bytes: int
    exit: Exit | None
    cards: Cards = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """
    What the container engine says about itself and the host.

    Attributes:
        version: its own.
        cgroup_version: of the host's cgroups.
        memory_limits: it can limit memory.
        swap_limits: it can limit swap.
        runtimes: OCI runtimes it knows, by name.
        storage_driver: how it keeps images.
        architecture: of the host's processors, as the kernel says it.
        cdi_folders: where it looks for specifications of the Container Device Interface; empty if it does not.
        cdi_devices: the names it has found there; empty before Docker 28.2, which does not tell.

    """

    version: str
    cgroup_version: int
    memory_limits: bool
    swap_limits: bool
    runtimes: tuple[str, ...]
    storage_driver: str
    architecture: str
    cdi_folders: tuple[str, ...] = ()
    cdi_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """Something happened to a container of ours; look again. `model` is for the log only."""

    model: ModelName
    action: str


class Driver(Protocol):
    """What the pool asks of a container engine."""

    async def list(self) -> Sequence[Container]:
        """Return every container of this owner, running or not."""
        ...

    async def create(self, spec: WorkerSpec) -> None:
        """Make the container and start nothing."""
        ...

    async def start(self, model: ModelName) -> None:
        """Start the container that was made before."""
        ...

    async def kill(self, model: ModelName) -> None:
        """End it at once: workers keep nothing that a gentle stop would save."""
        ...

    async def remove(self, model: ModelName) -> None:
        """Delete the container, killing it first if it runs."""
        ...

    async def usage(self, model: ModelName) -> Usage:
        """Read the memory of a running container."""
        ...

    async def pids(self, model: ModelName) -> frozenset[Pid]:
        """Return the processes of a running container, as the host counts them."""
        ...

    async def logs(self, model: ModelName, *, tail: int) -> str:
        """Return the last *tail* lines the worker wrote."""
        ...

    async def jobs(self) -> Sequence[Job]:
        """Return every job of this owner, running or not."""
        ...

    async def begin_job(self, spec: JobSpec) -> None:
        """Make the container of a step and start it, unless it has run."""
        ...

    async def end_job(self, build: str) -> None:
        """Delete the container of a build, killing it first if it runs."""
        ...

    async def job_logs(self, build: str, *, tail: int) -> str:
        """Return the last *tail* lines the step wrote."""
        ...

    async def has_image(self, tag: str) -> bool:
        """Say whether the engine has an image of this tag."""
        ...

    async def info(self) -> EngineInfo:
        """Ask the engine what it is and what it can enforce."""
        ...

    def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens to our containers; raise `EngineUnavailableError` when the engine goes away."""
        ...

    async def close(self) -> None:
        """Give back connections and threads; containers stay as they are."""
        ...
