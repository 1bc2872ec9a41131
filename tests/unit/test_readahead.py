"""How weights come into memory, and when they may come early."""

import pytest

from controller.readahead import FLOOR_BYTES, LoadMode, LoadPlan, may_read_early, plan_load
from controller.units import GIB


@pytest.mark.parametrize(
    ("cached_bytes", "directly", "expected"),
    [
        (0, False, LoadMode.READ_AHEAD),
        (89, False, LoadMode.READ_AHEAD),
        (90, False, LoadMode.MAPPED),
        (100, False, LoadMode.MAPPED),
        (0, True, LoadMode.DIRECT),
        (100, True, LoadMode.DIRECT),
    ],
)
def test_the_page_cache_decides(cached_bytes: int, directly: bool, expected: LoadMode) -> None:
    """What is nearly all cached is mapped, the rest is read ahead, and nothing is read for an engine that would not see it."""
    plan = plan_load(weights_bytes=100, cached_bytes=cached_bytes, reads_directly=directly)

    assert expected is plan.mode
    assert 100 - cached_bytes == plan.missing_bytes


def plan(mode: LoadMode = LoadMode.READ_AHEAD) -> LoadPlan:
    """Make a plan for 3 GiB of weights of which one is cached."""
    return LoadPlan(mode=mode, weights_bytes=3 * GIB, cached_bytes=1 * GIB)


def test_reading_early_leaves_residents_their_pages() -> None:
    """What is missing must fit into what is available beside all mapped weights and the reserve, to the byte."""
    need_bytes = 2 * GIB + 4 * GIB + FLOOR_BYTES

    assert may_read_early(plan(), available_bytes=need_bytes, mapped_bytes=4 * GIB)
    assert not may_read_early(plan(), available_bytes=need_bytes - 1, mapped_bytes=4 * GIB)


@pytest.mark.parametrize("mode", [LoadMode.MAPPED, LoadMode.DIRECT])
def test_only_what_is_read_ahead_is_read_early(mode: LoadMode) -> None:
    """There may be all the room in the world."""
    assert not may_read_early(plan(mode), available_bytes=64 * GIB, mapped_bytes=0)
