"""Look at configuration and host for `windlass check`: every fact once, nothing judged, nothing changed."""

import asyncio
import errno
import http.client
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote

from controller.config import Settings, load_settings
from controller.device import Device, GpuAccess
from controller.drivers.base import EngineInfo
from controller.drivers.docker import DockerDriver
from controller.errors import ConfigError, EngineError, WindlassError
from controller.ops import control
from controller.ops.check import update
from controller.ops.check.network import split_listen
from controller.ops.check.values import NOT_TRIED, Access, EngineFacts, Facts, Port, Tried, Update
from controller.ops.client import Api
from controller.probes.condition import read_condition
from controller.probes.device import read_device
from controller.probes.host import nearest_existing, read_disk
from controller.probes.memory import read_memory
from controller.probes.system import LocalSystem
from controller.spec import ModelSpec
from controller.store.catalog import Scanner

_ENGINE_SOCKET: Final = "/var/run/docker.sock"
_ENGINE_PATIENCE_S: Final = 10.0
_GATEWAY_PATIENCE_S: Final = 3.0
_NOT_FOUND: Final = 404
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def survey(environ: Mapping[str, str], *, config: Path | None) -> Facts:
    """Look at everything. What cannot be looked at is a fact, too."""
    settings, problems = _settings(environ, config)
    system, address = LocalSystem(), environ.get("DOCKER_HOST") or f"unix://{_ENGINE_SOCKET}"
    engine = _engine(settings, address)
    device = read_device(system, engine.info)
    used = device if settings.use_gpu else replace(device, access=GpuAccess.NONE)
    models, folder_problems, engine_problems = _models(settings, used)
    return Facts(
        config_problems=(*problems, *engine_problems),
        settings=settings,
        memory=read_memory(),
        home=read_access(settings.home),
        run=read_access(settings.run),
        disk=read_disk(settings.home),
        engine=_with_images(engine, settings, address, {model.engine for model in models}),
        port=read_port(settings.gateway.listen),
        key_count=_key_count(settings),
        models=models,
        folder_problems=folder_problems,
        device=device,
        condition=read_condition(system, home=str(settings.home), cdi_folders=engine.info.cdi_folders if engine.info else ()),
        tried=_tried(settings),
        update=_update(settings),
    )


def read_access(path: PurePosixPath) -> Access:
    """Tell what can be done with a folder that exists, or would be made."""
    existing = nearest_existing(path)
    if not existing.is_dir():
        return Access.NOT_A_FOLDER
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        return Access.READ_ONLY
    return Access.WRITABLE if os.access(existing, os.W_OK | os.X_OK) else Access.FORBIDDEN


def read_port(listen: str) -> Port:
    """Tell who has an address, by trying to listen there for a moment."""
    address = split_listen(listen)
    if address is None:
        return Port.FREE
    host, port = address
    if port < _first_free_port():
        return Port.FORBIDDEN
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return Port.OURS if _answers_like_us(host, port) else Port.TAKEN
        return Port.NO_ADDRESS
    return Port.FREE


def find_missing_images(tags: Mapping[str, str], engine_socket: PurePosixPath) -> tuple[tuple[str, str], ...] | None:
    """Return the engines (name and image tag) whose image is not there; `None` if the container engine cannot be asked."""
    try:
        return tuple((name, tag) for name, tag in sorted(tags.items()) if not _has_image(tag, engine_socket))
    except (OSError, http.client.HTTPException):
        return None


def _settings(environ: Mapping[str, str], config: Path | None) -> tuple[Settings, tuple[str, ...]]:
    try:
        return load_settings(environ, path=config), ()
    except ConfigError as exc:
        return Settings(), exc.problems


def _models(settings: Settings, device: Device) -> tuple[tuple[ModelSpec, ...], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return what can be served, which folders cannot, and what the engines' settings have wrong."""
    folder = settings.home / "models"
    try:
        scanner = Scanner(settings, memory_bytes=read_memory().total_bytes, device=device)
    except ConfigError as exc:
        return (), (), exc.problems
    if nearest_existing(folder) != Path(folder):
        return (), (), ()  # it is made at the first start
    catalog = scanner.scan()
    return catalog.models, tuple((problem.folder, problem.text) for problem in catalog.problems), ()


def _engine(settings: Settings, address: str) -> EngineFacts:
    try:
        with closing(asyncio.new_event_loop()) as loop:  # not asyncio.run: that forgets the loop of whoever called us
            info = loop.run_until_complete(_ask_engine(settings.owner, address))
    except EngineError as exc:
        return EngineFacts(problem=str(exc))
    return EngineFacts(info=info)


def _with_images(engine: EngineFacts, settings: Settings, address: str, engines: Iterable[str]) -> EngineFacts:
    """Look for the images that models want, where the engine is on this host and answers."""
    if engine.info is None or not address.startswith("unix://"):
        return engine
    tags = {name: settings.engine(name).image for name in engines}
    return replace(engine, missing_images=find_missing_images(tags, PurePosixPath(address.removeprefix("unix://"))))


async def _ask_engine(owner: str, address: str) -> EngineInfo:
    driver = DockerDriver(owner, url=address)
    try:
        return await driver.info()
    finally:
        await driver.close()


class _EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket: looking for an image is no verb of a driver, and needs no SDK."""

    def __init__(self, path: PurePosixPath) -> None:
        super().__init__("localhost", timeout=_ENGINE_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _has_image(tag: str, engine_socket: PurePosixPath) -> bool:
    connection = _EngineConnection(engine_socket)
    try:
        connection.request("GET", f"/images/{quote(tag, safe='')}/json")
        return connection.getresponse().status != _NOT_FOUND
    finally:
        connection.close()


def _update(settings: Settings) -> Update | None:
    try:
        return update.read((Path(settings.home) / update.FILE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _key_count(settings: Settings) -> int | None:
    try:
        keys = control.call(settings.run / "controller.sock", "keys.list", {})["keys"]
        return sum(key["revoked_at"] is None for key in keys)
    except (WindlassError, LookupError, TypeError):
        return None


def _tried(settings: Settings) -> Tried:
    """Ask a running controller what it has found out."""
    try:
        told = control.call(settings.run / "controller.sock", "status", {})
        return Tried(
            read_bytes_per_s=told["disk"]["read_bytes_per_s"],
            gpu_memory_charged=told["device"]["gpu_memory_charged"],
            uses_gpu=told["device"]["access"] != GpuAccess.NONE,
        )
    except (WindlassError, LookupError, TypeError):
        return NOT_TRIED


def _answers_like_us(host: str, port: int) -> bool:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - to connect to
    try:
        health = Api(f"http://{reachable}:{port}").health(patience_s=_GATEWAY_PATIENCE_S)
    except WindlassError:
        return False
    return isinstance(health, dict) and health.get("status") in {"ok", "degraded", "failing"}


def _first_free_port() -> int:
    try:
        return int(_FIRST_FREE_PORT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024
