"""
What the scripts of a box ask this image about the box, since the box itself has no Python.

Its files are seen below `/run/host`, and commands of the host run there; the engine's socket and the configuration are where the
controller has them.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from controller.config import Settings
from controller.device import GpuAccess
from controller.drivers.base import EngineInfo
from controller.drivers.docker import DockerDriver
from controller.errors import EngineError, StoreError
from controller.ops import host_files
from controller.ops.place import gateway_url
from controller.probes.device import read_device
from controller.probes.jetson import read_jetson
from controller.probes.system import HOST_FILES, LocalSystem, Outcome, System

NOTHING: Final[Mapping[str, Any]] = {"services": {"controller": {}}}
"""A Compose file that adds nothing."""
_OWNER_ONLY: Final = 0o600


class HostSystem(LocalSystem):
    """The host around this container: its files, and its commands in its own root."""

    def __init__(self, root: Path = HOST_FILES) -> None:
        """Look below *root* alone; what this container has of the same name is another's."""
        super().__init__((root,))
        self._root = root

    def run(self, argv: Sequence[str]) -> Outcome | None:
        """Run a command of the host that changes nothing."""
        return super().run(("chroot", str(self._root), *argv))


def host_file(settings: Settings, system: System, *, engine_socket: str, exists: Callable[[str], bool]) -> str | None:
    """
    Return what the controller must see of a host as a Compose file: files of a Jetson, the management library of cards.

    Args:
        settings: whose stack it is, and whether it may use a GPU.
        system: the host.
        engine_socket: where its container engine answers.
        exists: whether the host has a path.

    """
    with closing(asyncio.new_event_loop()) as loop:  # not asyncio.run: that forgets the loop of whoever called us
        engine = loop.run_until_complete(_ask_engine(settings.owner, engine_socket))
    device = read_device(system, engine)
    content = host_files.host_compose(
        device if settings.use_gpu else replace(device, access=GpuAccess.NONE),
        is_jetson=read_jetson(system) is not None,
        exists=exists,
    )
    return None if content is None else host_files.write(content)


async def _ask_engine(owner: str, engine_socket: str) -> EngineInfo | None:
    driver = DockerDriver(owner, url=f"unix://{engine_socket}")
    try:
        return await driver.info()
    except EngineError:  # whoever needs it next says so
        return None
    finally:
        await driver.close()


def settings_lines(settings: Settings, *, total_bytes: int) -> str:
    """Return what a shell needs of the settings on a machine with so much memory, a variable a line."""
    values = {
        "URL": gateway_url(settings.gateway.listen),
        "REQUEST_LIMIT_S": f"{settings.scheduler.request_limit_s:g}",
        "FLOOR_BYTES": settings.memory.floor_bytes(total_bytes=total_bytes),
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def save_state(database: Path, copy: Path) -> None:
    """
    Copy the state database as it is at one moment, while a controller writes to it.

    Raises:
        StoreError: it cannot be read or the copy not be written; an older copy is as it was.

    """
    arriving = copy.with_name(f"{copy.name}.new")
    arriving.unlink(missing_ok=True)
    try:
        os.close(os.open(arriving, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWNER_ONLY))  # nobody else's from its first byte on
        with (
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(arriving)) as target,
        ):
            source.backup(target)
        _sync(arriving)
        arriving.replace(copy)
        _sync(copy.parent)
    except (OSError, sqlite3.Error) as exc:
        arriving.unlink(missing_ok=True)
        raise StoreError(f"wanted a copy of {database} in {copy}: {exc}") from exc


def mend_state(database: Path, copy: Path) -> bool:
    """
    Put the copy in the place of a database that is not sound; nobody may have it open.

    Returns:
        Whether there was need to.

    """
    if is_sound(database) or not is_sound(copy):
        return False
    for beside in ("", "-wal", "-shm"):
        broken = database.with_name(database.name + beside)
        with contextlib.suppress(FileNotFoundError):
            broken.replace(broken.with_name(f"{database.name}.unsound{beside}"))
    save_state(copy, database)
    return True


def is_sound(database: Path) -> bool:
    """Say whether SQLite can read all of it."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(database)) as connection:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
