"""Memory figures of both cgroup versions read as the same things."""

import pytest

from controller.drivers.base import Usage
from controller.drivers.cgroup import parse_usage
from controller.units import MIB

V1 = {
    "usage": 40 * MIB,
    "max_usage": 50 * MIB,
    "limit": 64 * MIB,
    "stats": {
        "cache": 3 * MIB,
        "rss": 7 * MIB,
        "mapped_file": 2 * MIB,
        "total_cache": 30 * MIB,
        "total_rss": 8 * MIB,
        "total_mapped_file": 20 * MIB,
        "hierarchical_memory_limit": 64 * MIB,
    },
}
V2 = {
    "usage": 40 * MIB,
    "limit": 64 * MIB,
    "stats": {
        "anon": 8 * MIB,
        "file": 32 * MIB,
        "shmem": 2 * MIB,
        "file_mapped": 20 * MIB,
        "inactive_file": 3 * MIB,
        "slab": MIB,
    },
}


def test_version_1_is_read_with_its_children() -> None:
    """The totals count the whole container, and the kernel's own peak is kept."""
    usage = parse_usage(V1)

    assert usage == Usage(limit_bytes=64 * MIB, anon_bytes=8 * MIB, file_bytes=30 * MIB, refault_bytes=0)


def test_version_2_counts_shared_memory_as_private() -> None:
    """Shared memory cannot be read again from anywhere; without a peak the peak is what is charged now."""
    usage = parse_usage(V2)

    assert usage == Usage(limit_bytes=64 * MIB, anon_bytes=10 * MIB, file_bytes=30 * MIB, refault_bytes=0)


def test_version_1_without_totals_is_read_too() -> None:
    """A kernel that counts no hierarchy leaves the totals out."""
    stats = {"cache": 3 * MIB, "rss": 7 * MIB}

    usage = parse_usage({"usage": 10 * MIB, "limit": 64 * MIB, "stats": stats})

    assert usage == Usage(limit_bytes=64 * MIB, anon_bytes=7 * MIB, file_bytes=3 * MIB, refault_bytes=0)


@pytest.mark.parametrize("nothing", [{}, {"stats": {}}, {"stats": None, "usage": 0}, {"usage": None}])
def test_no_figures_are_not_zero(nothing: dict[str, object]) -> None:
    """A container that does not run has no figures, and that is told apart from using nothing."""
    usage = parse_usage(nothing)

    assert usage is None


def test_figures_of_a_strange_type_count_as_absent() -> None:
    """What is no number is left out rather than believed."""
    usage = parse_usage({"limit": "max", "usage": 1, "stats": {"anon": None, "file": 5}})

    assert usage == Usage(limit_bytes=0, anon_bytes=0, file_bytes=5, refault_bytes=0)
