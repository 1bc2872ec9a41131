"""Room on the disk for a build: what must leave for it, the least valuable first. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """
    One engine file that takes room.

    Attributes:
        fingerprint: which one.
        size_bytes: what it takes.
        wanted: a registered model is served from it.
        kept: it stays in any case: its model is pinned, or in memory.
        requests: how often its model was asked.
        build_s: what making it again would take.

    """

    fingerprint: str
    size_bytes: int
    wanted: bool
    kept: bool
    requests: int
    build_s: float

    @property
    def value(self) -> float:
        """What a byte of it is worth: how often it is asked for, and how long it takes to make."""
        return (1 + self.requests) * self.build_s / max(1, self.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """
    The disk that holds the engine files.

    Attributes:
        free_bytes: what is free on it.
        keep_free_bytes: what builds leave free.
        budget_bytes: what all engine files together may take; `None` is as much as there is.

    """

    free_bytes: int
    keep_free_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """There is no room, and why."""

    reason: str


def make_room(
    *, kept_bytes: int, scratch_bytes: int, shelf: Sequence[Shelved], disk: Disk, may_displace: bool
) -> tuple[str, ...] | Shortage:
    """
    Return which files must leave so that a build has room, or what is missing.

    Args:
        kept_bytes: what the build will leave on the disk.
        scratch_bytes: what it needs beside that while it runs.
        shelf: the files there are.
        disk: what there is.
        may_displace: somebody waits for it: files of models that are not in use may leave, too.

    """
    used_bytes = sum(file.size_bytes for file in shelf)
    short_bytes = max(0, kept_bytes + scratch_bytes + disk.keep_free_bytes - disk.free_bytes)
    over_bytes = 0 if disk.budget_bytes is None else max(0, used_bytes + kept_bytes - disk.budget_bytes)
    missing_bytes = max(short_bytes, over_bytes)
    may_go = [file for file in shelf if not file.kept and (may_displace or not file.wanted)]
    leaving: list[str] = []
    for file in sorted(may_go, key=lambda file: (file.wanted, file.value, file.fingerprint)):
        if missing_bytes <= 0:
            break
        leaving.append(file.fingerprint)
        missing_bytes -= file.size_bytes
    if missing_bytes <= 0:
        return tuple(leaving)
    if short_bytes >= over_bytes:
        needed = f"{format_bytes(kept_bytes + scratch_bytes)} for the build and {format_bytes(disk.keep_free_bytes)} kept free"
        return Shortage(reason=f"the disk has {format_bytes(disk.free_bytes)} free, and it needs {needed}; make room")
    return Shortage(
        reason=f"engine files take {format_bytes(used_bytes)} of the {format_bytes(disk.budget_bytes or 0)} that "
        f"builds.disk_budget allows, and it needs {format_bytes(kept_bytes)}; raise it, or remove a model"
    )
