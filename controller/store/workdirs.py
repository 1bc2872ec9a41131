"""The directories of a worker on the host: the one its socket appears in, and the one its conversations are kept in."""

import contextlib
import os
from pathlib import Path

from controller.engines.base import HOLD_NAME, READ_AHEAD_NAME
from controller.errors import StoreError
from controller.spec import GROUP_GID, WORKER_UID, WorkerSpec

_OPEN_TO_GROUP = 0o770


def prepare(spec: WorkerSpec, *, held: bool = False, read_ahead: bool = False) -> None:
    """
    Make every directory that the worker writes to, take away the socket of its last run, and lay out how it is to start.

    They are made before each start, since the run directory is usually a tmpfs and gone after a reboot. A stale socket would make
    a worker that is still starting look like one that refuses connections.

    Args:
        spec: the worker.
        held: its engine is not to begin before `let_go`.
        read_ahead: its entry point is to read the weights into the page cache.

    Raises:
        StoreError: a directory cannot be made.

    """
    try:
        for mount in spec.mounts:
            if not mount.read_only:
                _make(Path(mount.source))
        with contextlib.suppress(FileNotFoundError):
            Path(spec.socket).unlink()
        for name in (HOLD_NAME, READ_AHEAD_NAME):
            _beside(spec, name).unlink(missing_ok=True)
        if held:
            os.mkfifo(_beside(spec, HOLD_NAME))
            _hand_over(_beside(spec, HOLD_NAME))
        if read_ahead:
            _beside(spec, READ_AHEAD_NAME).touch()
    except OSError as exc:
        raise StoreError(f"wanted the directories of {spec.model}'s worker, got: {exc}") from exc


def is_held(spec: WorkerSpec) -> bool:
    """Say whether the engine of a worker that runs waits for `let_go`: the FIFO itself is the note of it."""
    return _beside(spec, HOLD_NAME).is_fifo()


def let_go(spec: WorkerSpec, *, read_ahead: bool) -> None:
    """
    Let the engine of a held worker begin; one that was let go already stays so.

    Opening the FIFO wakes whoever waits for that, and a worker that comes later finds none to wait at. So nothing can be missed,
    and the order matters: opened first, then removed.

    Raises:
        StoreError: its run directory cannot be written to.

    """
    hold = _beside(spec, HOLD_NAME)
    try:
        if read_ahead:
            _beside(spec, READ_AHEAD_NAME).touch()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(hold, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                hold.unlink(missing_ok=True)
            finally:
                os.close(handle)
    except OSError as exc:
        raise StoreError(f"wanted to let {spec.model}'s worker begin, got: {exc}") from exc


def _beside(spec: WorkerSpec, name: str) -> Path:
    return Path(spec.socket).with_name(name)


def _hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, WORKER_UID, GROUP_GID)
    path.chmod(_OPEN_TO_GROUP & 0o660)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (WORKER_UID, GROUP_GID):
        os.chown(folder, WORKER_UID, GROUP_GID)
    if found.st_mode & 0o777 != _OPEN_TO_GROUP:
        folder.chmod(_OPEN_TO_GROUP)
