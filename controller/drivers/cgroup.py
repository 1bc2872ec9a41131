"""
Memory figures of a cgroup, as Docker's stats report them, turned into `Usage`.

Versions 1 and 2 of cgroups count the same memory under different names, and engines leave out what the kernel does not tell.
"""

import os
from collections.abc import Mapping
from typing import Final

from controller.drivers.base import Usage

_ANON: Final = ("anon", "total_rss", "rss")
_FILE: Final = ("file", "total_cache", "cache")
_SHARED: Final = ("total_shmem", "shmem")
_REFAULTS: Final = ("workingset_refault_file", "total_workingset_refault_file", "workingset_refault")
"""The last one is what kernels before 5.9 call it, which did not tell files and private memory apart."""
_KERNEL: Final = ("kernel",)
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def parse_usage(memory_stats: Mapping[str, object]) -> Usage | None:
    """
    Read the `memory_stats` of one container; `None` if they are empty, as they are for a container that does not run.

    Shared memory (`shmem`: files in a tmpfs and the like) is counted by the kernel as pages of files, but only the end of the
    container gives it back; so it is moved to the private side where it is told apart, which older kernels do not do.
    """
    raw = memory_stats.get("stats")
    counters: Mapping[str, object] = raw if isinstance(raw, Mapping) else {}
    if not counters and not memory_stats.get("usage"):
        return None
    shared_bytes = _first(counters, _SHARED)
    anon_bytes = _first(counters, _ANON) + shared_bytes
    file_bytes = max(_first(counters, _FILE) - shared_bytes, 0)
    return Usage(
        limit_bytes=_number(memory_stats.get("limit")),
        anon_bytes=anon_bytes,
        file_bytes=file_bytes,
        refault_bytes=_first(counters, _REFAULTS) * _PAGE_BYTES,
        kernel_bytes=_first(counters, _KERNEL),
    )


def _first(counters: Mapping[str, object], names: tuple[str, ...]) -> int:
    return next((_number(counters[name]) for name in names if name in counters), 0)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
