"""
A whole controller without containers: the pool, its driver with faults, an engine in memory, and a socket for every worker.

The machine is the memory engine with processes: a container that starts gets a little server on its worker's socket, which
answers as the test says, and loses it when the container ends. It notes the most memory that ever ran at once.
"""

# ruff: noqa: ANN401 -- arguments of any type are handed on

import asyncio
import contextlib
import enum
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from controller.charges import Cards
from controller.device import NO_GPU, Device, GpuAccess
from controller.drivers.faulty import Fault, FaultyDriver, Verb
from controller.drivers.memory import MemoryDriver, MemoryEngine, _Box
from controller.engines.base import HOLD_NAME, KV_MOUNT, Site
from controller.free_pages import FreePages
from controller.gpu_memory import GpuReading
from controller.host import Host
from controller.meter import Meter
from controller.pool import Pool
from controller.power import QUIET
from controller.probes.memory import Supply
from controller.rules import Rules
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec, Tier, WorkerSpec
from controller.state import Exit, Status
from controller.store import workdirs
from controller.store.conversations import Conversations, Limits
from controller.store.database import open_database
from controller.store.ledger import Ledger
from controller.units import MIB
from controller.wire import Acquire, Ask, Granted, Loading, Message, Queued, Refused, Release, Revoked, Talk
from tests.controller.cells import Cells

OWNER = "rig"
BUDGET_BYTES = 100 * MIB
FLOOR_BYTES = 50 * MIB
PATIENCE_S = 900.0
"""As long as a test waits, on the clock of its loop: a virtual one, as a rule."""
CHANGES = (Verb.CREATE, Verb.START, Verb.KILL, Verb.REMOVE)


def model(name: str, *, mib: int = 40, load_s: float = 1.0, **changes: Any) -> ModelSpec:
    """Make a model."""
    spec = ModelSpec(
        name=ModelName(name),
        engine="llama-cpp",
        folder=PurePosixPath(f"/models/{name}"),
        weights=PurePosixPath("model.gguf"),
        weights_bytes=mib * MIB,
        digest=f"digest-{name}",
        context_tokens=1024,
        parallel=1,
        footprint=Footprint(total_bytes=mib * MIB, weights_bytes=mib * MIB, private_bytes=0, source=FootprintSource.ESTIMATE),
        load_s=load_s,
        api_paths=frozenset({ApiPath.CHAT}),
        tier=Tier.MEDIUM,
    )
    return replace(spec, **changes)


class Manner(enum.Enum):
    """How a worker answers to a health check."""

    READY = "ready"
    """At once, and well."""
    LOADING = "loading"
    """That it is still loading."""
    DEAF = "deaf"
    """Not at all, though it takes the connection."""
    ENDLESS = "endless"
    """With a line that has no end."""


class _Answer(asyncio.Protocol):
    """One connection to a worker."""

    def __init__(self, manner: Callable[[], Manner], slots: Callable[[bytes], bytes]) -> None:
        self._manner = manner
        self._slots = slots

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST /slots/"):
            if reply := self._slots(data):
                self._transport.write(reply)
                self._transport.close()
            return
        match self._manner():
            case Manner.READY:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            case Manner.LOADING:
                self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            case Manner.ENDLESS:
                self._transport.write(b"x" * 200_000)
            case Manner.DEAF:
                return
        self._transport.close()


class Machine(MemoryEngine):
    """
    The engine in memory, with a process behind every container.

    Attributes:
        manners: how the worker of a model answers; `READY` where nothing is said.
        load_s: how long it takes until it does.
        fatal: models whose worker ends as soon as it starts.
        cells: what the workers hold of conversations.
        most_bytes: the most memory that ran at once.
        starts: which model's engine began, in order.
        held: which models have waited to be let go.
        others_leave_bytes: what other programs leave of the box's memory.
        stalled_s: for how long everything has waited for memory so far.
        power: what the box says of power and heat.
        gpu_needs: what the worker of a model takes of the GPU when it loads.
        leaks: whose memory of the GPU the driver keeps when they have ended.
        free_bytes: what of the box's memory holds nothing, not even pages of files.
        dropped: whose weights were dropped from the page cache, each time it was asked for.
        gpu_blind: the driver of the GPU tells nothing.

    """

    def __init__(self, device: Device = NO_GPU) -> None:
        super().__init__(
            runtimes=("nvidia", "runc") if device.access is GpuAccess.RUNTIME else ("runc",),
            cdi_folders=("/etc/cdi",) if device.access is GpuAccess.CDI else (),
            cards={gpu.index: gpu.memory_bytes for gpu in device.gpus if gpu.memory_bytes},
        )
        self.device = device
        self.gpu_needs: dict[str, int] = {}
        self.leaks: set[str] = set()
        self.gpu_blind = False
        self.free_bytes = 10 * BUDGET_BYTES
        self.dropped: list[list[str]] = []
        self._leaked: dict[int, dict[int, int]] = {}
        self.manners: dict[str, Manner] = {}
        self.load_s: dict[str, float] = {}
        self.fatal: set[str] = set()
        self.cells = Cells()
        self.most_bytes = 0
        self.starts: list[str] = []
        self.others_leave_bytes = 10 * BUDGET_BYTES
        self.stalled_s = 0.0
        self.held: set[str] = set()
        self.power = QUIET
        self._begun: set[str] = set()
        self._opening: dict[ModelName, asyncio.Task[None]] = {}

    @property
    def running(self) -> set[str]:
        """The models whose containers run."""
        return {model for (_, model), box in self._boxes.items() if box.shown.running}

    @property
    def existing(self) -> set[str]:
        """The models that have a container."""
        return {model for _, model in self._boxes}

    def supply(self) -> Supply:
        """Return what a kernel would say of the memory: what workers hold privately is not available."""
        taken_bytes = sum(box.anon_bytes for box in self._boxes.values() if box.shown.running)
        if self.device.unified:
            on_gpu = [box.held_bytes for box in self._boxes.values() if box.shown.running]
            taken_bytes += sum(sum(held.values()) for held in (*on_gpu, *self._leaked.values()))
        return Supply(available_bytes=self.others_leave_bytes - taken_bytes, stalled_s=self.stalled_s)

    def drop(self, files: Iterable[Path]) -> None:
        """Note whose weights are to leave the page cache."""
        self.dropped.append([file.parent.name for file in files])

    def gpu_memory(self) -> GpuReading | None:
        """Return what the driver of the GPU tells, with what it keeps of those that have ended."""
        if self.gpu_blind:
            return None
        reading = self.read_gpu_memory()
        return replace(reading, held_bytes={**reading.held_bytes, **self._leaked})

    def begin(self, owner: str, model: ModelName) -> None:
        """Start a container and its process."""
        box = self.box(owner, model)
        if box.shown.running:
            return
        super().begin(owner, model)
        self._opening[model] = asyncio.get_running_loop().create_task(self._begin(owner, model))
        if not self._is_held(model):
            self._take_memory(model)
            self._take_gpu(owner, model)
            if model in self.fatal:
                self.crashed(owner, model)

    def _take_gpu(self, owner: str, model: ModelName) -> None:
        """Take of the GPU what the model needs, on the cards it was placed on."""
        spec, need_bytes = self.box(owner, model).spec, self.gpu_needs.get(model, 0)
        if spec.devices and need_bytes:
            cards = [card for card, _ in spec.cards] or [0]
            self.took_gpu(owner, model, {card: need_bytes // len(cards) for card in cards})

    def _is_held(self, model: ModelName) -> bool:
        (box,) = (box for (_, name), box in self._boxes.items() if name == model)
        return workdirs.is_held(box.spec)

    def _take_memory(self, model: ModelName) -> None:
        self._begun.add(model)
        self.starts.append(model)
        taken = [b.spec.memory_bytes for (_, m), b in self._boxes.items() if b.shown.running and m in self._begun]
        self.most_bytes = max(self.most_bytes, sum(taken))

    async def _begin(self, owner: str, model: ModelName) -> None:
        if self._is_held(model):
            self.held.add(model)
            await _opened(Path(self.box(owner, model).spec.socket).with_name(HOLD_NAME))
        if model not in self._begun:
            self._take_memory(model)
            self._take_gpu(owner, model)
            if model in self.fatal:
                self.crashed(owner, model)
            if not self.box(owner, model).shown.running:
                return
        await self._serve(model, self.box(owner, model).spec)

    def ended(self, owner: str, box: _Box, how: Exit) -> None:
        """Note that a container has ended, and end its process."""
        if box.shown.model in self.leaks:
            self._leaked[box.pid] = dict(box.held_bytes)
        super().ended(owner, box, how)
        self.cells.clear(box.shown.model)
        self._begun.discard(box.shown.model)
        if serving := self._opening.pop(box.shown.model, None):
            serving.cancel()

    async def _serve(self, model: ModelName, spec: WorkerSpec) -> None:
        loop, path = asyncio.get_running_loop(), Path(spec.socket)
        kv = next(Path(mount.source) for mount in spec.mounts if mount.target == KV_MOUNT)
        ready_s = loop.time() + self.load_s.get(model, 0.0)

        def manner() -> Manner:
            return Manner.LOADING if loop.time() < ready_s else self.manners.get(model, Manner.READY)

        def slots(request: bytes) -> bytes:
            return self.cells.answer(model, kv, request)

        path.parent.mkdir(parents=True, exist_ok=True)
        async with await loop.create_unix_server(lambda: _Answer(manner, slots), str(path)) as server:
            await server.serve_forever()

    async def power_off(self) -> None:
        """End all processes; containers stay as they are."""
        serving = list(self._opening.values())
        self._opening.clear()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _opened(fifo: Path) -> None:
    """Wait until somebody opens a FIFO for writing."""
    loop, opened = asyncio.get_running_loop(), asyncio.Event()
    handle = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        loop.add_reader(handle, opened.set)
        await opened.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


class Ear:
    """A listener that remembers what it hears of each lease."""

    def __init__(self) -> None:
        self._heard: dict[str, list[Message]] = {}

    def send(self, message: Message) -> None:
        """Take one message."""
        self._heard.setdefault(getattr(message, "id", ""), []).append(message)

    def about(self, lease: str) -> list[Message]:
        """Return what was said of one lease."""
        return self._heard.get(lease, [])

    def answer(self, lease: str) -> Granted | Refused | None:
        """Return whether it was granted or refused, if it was."""
        return next((m for m in self.about(lease) if isinstance(m, Granted | Refused)), None)

    def revoked(self, lease: str) -> Revoked | None:
        """Return how it was revoked, if it was."""
        return next((m for m in self.about(lease) if isinstance(m, Revoked)), None)

    def words(self, lease: str) -> list[str]:
        """Return the kinds of messages about one lease, repetitions left out."""
        kinds = [type(m).__name__ for m in self.about(lease) if isinstance(m, Queued | Loading | Granted | Refused | Revoked)]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]


@dataclass(slots=True, kw_only=True)
class Rig:
    """A pool that runs, and the world around it."""

    pool: Pool
    driver: FaultyDriver
    memory: MemoryDriver
    machine: Machine
    ear: Ear
    task: asyncio.Task[None] | None = None
    asked: int = 0

    def ask(
        self,
        model: str | None,
        *,
        lease: str = "",
        mode: str = "manual",
        priority: str = "interactive",
        deadline_s: float | None = None,
        talk: Talk | None = None,
    ) -> str:
        """Ask for a lease and return its id."""
        self.asked += 1
        lease = lease or f"lease-{self.asked}"
        ask = msgspec.convert({"mode": mode, "model": model, "api_path": ApiPath.CHAT.value, "talk": talk}, Ask)
        message = msgspec.convert({"id": lease, "ask": ask, "priority": priority, "deadline_s": deadline_s}, Acquire)
        self.pool.acquire(message, self.ear)
        return lease

    def release(self, lease: str, **report: Any) -> None:
        """Give a lease back."""
        self.pool.release(Release(id=lease, **report), self.ear)

    async def answered(self, lease: str, *, patience_s: float = PATIENCE_S) -> Granted | Refused:
        """Wait until a lease is granted or refused."""
        answer = await reaches(f"{lease} is answered", lambda: self.ear.answer(lease), patience_s=patience_s)
        assert isinstance(answer, Granted | Refused)
        return answer

    async def granted(self, model: str, **how: Any) -> str:
        """Ask for a lease, wait until it is granted, and return its id."""
        lease = self.ask(model, **how)
        answer = await self.answered(lease)
        assert isinstance(answer, Granted), answer
        return lease

    async def serve(self, model: str) -> None:
        """Ask, get a lease, and give it back."""
        self.release(await self.granted(model))

    async def revoked(self, lease: str) -> Revoked:
        """Wait until a lease is revoked."""
        said = await reaches(f"{lease} is revoked", lambda: self.ear.revoked(lease))
        assert isinstance(said, Revoked)
        return said

    def changes(self) -> int:
        """Return how often the engine was told to change anything."""
        return sum(self.driver.calls[verb] for verb in CHANGES)

    def is_converged(self) -> bool:
        """Say whether what runs is what is wanted, and nothing is under way."""
        ready = {m for m, w in self.pool.workers.items() if w.status is Status.READY}
        return set(self.pool.scheduler.desired) == self.machine.running == ready and not self.pool.fleet.acting

    async def converges(self) -> None:
        """Wait until it has, and see that it then leaves the engine alone for longer than any resync takes."""
        before = -1

        def is_quiet() -> bool:
            nonlocal before
            before, same = self.changes(), before == self.changes()
            return same and self.is_converged()

        await reaches("what runs is what is wanted", is_quiet, step_s=3.0)
        before = self.changes()
        await asyncio.sleep(25.0)

        assert before == self.changes(), "converged, and went on changing things"
        assert self.is_converged()
        assert self.machine.most_bytes <= self.pool.budget_bytes, "more memory than the budget"


async def reaches(what: str, look: Callable[[], Any], *, patience_s: float = PATIENCE_S, step_s: float = 0.05) -> Any:
    """Look again and again, on the loop's clock, until what is seen is true, and return it."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + patience_s
    while not (seen := look()):
        assert loop.time() < ends_s, f"waited {patience_s:.0f} s for: {what}"
        await asyncio.sleep(step_s)
    return seen


def host(folder: Path, device: Device = NO_GPU, cards: Cards = ()) -> Host:
    """Describe a box whose run and KV directories are in *folder*."""
    site = Site(image="fake", run_root=PurePosixPath(folder / "r"), kv_root=PurePosixPath(folder / "k"), threads=1, device=device)
    return Host(sites={"llama-cpp": site, "transformers": site}, device=device, cards=cards)


def rules(**changes: Any) -> Rules:
    """Make rules with short times."""
    return Rules(**{"budget_bytes": BUDGET_BYTES, "request_limit_s": 30.0, "adoption_grace_s": 0.0, **changes})


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    models: Iterable[ModelSpec],
    *,
    faults: Iterable[Fault] = (),
    machine: Machine | None = None,
    knobs: Mapping[str, Any] | None = None,
    wait: bool = True,
    kept: Limits | None = None,
) -> AsyncIterator[Rig]:
    """
    Run a pool in *folder* as long as the block runs.

    Without *wait*, before it has seen the engine; without *kept*, it keeps no conversations.
    """
    machine = machine or Machine()
    memory = MemoryDriver(OWNER, engine=machine)
    driver = FaultyDriver(memory, *faults)
    clock = asyncio.get_running_loop().time
    database = open_database(folder / "state.db")
    box = host(folder, machine.device, (knobs or {}).get("cards", ()))
    meter = Meter(ledger=Ledger(database), host=box, clock=clock)
    pool = Pool(
        driver=driver,
        rules=rules(**(knobs or {})),
        host=box,
        meter=meter,
        clock=clock,
        floor_bytes=FLOOR_BYTES,
        read_supply=machine.supply,
        read_gpu_memory=machine.gpu_memory,
        free_pages=FreePages(read_free=lambda: machine.free_bytes, drop=machine.drop),
        read_power=lambda: machine.power,
        conversations=Conversations(database, folder / "k", limits=kept, wall=clock) if kept else None,
    )
    pool.register({spec.name: spec for spec in models})
    rig = Rig(pool=pool, driver=driver, memory=memory, machine=machine, ear=Ear())
    rig.task = asyncio.create_task(pool.run())
    try:
        if wait:
            await _first(pool.adopted(), rig.task)
        yield rig
        assert not rig.task.done(), "the pool has ended"
    finally:
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)
        await driver.close()
        database.close()


async def _first(work: Awaitable[None], unless: asyncio.Task[None]) -> None:
    """Wait for *work*, and fail with what ended *unless* if that ends before."""
    waiting = asyncio.ensure_future(work)
    await asyncio.wait((waiting, unless), return_when=asyncio.FIRST_COMPLETED)
    if unless.done():
        waiting.cancel()
        await unless
