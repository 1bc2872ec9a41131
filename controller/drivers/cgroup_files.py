"""
The cgroup files of containers, read where the kernel shows them: a question costs microseconds, and waits for nobody.

The engine's own answer is the fall-back. Before Docker 25 it waits for a tick of up to a second, which is too long to see another
program take the memory of the box. The controller's container sees the host's tree where Compose mounts it, read-only.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from controller.drivers.base import Usage
from controller.drivers.cgroup import parse_usage

HOST_TREE: Final = Path("/run/host/cgroup")
"""Where the host's tree is mounted in the controller's container."""
OWN_TREE: Final = Path("/sys/fs/cgroup")
"""Where it is for a process that runs on the host itself."""
_PLACES: Final = (
    "memory/docker/{id}",
    "memory/system.slice/docker-{id}.scope",
    "docker/{id}",
    "system.slice/docker-{id}.scope",
)
"""Where engines put a container: version 1 and 2 of cgroups, managed by the engine itself and by systemd."""
_LIMITS: Final = ("memory.limit_in_bytes", "memory.max")
_EVENTS: Final = ("memory.oom_control", "memory.events")
"""Where versions 1 and 2 count the processes that the kernel has killed at the limit."""


class CgroupFiles:
    """The memory figures of containers, by their ids. Any thread may ask."""

    def __init__(self, roots: tuple[Path, ...] = (HOST_TREE, OWN_TREE)) -> None:
        """Know where trees may be; the first container that is found tells which."""
        self._roots = roots
        self._place: str | None = None

    def read(self, container: str) -> Usage | None:
        """Return the memory of one container; `None` if it does not run, or its files cannot be seen from here."""
        if self._place is not None and (found := _read(Path(self._place.format(id=container)))) is not None:
            return found
        for root in self._roots:
            for place in _PLACES:
                pattern = f"{root}/{place}"
                if (found := _read(Path(pattern.format(id=container)))) is not None:
                    self._place = pattern
                    return found
        return None


def _read(folder: Path) -> Usage | None:
    try:
        stats = _counters((folder / "memory.stat").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    usage = parse_usage({"stats": stats, "limit": _limit_bytes(folder)})
    return None if usage is None else replace(usage, oom_kills=_oom_kills(folder))


def _counters(text: str) -> Mapping[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _oom_kills(folder: Path) -> int:
    """Return how many processes were killed at the limit; 0 where nobody counts them."""
    for name in _EVENTS:
        try:
            return _counters((folder / name).read_text(encoding="ascii")).get("oom_kill", 0)
        except OSError:
            continue
    return 0


def _limit_bytes(folder: Path) -> int:
    """Return the limit; 0 for none, which version 2 writes as `max`."""
    for name in _LIMITS:
        try:
            text = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else 0
    return 0
