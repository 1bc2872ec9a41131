"""The directories of a worker on the host: the one its socket appears in, and the one its conversations are kept in."""

import contextlib
import os
from pathlib import Path

from controller.errors import StoreError
from controller.spec import GROUP_GID, WORKER_UID, WorkerSpec

_OPEN_TO_GROUP = 0o770


def prepare(spec: WorkerSpec) -> None:
    """
    Make every directory that the worker writes to, and take away the socket of its last run.

    They are made before each start, since the run directory is usually a tmpfs and gone after a reboot. A stale socket would make
    a worker that is still starting look like one that refuses connections.

    Raises:
        StoreError: a directory cannot be made.

    """
    try:
        for mount in spec.mounts:
            if not mount.read_only:
                _make(Path(mount.source))
        with contextlib.suppress(FileNotFoundError):
            Path(spec.socket).unlink()
    except OSError as exc:
        raise StoreError(f"wanted the directories of {spec.model}'s worker, got: {exc}") from exc


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (WORKER_UID, GROUP_GID):
        os.chown(folder, WORKER_UID, GROUP_GID)
    if found.st_mode & 0o777 != _OPEN_TO_GROUP:
        folder.chmod(_OPEN_TO_GROUP)
