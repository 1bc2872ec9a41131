"""Folders, the disk below them, and the paths of sockets."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from controller.ops.check.values import Access, Facts, Finding, error, warning
from controller.probes.host import DiskKind
from controller.units import GIB, MIB, format_bytes

SOCKET_PATH_BYTES: Final = 107
"""The longest path of a Unix socket: 108 bytes in the kernel's structure, one of them for the end."""
LONGEST_NAME: Final = "m" * 63
"""A model's name may have 63 characters."""
LEAST_FREE_BYTES: Final = 256 * MIB
"""Below this the state database, conversations and logs will fail before long."""
LOW_FREE_BYTES: Final = 2 * GIB
"""Below this the next model will not fit on the disk."""


def folders(facts: Facts) -> Iterable[Finding]:
    """Judge the home and the run folder."""
    for key, path, access in (("home", facts.settings.home, facts.home), ("run", facts.settings.run, facts.run)):
        match access:
            case Access.READ_ONLY:
                yield error(key, f"{path} is on a read-only file system", f"mount it writable, or set {key} to another folder")
            case Access.NOT_A_FOLDER:
                yield error(key, f"{path} is not a folder", f"move it away, or set {key} to another folder")
            case Access.FORBIDDEN:
                yield warning(
                    key,
                    f"you may not write to {path}; the controller runs as root and may, but only root can put models there",
                    f"sudo windlass check, or set WINDLASS_{key.upper()} to a folder of yours",
                )
            case Access.WRITABLE:
                pass


def disk(facts: Facts) -> Iterable[Finding]:
    """Judge the disk that holds the home folder."""
    home, disk = facts.settings.home, facts.disk
    free = format_bytes(disk.free_bytes)
    if disk.free_bytes < LEAST_FREE_BYTES:
        yield error(
            "disk",
            f"{free} are free for {home}: the state database and conversations cannot be written",
            f"du -xh -d2 {home} | sort -h",
        )
    elif disk.free_bytes < LOW_FREE_BYTES:
        yield warning("disk", f"{free} are free for {home}: the next model may not fit", f"du -xh -d2 {home} | sort -h")
    if disk.kind is DiskKind.ROTATING:
        yield warning(
            "disk",
            f"{home} is on a disk that turns: loading a model takes as long as reading it, about 10 s for each GiB",
            "move it to an SSD and set home to that",
        )
    elif disk.kind is DiskKind.SD_CARD:
        yield warning(
            "disk",
            f"{home} is on an SD card: loading a model takes about 12 s for each GiB, and writing wears it out",
            "move it to an NVMe or USB SSD and set home to that",
        )
    elif disk.kind is DiskKind.EMMC:
        yield warning(
            "disk",
            f"{home} is on eMMC: loading a model takes about 4 s for each GiB",
            "move it to an NVMe SSD and set home to that",
        )


def sockets(facts: Facts) -> Iterable[Finding]:
    """Name the models whose socket would have too long a path."""
    run = facts.settings.run
    names = [model.name for model in facts.models]
    too_long = [name for name in names if _path_bytes(worker_socket(run, name)) > SOCKET_PATH_BYTES]
    for name in too_long:
        path = worker_socket(run, name)
        yield error(
            "run",
            f"{name} cannot be served: a socket path may have {SOCKET_PATH_BYTES} bytes, and {path} has {_path_bytes(path)}",
            "set run to a shorter path such as /run/windlass",
        )
    longest = _path_bytes(worker_socket(run, LONGEST_NAME))
    if not too_long and longest > SOCKET_PATH_BYTES:
        yield warning(
            "run",
            f"under {run}, model names may have {max(63 + SOCKET_PATH_BYTES - longest, 0)} characters instead of 63: "
            "the path of a socket is limited",
            "set run to a shorter path such as /run/windlass",
        )


def worker_socket(run: PurePosixPath, model: str) -> PurePosixPath:
    """Return where a model's worker listens."""
    return run / "workers" / model / "worker.sock"


def _path_bytes(path: PurePosixPath) -> int:
    return len(str(path).encode())
