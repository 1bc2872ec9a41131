"""
The Docker driver: the only place that knows the Docker SDK.

The SDK blocks, so every call runs in a thread and has a time limit. What it raises stops here: callers see our own errors.
Two things are remembered between calls: the connection, which is negotiated again after the engine was away; and, for a few
seconds, how a container's last run ended, which only a start can change, and a start of ours forgets it.
"""

import asyncio
import json
import math
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any, Final, TypeVar

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.types import CancellableStream

from controller.drivers.base import Container, EngineEvent, EngineInfo, Job, Usage
from controller.drivers.cgroup import parse_usage
from controller.drivers.cgroup_files import CgroupFiles
from controller.drivers.gpus import Body, remedy
from controller.drivers.sealing import container_body, container_name, job_body, job_name
from controller.errors import ContainerMissingError, EngineError, EngineUnavailableError
from controller.gpu_memory import Pid
from controller.spec import (
    LABEL_BUILD,
    LABEL_CARDS,
    LABEL_MEMORY,
    LABEL_MODEL,
    LABEL_OWNER,
    LABEL_SPEC,
    LABEL_STEP,
    JobSpec,
    ModelName,
    WorkerSpec,
    read_cards,
)
from controller.state import NEVER_RAN, Exit, ExitCause, RunId

_READ_S: Final = 15.0
"""The time limit of a call that only looks."""
_CHANGE_S: Final = 60.0
"""The time limit of a call that changes something: a slow card may take long to make or unmount a container's root."""
_THREADS: Final = 16
_USAGE_THREADS: Final = 64
"""Before Docker 25 every question for a container's memory waits up to a second: as many threads as there may be workers."""
_MARGIN_S: Final = 1.0
"""How much later than the SDK's own limit we stop waiting for its thread."""

_ENDED_S: Final = 5.0
"""How long a start by somebody else that failed at once may stay unseen."""
_OOM_NEWS_S: Final = 0.1
_NEVER: Final = "0001-01-01T00:00:00Z"
"""How the engine writes the time of something that has not happened."""
_UNUSED: Final = {"StartedAt": _NEVER, "Running": False}
"""The state of a container that was made and never started."""
_SIGKILL: Final = 128 + 9
_SIGTERM: Final = 128 + 15
_ACTIONS: Final = ("create", "start", "die", "oom", "destroy", "pause", "unpause")
_UNIX: Final = "unix://"
_DEFAULT_URL: Final = "unix:///var/run/docker.sock"
_CONFLICT: Final = 409
_AWAY_STATUS: Final = frozenset({502, 503, 504})
_AWAY_WORDS: Final = ("connection refused", "context deadline exceeded", "transport is closing", "ttrpc: closed", "shutting down")
"""How the engine says in a 500 that a part of itself is away."""

_T = TypeVar("_T")
_Client = docker.APIClient


class DockerDriver:
    """
    Workers as containers of a Docker Engine.

    Args:
        owner: the value of the owner label; containers with another one, or with none, do not exist for this driver.
        url: the engine's address; without it `DOCKER_HOST` or the default socket.
        read_limit_s: the time limit of calls that only look.

    """

    def __init__(self, owner: str, *, url: str | None = None, read_limit_s: float = _READ_S) -> None:
        """Remember where the engine is; the first call connects."""
        self._owner = owner
        self._url = url or os.environ.get("DOCKER_HOST") or _DEFAULT_URL
        self._read_s = read_limit_s
        self._clients: dict[float, _Client] = {}
        self._connecting = threading.Lock()
        self._info: EngineInfo | None = None
        self._streams: set[_Stream] = set()
        # Threads of its own, so that nothing else waits behind an engine; and others for what only waits for its next tick.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")
        self._usage_threads = ThreadPoolExecutor(_USAGE_THREADS, thread_name_prefix="engine-usage")
        self._ended: dict[str, tuple[Container, float]] = {}
        self._killed: set[str] = set()
        self._ids: dict[ModelName, str] = {}
        self._cgroups = CgroupFiles()

    async def list(self) -> Sequence[Container]:
        """Return every container of this owner, running or not, in the order of their models."""
        return await self._call("list the workers", self._read_s, self._list)

    async def create(self, spec: WorkerSpec) -> None:
        """
        Make the container and start nothing.

        Raises:
            EngineError: the image or a mounted directory is not there, somebody else's container has the name, or it wants a GPU
                and the engine has no way to give it one.

        """
        engine = self._info or await self.info()
        name = container_name(self._owner, spec.model)
        with _named(f"create {name}"):
            body = container_body(spec, owner=self._owner, engine=engine)

        def create(client: _Client) -> None:
            _make(client, name, body, exists=lambda: bool(self._find(client, spec.model)))

        await self._call(f"create {name}", _CHANGE_S, create)

    async def start(self, model: ModelName) -> None:
        """Start the container that was made before."""

        def start(client: _Client) -> None:
            container = self._the(client, model)
            # A paused container refuses to be started, and it runs: then the wanted state holds.
            try:
                with _unless(lambda: _state(client, container)["Running"]):
                    client.start(container)
            finally:
                self._ended.pop(container, None)
                self._killed.discard(container)

        await self._call(f"start {model}", _CHANGE_S, start)

    async def kill(self, model: ModelName) -> None:
        """Send SIGKILL and wait until the engine shows the container as not running."""

        def kill(client: _Client) -> None:
            container = self._the(client, model)
            self._killed.add(container)
            with _unless(lambda: not _state(client, container)["Running"]):
                client.kill(container, signal="SIGKILL")
            client.wait(container, condition="not-running", timeout=int(_CHANGE_S))

        await self._call(f"kill {model}", _CHANGE_S, kill)

    async def remove(self, model: ModelName) -> None:
        """Delete the container, killing it first if it runs."""

        def remove(client: _Client) -> None:
            for container in self._find(client, model):
                self._killed.discard(container)
                _delete(client, container)

        await self._call(f"remove {model}", _CHANGE_S, remove)

    async def usage(self, model: ModelName) -> Usage:
        """
        Read the memory of a running container.

        Raises:
            EngineError: it does not run, or the kernel does not count memory.

        """
        container = self._ids.get(model)
        if container is not None and (seen := await asyncio.to_thread(self._cgroups.read, container)) is not None:
            return seen

        def usage(client: _Client) -> Usage:
            # `one_shot` spares the engine's second sample. Before version 25 it still waits for the tick of a collector that
            # all calls share, up to a second: whoever asks for several containers should ask for all at once.
            stats = client.stats(self._the(client, model), stream=False, one_shot=True)
            found = parse_usage(stats.get("memory_stats") or {})
            if found is None:
                raise EngineError(f"usage of {model}: wanted its memory, got no figures; it does not run")
            return found

        return await self._call(f"usage of {model}", self._read_s, usage, waits=True)

    async def pids(self, model: ModelName) -> frozenset[Pid]:
        """
        Return the processes of a running container, as the host counts them.

        The engine is asked and not the cgroup's own file: read from another namespace, that one shows all of them as 0.

        Raises:
            EngineError: it does not run.

        """

        def pids(client: _Client) -> frozenset[Pid]:
            shown = client.top(self._the(client, model), ps_args="-eo pid")
            return frozenset(int(row[0]) for row in shown["Processes"])

        return await self._call(f"processes of {model}", self._read_s, pids)

    async def logs(self, model: ModelName, *, tail: int) -> str:
        """Return the last *tail* lines the worker wrote to its standard output and error."""

        def logs(client: _Client) -> str:
            raw: bytes = client.logs(self._the(client, model), tail=tail)
            return raw.decode(errors="replace")

        return await self._call(f"logs of {model}", self._read_s, logs)

    async def jobs(self) -> Sequence[Job]:
        """Return every job of this owner, running or not, in the order of their builds."""

        def jobs(client: _Client) -> Sequence[Job]:
            found = []
            for row in client.containers(all=True, filters=_labelled(self._owner, LABEL_BUILD)):
                with suppress(docker.errors.NotFound):  # removed since it was listed
                    found.append(_job(row["Labels"], _state(client, row["Id"])))
            return sorted(found, key=lambda job: job.build)

        return await self._call("list the jobs", self._read_s, jobs)

    async def begin_job(self, spec: JobSpec) -> None:
        """
        Make the container of a step and start it, unless it has run.

        Raises:
            EngineError: the image or a mounted directory is not there, somebody else's container has the name, or it wants a GPU
                and the engine has no way to give it one.

        """
        engine = self._info or await self.info()
        name = job_name(self._owner, spec.build)
        with _named(f"create {name}"):
            body = job_body(spec, owner=self._owner, engine=engine)

        def begin(client: _Client) -> None:
            _make(client, name, body, exists=lambda: bool(self._find_job(client, spec.build)))
            container = self._the_job(client, spec.build)
            if _state(client, container)["StartedAt"] in {"", _NEVER}:
                client.start(container)

        await self._call(f"begin the build {spec.build}", _CHANGE_S, begin)

    async def end_job(self, build: str) -> None:
        """Delete the container of a build, killing it first if it runs."""

        def end(client: _Client) -> None:
            for container in self._find_job(client, build):
                _delete(client, container)

        await self._call(f"end the build {build}", _CHANGE_S, end)

    async def job_logs(self, build: str, *, tail: int) -> str:
        """Return the last *tail* lines the step wrote to its standard output and error."""

        def logs(client: _Client) -> str:
            raw: bytes = client.logs(self._the_job(client, build), tail=tail)
            return raw.decode(errors="replace")

        return await self._call(f"logs of the build {build}", self._read_s, logs)

    async def has_image(self, tag: str) -> bool:
        """Say whether the engine has an image of this tag."""

        def look(client: _Client) -> bool:
            try:
                client.inspect_image(tag)  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                return False
            return True

        return await self._call(f"look for the image {tag}", self._read_s, look)

    async def info(self) -> EngineInfo:
        """Ask the engine what it is and what it can enforce."""
        self._info = await self._call("ask the engine about itself", self._read_s, lambda client: engine_info(client.info()))
        return self._info

    def events(self) -> AsyncIterator[EngineEvent]:
        """
        Yield what happens to our containers from this call on.

        Ends when the driver is closed; raises `EngineUnavailableError` when the engine goes away.
        """
        # The engine replays what happened since, so nothing is lost between this call and the moment the stream is open.
        return self._follow(since_s=time.time())

    async def close(self) -> None:
        """Give back connections and threads; containers stay as they are."""
        for stream in tuple(self._streams):
            stream.close()
        self._forget()
        for threads in (self._threads, self._usage_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, *, since_s: float) -> AsyncIterator[EngineEvent]:
        stream = _Stream(self._connect, owner=self._owner, since_s=since_s)
        self._streams.add(stream)
        try:
            while (item := await stream.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stream.close()
            self._streams.discard(stream)

    async def _call(self, what: str, limit_s: float, work: Callable[[_Client], _T], *, waits: bool = False) -> _T:
        def blocking() -> _T:
            with _our_errors(what):
                return work(self._client(limit_s))

        try:
            async with asyncio.timeout(limit_s + _MARGIN_S):
                return await asyncio.get_running_loop().run_in_executor(self._usage_threads if waits else self._threads, blocking)
        except TimeoutError as exc:
            self._forget()
            raise EngineUnavailableError(f"{what}: the engine did not answer in {limit_s:.0f} s; is it overloaded?") from exc
        except EngineUnavailableError:
            self._forget()
            raise

    def _connect(self, limit_s: float) -> _Client:
        self._knock()
        return docker.APIClient(base_url=self._url, version="auto", timeout=math.ceil(limit_s))

    def _client(self, limit_s: float) -> _Client:
        self._knock()
        # The SDK's time limit belongs to a client, so there is one client for each of the two limits.
        with self._connecting:
            if limit_s not in self._clients:
                self._clients[limit_s] = self._connect(limit_s)
            return self._clients[limit_s]

    def _knock(self) -> None:
        """Raise `OSError` if nobody listens: the SDK leaves sockets that it could not connect to the garbage collector."""
        if self._url.startswith(_UNIX):
            with socket.socket(socket.AF_UNIX) as knock:
                knock.settimeout(_READ_S)
                knock.connect(self._url.removeprefix(_UNIX))

    def _forget(self) -> None:
        """Drop the connections: the engine may come back as another version, and that is settled when connecting."""
        clients, self._clients, self._info = self._clients, {}, None
        self._ended.clear()
        for client in clients.values():
            client.close()

    def _list(self, client: _Client) -> Sequence[Container]:
        found = []
        rows = client.containers(all=True, filters=_labelled(self._owner))
        self._ids = {ModelName(row["Labels"][LABEL_MODEL]): row["Id"] for row in rows}
        for row in rows:
            with suppress(docker.errors.NotFound):  # removed since it was listed
                found.append(self._look(client, row))
        return sorted(found, key=lambda container: container.model)

    def _look(self, client: _Client, row: Mapping[str, Any]) -> Container:
        """Return one container of the list; most of many do not run, and those need no call of their own."""
        if row["State"] == "created":
            return _container(row["Labels"], _UNUSED)
        now_s = time.monotonic()
        known = self._ended.get(row["Id"])
        if known and row["State"] == "exited" and now_s - known[1] < _ENDED_S:
            return known[0]
        state = _state(client, row["Id"])
        if row["Id"] not in self._killed and _may_be_news(state):
            time.sleep(_OOM_NEWS_S)
            state = _state(client, row["Id"])
        found = _container(row["Labels"], state)
        if not found.running:
            self._ended[row["Id"]] = (found, now_s)
        return found

    def _find(self, client: _Client, model: ModelName) -> Sequence[str]:
        return [found["Id"] for found in client.containers(all=True, filters=_labelled(self._owner, f"{LABEL_MODEL}={model}"))]

    def _find_job(self, client: _Client, build: str) -> Sequence[str]:
        return [found["Id"] for found in client.containers(all=True, filters=_labelled(self._owner, f"{LABEL_BUILD}={build}"))]

    def _the_job(self, client: _Client, build: str) -> str:
        found = self._find_job(client, build)
        if not found:
            raise ContainerMissingError(f"wanted the job of build {build}, no container is labelled so")
        return found[0]

    def _the(self, client: _Client, model: ModelName) -> str:
        found = self._find(client, model)
        if not found:
            raise ContainerMissingError(f"wanted the worker of {model}, no container is labelled so; it has to be made first")
        return found[0]


class _Stream:
    """
    One open stream of events, read by a thread of its own until either side closes it.

    It does not borrow one of the event loop's threads: they are few, and this one is busy for as long as the stream lives.
    `items` gets what happens, then `None` if we closed it, or the error that ended it.
    """

    def __init__(self, connect: Callable[[float], _Client], *, owner: str, since_s: float) -> None:
        self.items: asyncio.Queue[EngineEvent | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._owner = owner
        self._since_s = since_s
        self._source: CancellableStream[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="engine-events", daemon=True).start()

    def close(self) -> None:
        """End the stream; the consumer gets what is already here, and then the end."""
        with self._lock:
            already, self._closed = self._closed, True
            source = self._source
        if not already:
            self.items.put_nowait(None)
        if not already and source is not None:
            with suppress(OSError):  # the other side may have closed it in this moment
                source.close()

    def _run(self) -> None:
        what = "watch the engine"
        try:
            with _our_errors(what), closing(self._connect(_READ_S)) as client:
                self._read(client)
            self._hand_over(EngineUnavailableError(f"{what}: it closed the connection; look again when it is back"))
        except EngineError as exc:
            self._hand_over(exc)

    def _read(self, client: _Client) -> None:
        filters = {"type": ["container"], "event": list(_ACTIONS), **_labelled(self._owner)}
        params = {"since": f"{self._since_s:.9f}", "filters": json.dumps(filters)}
        # Not the SDK's own call for this: it would wait for ever to connect, and leave the connection to the garbage collector.
        url = f"{client.base_url}/v{client.api_version}/events"
        with client.get(url, params=params, stream=True, timeout=(_READ_S, None)) as response:
            response.raise_for_status()
            source = CancellableStream(response.iter_lines(), response)
            with self._lock:
                self._source = source
                closed = self._closed
            if closed:
                source.close()
            for line in source:
                event = json.loads(line)
                model = event["Actor"]["Attributes"].get(LABEL_MODEL, "")
                self._hand_over(EngineEvent(model=ModelName(model), action=event["Action"]))

    def _hand_over(self, item: EngineEvent | Exception) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)


@contextmanager
def _our_errors(what: str) -> Iterator[None]:
    """Turn whatever the SDK raises into the errors of the driver's contract."""
    try:
        yield
    except docker.errors.NotFound as exc:
        raise ContainerMissingError(f"{what}: {exc.explanation}") from exc
    except docker.errors.APIError as exc:
        text = str(exc.explanation or exc)
        if exc.status_code in _AWAY_STATUS or any(words in text.lower() for words in _AWAY_WORDS):
            raise EngineUnavailableError(f"{what}: the engine answers {exc.status_code}: {text}") from exc
        raise EngineError(f"{what}: {text}{'; ' if (known := remedy(text)) else ''}{known}") from exc
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        raise EngineUnavailableError(
            f"{what}: the engine does not answer ({exc}); is it running, and may we use its socket?"
        ) from exc
    except (KeyError, TypeError, ValueError) as exc:  # last, since some errors of the libraries above are of these kinds, too
        raise EngineError(f"{what}: the engine's answer has another shape than we know ({type(exc).__name__}: {exc})") from exc


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say what was tried where a request could not even be written."""
    try:
        yield
    except EngineError as exc:
        raise EngineError(f"{what}: {exc}") from exc


@contextmanager
def _unless(holds: Callable[[], bool]) -> Iterator[None]:
    """Forgive the engine's refusal if the wanted state holds all the same; that a container is missing is never forgiven."""
    try:
        yield
    except docker.errors.NotFound:
        raise
    except docker.errors.APIError:
        if not holds():
            raise


def _make(client: _Client, name: str, body: Body, *, exists: Callable[[], bool]) -> None:
    """Make a container unless it is there."""
    if exists():
        return
    try:
        client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound as exc:
        raise EngineError(f"create {name}: wanted image {body['Image']}, the engine has none; run `make images`") from exc
    except docker.errors.APIError as exc:
        if exc.status_code != _CONFLICT:
            raise
        if not exists():
            raise EngineError(
                f"create {name}: somebody else has a container of that name, without our label {LABEL_OWNER}; "
                "rename it, remove it, or set another `owner`"
            ) from exc


def _delete(client: _Client, container: str) -> None:
    """Delete a container, killing it first if it runs; that it is gone already is well."""
    with suppress(docker.errors.NotFound):
        try:
            client.remove_container(container, force=True, v=True)
        except docker.errors.APIError as exc:
            if exc.status_code != _CONFLICT:  # somebody is removing it just now: wait with them
                raise
            client.wait(container, condition="removed", timeout=int(_CHANGE_S))


def _labelled(owner: str, *more: str) -> dict[str, list[str]]:
    # The model's label is asked for as well: a gateway may carry the owner's, and is no worker.
    return {"label": [f"{LABEL_OWNER}={owner}", *(more or (LABEL_MODEL,))]}


def _state(client: _Client, container: str) -> Mapping[str, Any]:
    state: Mapping[str, Any] = client.inspect_container(container)["State"]
    return state


def _container(labels: Mapping[str, str], state: Mapping[str, Any]) -> Container:
    run = NEVER_RAN if state["StartedAt"] in {"", _NEVER} else RunId(state["StartedAt"])
    memory = labels.get(LABEL_MEMORY, "")
    return Container(
        model=ModelName(labels[LABEL_MODEL]),
        running=state["Running"],
        memory_bytes=int(memory) if memory.isdecimal() else 0,
        spec_hash=labels.get(LABEL_SPEC, ""),
        run=run,
        exit=None if state["Running"] or run == NEVER_RAN else _exit(state),
        cards=read_cards(labels.get(LABEL_CARDS, "")),
    )


def _job(labels: Mapping[str, str], state: Mapping[str, Any]) -> Job:
    step, memory = labels.get(LABEL_STEP, ""), labels.get(LABEL_MEMORY, "")
    has_run = state["StartedAt"] not in {"", _NEVER}
    return Job(
        build=labels[LABEL_BUILD],
        step=int(step) if step.isdecimal() else 0,
        running=state["Running"],
        memory_bytes=int(memory) if memory.isdecimal() else 0,
        exit=_exit(state) if has_run and not state["Running"] else None,
        cards=read_cards(labels.get(LABEL_CARDS, "")),
    )


def _may_be_news(state: Mapping[str, Any]) -> bool:
    """
    Say whether the engine may only just have learned of a SIGKILL and not yet of its reason.

    That the kernel did it for want of memory reaches the engine on another way than the death itself, and may come after it.
    """
    if state["Running"] or state["OOMKilled"] or state["ExitCode"] != _SIGKILL:
        return False
    ago_s = time.time() - datetime.fromisoformat(state["FinishedAt"]).timestamp()
    return 0 <= ago_s < 1


def _exit(state: Mapping[str, Any]) -> Exit:
    code: int = state["ExitCode"]
    if state["OOMKilled"]:
        cause = ExitCause.OUT_OF_MEMORY
    elif code == _SIGKILL:
        cause = ExitCause.KILLED
    elif code in {0, _SIGTERM}:
        cause = ExitCause.STOPPED
    else:
        cause = ExitCause.CRASHED
    return Exit(cause=cause, code=code, detail=state["Error"])


def engine_info(info: Mapping[str, Any]) -> EngineInfo:
    """Take apart what the engine answers to `GET /info`."""
    return EngineInfo(
        version=info["ServerVersion"],
        cgroup_version=int(info.get("CgroupVersion") or 1),
        memory_limits=bool(info.get("MemoryLimit")),
        swap_limits=bool(info.get("SwapLimit")),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        storage_driver=info["Driver"],
        architecture=info["Architecture"],
        cdi_folders=tuple(info.get("CDISpecDirs") or ()),
        cdi_devices=tuple(sorted(found["ID"] for found in info.get("DiscoveredDevices") or () if found["Source"] == "cdi")),
    )
