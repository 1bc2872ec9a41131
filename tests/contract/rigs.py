"""
What the contract suite may do to a worker behind the driver's back, once for each driver.

A rig is a driver, an engine behind it, and the hands and faults of the world: what a kernel, a crash or a person does.
"""

# ruff: noqa: D102, ANN401 -- the protocol says what its parts mean, and changes of a spec are of any type
from pathlib import PurePosixPath
from typing import Any, Protocol

from controller.drivers.base import Driver
from controller.drivers.docker import DockerDriver
from controller.drivers.memory import MemoryDriver, MemoryEngine
from controller.spec import JobSpec, ModelName, Mount, WorkerSpec
from controller.state import ExitCause
from controller.units import MIB
from tests.contract.proxy import Line
from tests.fakeworker.place import Place
from tests.waiting import until

LIMIT_BYTES = 64 * MIB

WORK = """
import pathlib, sys, time
print("at work", flush=True)
end = pathlib.Path("/out/end")
while not end.exists():
    time.sleep(0.02)
sys.exit(int(end.read_text()))
"""
"""What a job of the real engine does until it is told to end, and with which code."""


class Rig(Protocol):
    """A driver and the world behind it."""

    @property
    def driver(self) -> Driver: ...

    @property
    def owner(self) -> str: ...

    def another(self, owner: str) -> Driver:
        """Return one more driver on the same engine."""
        ...

    def spec(self, model: str, **changes: Any) -> WorkerSpec: ...
    def job(self, build: str, **changes: Any) -> JobSpec: ...

    async def at_work(self, build: str) -> None:
        """Wait until the job has written its first line, which is `at work`."""
        ...

    async def job_ends(self, build: str, code: int) -> None:
        """Let the job end by itself."""
        ...

    async def ready(self, model: str) -> None:
        """Wait until the worker has done something."""
        ...

    async def ends(self, model: str, code: int) -> None:
        """Let the worker end by itself."""
        ...

    async def takes(self, model: str, anon_bytes: int) -> None:
        """Let the worker take memory; beyond the limit the kernel kills it."""
        ...

    async def is_killed(self, model: str) -> None:
        """Kill it by hand."""
        ...

    async def is_paused(self, model: str) -> None:
        """Freeze it by hand."""
        ...

    async def is_stopped_by_signal(self, model: str) -> None:
        """Send it SIGSTOP by hand."""
        ...

    async def is_removed(self, model: str) -> None:
        """Remove it by hand, running or not."""
        ...

    async def engine_goes(self) -> None: ...

    async def engine_returns(self) -> None: ...

    async def close(self) -> None: ...


class MemoryRig:
    """The memory driver; what happens is what its controls say."""

    def __init__(self, owner: str) -> None:
        self.engine = MemoryEngine(images=frozenset({"fake"}))
        self.owner = owner
        self.driver = MemoryDriver(owner, engine=self.engine)

    def another(self, owner: str) -> Driver:
        return MemoryDriver(owner, engine=self.engine)

    def spec(self, model: str, **changes: Any) -> WorkerSpec:
        wanted: dict[str, Any] = {
            "image": "fake",
            "argv": (),
            "mounts": (),
            "memory_bytes": LIMIT_BYTES,
            "socket": f"/run/{model}",
        }
        return WorkerSpec(model=ModelName(model), **{**wanted, **changes})

    def job(self, build: str, **changes: Any) -> JobSpec:
        wanted: dict[str, Any] = {"step": 0, "image": "fake", "argv": ("work",), "mounts": (), "memory_bytes": LIMIT_BYTES}
        return JobSpec(build=build, **{**wanted, **changes})

    async def at_work(self, build: str) -> None:
        self.engine.bench(self.owner, build).lines.append("at work")

    async def job_ends(self, build: str, code: int) -> None:
        self.engine.job_ended(self.owner, build, code=code)

    async def ready(self, model: str) -> None:
        self.driver.write(ModelName(model), "starting")
        self.driver.write(ModelName(model), f"listening as {model}")
        self.driver.allocate(ModelName(model), 8 * MIB)

    async def ends(self, model: str, code: int) -> None:
        self.driver.crash(ModelName(model), cause=ExitCause.STOPPED if code in {0, 143} else ExitCause.CRASHED, code=code)

    async def takes(self, model: str, anon_bytes: int) -> None:
        self.driver.allocate(ModelName(model), anon_bytes)

    async def is_killed(self, model: str) -> None:
        self.driver.crash(ModelName(model), cause=ExitCause.KILLED)

    async def is_paused(self, model: str) -> None:
        """Do nothing: a frozen worker runs, and this engine has no processes."""

    is_stopped_by_signal = is_paused

    async def is_removed(self, model: str) -> None:
        self.driver.vanish(ModelName(model))

    async def engine_goes(self) -> None:
        self.engine.went_away()

    async def engine_returns(self) -> None:
        self.engine.came_back()

    async def close(self) -> None:
        await self.driver.close()


class DockerRig:
    """The Docker driver on the real engine, with a line between them that can be cut."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.owner = place.owner
        self.line = Line(place.root / "engine.sock")
        self.driver = DockerDriver(place.owner, url=self.line.url)
        self._others: list[Driver] = []

    def another(self, owner: str) -> Driver:
        self._others.append(DockerDriver(owner))
        return self._others[-1]

    def spec(self, model: str, **changes: Any) -> WorkerSpec:
        return self.place.spec(model, memory_bytes=LIMIT_BYTES, **changes)

    def job(self, build: str, **changes: Any) -> JobSpec:
        out = self.place.root / "builds" / build
        out.mkdir(parents=True, exist_ok=True)
        wanted: dict[str, Any] = {
            "step": 0,
            "image": self.place.image,
            "argv": ("python3", "-I", "-S", "-c", WORK),
            "mounts": (Mount(source=PurePosixPath(out), target=PurePosixPath("/out"), read_only=False),),
            "memory_bytes": LIMIT_BYTES,
        }
        return JobSpec(build=build, **{**wanted, **changes})

    async def at_work(self, build: str) -> None:
        async def has_written() -> bool:
            return "at work" in await self.driver.job_logs(build, tail=5)

        await until(f"{build} is at work", has_written)

    async def job_ends(self, build: str, code: int) -> None:
        (self.place.root / "builds" / build / "end").write_text(str(code))

        async def has_ended() -> bool:
            return not any(job.running for job in await self.driver.jobs() if job.build == build)

        await until(f"{build} has ended", has_ended)

    async def ready(self, model: str) -> None:
        await self.place.ready(model)

    async def ends(self, model: str, code: int) -> None:
        self._ask_to_misbehave(model, {"exit_code": code})
        await self._not_running(model)

    async def takes(self, model: str, anon_bytes: int) -> None:
        self._ask_to_misbehave(model, {"allocate_mib": anon_bytes // MIB})
        if anon_bytes > LIMIT_BYTES:
            await self._not_running(model)

    async def is_killed(self, model: str) -> None:
        self.place.engine.kill(self.place.container(model))
        await self._not_running(model)

    async def is_paused(self, model: str) -> None:
        self.place.engine.pause(self.place.container(model))

    async def is_stopped_by_signal(self, model: str) -> None:
        self.place.engine.kill(self.place.container(model), signal="SIGSTOP")

    async def is_removed(self, model: str) -> None:
        self.place.engine.remove_container(self.place.container(model), force=True)

    async def engine_goes(self) -> None:
        await self.line.cut()

    async def engine_returns(self) -> None:
        await self.line.open()

    async def close(self) -> None:
        for driver in (self.driver, *self._others):
            await driver.close()
        await self.line.cut()

    def _ask_to_misbehave(self, model: str, fault: dict[str, int]) -> None:
        try:
            self.place.ask(model, "POST", "/v1/completions", {"prompt": "x", "fake": fault})
        except (OSError, ValueError, EOFError):
            return  # it died before it could answer, as was asked

    async def _not_running(self, model: str) -> None:
        def stopped() -> bool:
            return not self.place.engine.inspect_container(self.place.container(model))["State"]["Running"]

        await until(f"{model} has ended", stopped)
