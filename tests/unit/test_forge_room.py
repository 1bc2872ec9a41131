"""Room for a build: what leaves for it, and what does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.forge.room import Disk, Shelved, Shortage, make_room
from controller.units import MIB


def shelved(name: str, mib: int = 100, **changes: Any) -> Shelved:  # noqa: ANN401 -- any field
    """Describe a file."""
    known: dict[str, Any] = {"wanted": True, "kept": False, "requests": 0, "build_s": 100.0}
    return Shelved(fingerprint=name, size_bytes=mib * MIB, **{**known, **changes})


def disk(free_mib: int = 1000, *, keep_mib: int = 100, budget_mib: int | None = None) -> Disk:
    """Describe a disk."""
    budget = None if budget_mib is None else budget_mib * MIB
    return Disk(free_bytes=free_mib * MIB, keep_free_bytes=keep_mib * MIB, budget_bytes=budget)


def room(
    shelf: list[Shelved], where: Disk, *, kept_mib: int = 200, scratch_mib: int = 100, may_displace: bool = False
) -> tuple[str, ...] | Shortage:
    """Ask for 200 MiB and 100 more meanwhile."""
    return make_room(
        kept_bytes=kept_mib * MIB, scratch_bytes=scratch_mib * MIB, shelf=shelf, disk=where, may_displace=may_displace
    )


def test_where_there_is_room_nothing_leaves() -> None:
    """To the last byte: what is built, what it needs meanwhile, and what is kept free."""
    assert room([shelved("a", wanted=False)], disk(400)) == ()
    assert isinstance(room([shelved("a", 0, wanted=True)], disk(399)), Shortage)


def test_what_nobody_wants_leaves_first() -> None:
    """And of that the least valuable; no more than must."""
    shelf = [shelved("dear", wanted=False, build_s=500.0), shelved("cheap", wanted=False), shelved("wanted", build_s=1.0)]

    assert room(shelf, disk(350)) == ("cheap",)
    assert room(shelf, disk(250)) == ("cheap", "dear")
    assert isinstance(room(shelf, disk(150)), Shortage)


def test_who_is_waited_for_may_displace() -> None:
    """Files of models that are not in use leave for it, those asked least for a byte and a second first; kept ones never."""
    shelf = [
        shelved("popular", requests=50),
        shelved("rare", requests=2),
        shelved("large", 300, requests=2),
        shelved("pinned", kept=True, requests=0),
    ]

    assert room([*shelf, shelved("orphan", wanted=False, build_s=9999.0)], disk(350), may_displace=True) == ("orphan",)
    assert room(shelf, disk(350), may_displace=True) == ("large",)
    assert room(shelf, disk(50), may_displace=True) == ("large", "rare")
    assert isinstance(room(shelf, disk(0, keep_mib=400), may_displace=True), Shortage)


def test_the_budget_counts_files_and_not_scratch() -> None:
    """What is made meanwhile is gone when it counts."""
    shelf = [shelved("a", 300)]

    assert room(shelf, disk(budget_mib=500)) == ()
    answer = room(shelf, disk(budget_mib=499))
    assert isinstance(answer, Shortage)
    assert "builds.disk_budget" in answer.reason


def test_a_full_disk_is_told_in_bytes() -> None:
    """What there is, what is needed, and what is kept free."""
    answer = room([], disk(50))

    assert isinstance(answer, Shortage)
    assert "50 MiB free" in answer.reason
    assert "300 MiB" in answer.reason
    assert "100 MiB kept free" in answer.reason


@given(
    st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.booleans(), st.integers(0, 9)), max_size=6),
    st.integers(0, 700),
    st.integers(0, 900) | st.none(),
    st.booleans(),
)
@pytest.mark.timeout(30)
def test_it_is_minimal_and_enough(
    files: list[tuple[int, bool, bool, int]], free_mib: int, budget_mib: int | None, may_displace: bool
) -> None:
    """What leaves is enough, none of it could have stayed alone at the end of the line, and nothing leaves that must stay."""
    shelf = [shelved(f"{at}", mib, wanted=w, kept=k, requests=r) for at, (mib, w, k, r) in enumerate(files)]
    where = disk(free_mib, budget_mib=budget_mib)
    answer = room(shelf, where, may_displace=may_displace)
    used_bytes = sum(file.size_bytes for file in shelf)
    may_go = [file for file in shelf if not file.kept and (may_displace or not file.wanted)]

    def fits(gone_bytes: int) -> bool:
        in_budget = where.budget_bytes is None or used_bytes - gone_bytes + 200 * MIB <= where.budget_bytes
        return in_budget and where.free_bytes + gone_bytes >= 400 * MIB

    if isinstance(answer, Shortage):
        assert not fits(sum(file.size_bytes for file in may_go))
    else:
        gone = {file.fingerprint: file for file in may_go if file.fingerprint in answer}
        gone_bytes = sum(file.size_bytes for file in gone.values())
        assert len(gone) == len(answer)
        assert fits(gone_bytes)
        assert not answer or not fits(gone_bytes - gone[answer[-1]].size_bytes)
