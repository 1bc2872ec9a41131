"""The kernel's counters are read as the kernel means them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.bench import PARTS, chosen
from bench.disk import (
    PIECE_BYTES,
    cached_share,
    direct_bytes_per_s,
    drop_pages,
    grown,
    parse_diskstats,
    parse_process_io,
    warm_pages,
)
from bench.plots import beside, draw, stacked, steps
from bench.stack import BUILD
from bench.swap import In, held_bytes, median_parts

DISKSTATS = """   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 10 0 100 7 20 0 3 9 0 1 2
 254       1 vda1 1 0 5 7 2 0 6 9 0 1 2
"""


def test_a_device_is_found_by_its_numbers() -> None:
    """Sectors are 512 bytes; the device is that of both numbers; one that is not counted is none."""
    found = parse_diskstats(DISKSTATS, 254, 1)

    assert found
    assert (5 * 512, 6 * 512) == (found.read_bytes, found.written_bytes)
    assert parse_diskstats(DISKSTATS, 8, 0) is None


def test_what_was_deleted_before_it_was_written_was_not_written() -> None:
    """The kernel counts it apart, and it can be more than was written."""
    text = "rchar: 1\nwchar: 9\nwrite_bytes: {}\ncancelled_write_bytes: {}\n"

    assert 70 == parse_process_io(text.format(100, 30))
    assert 0 == parse_process_io(text.format(10, 30))


def test_writes_grow_by_process() -> None:
    """A process that ended is not counted backwards, one that came counts whole."""
    assert 5 + 7 == grown({1: 10, 2: 100}, {1: 15, 3: 7})


def test_memory_that_processes_hold_is_their_own_and_what_they_map() -> None:
    """Cached pages that nobody maps are free for the asking, and not held."""
    meminfo = "MemTotal: 900 kB\nCached: 500 kB\nAnonPages: 10 kB\nMapped: 20 kB\nPageTables: 3 kB\nHugePages_Total: 0\n"

    assert 33 * 1024 == held_bytes(meminfo)


@pytest.fixture
def file() -> Iterator[Path]:
    """Return a file on the disk that the measurements use; the folder for temporary files may be kept in memory."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        path = Path(folder) / "weights"
        path.write_bytes(bytes(3 * PIECE_BYTES))
        yield path


def test_pages_are_seen_to_come_and_to_go(file: Path) -> None:
    """A file that was read is in the page cache, one that was dropped is not, and reading past it brings nothing there."""
    warm_pages(file)
    warm = cached_share(file)
    drop_pages(file)
    speed = direct_bytes_per_s(file)

    assert 1.0 == warm
    assert 0.0 == cached_share(file)
    assert speed > 0


def test_parts_are_medians_of_what_all_have() -> None:
    """A part that one swap lacks is none of the typical swap."""
    assert {"kill_s": 2.0} == median_parts([{"kill_s": 1.0, "read_s": 4.0}, {"kill_s": 9.0}, {"kill_s": 2.0}])


def test_a_way_in_is_made_of_parts_that_follow_each_other() -> None:
    """They add up to the caller's own seconds, reading aside; a container's start counts as far as it was waited for."""
    told = {"kill_s": 0.2, "container_s": 0.4, "read_s": 1.5, "process_s": 0.3}
    load = {"start_s": 0.1, "parts": told, "first_token_s": 0.25}
    one = In(seconds=1.0, disk_bytes=0, cached_share=1.0, load=load)

    assert {
        "kill_s": 0.2,
        "container_s": 0.1,
        "read_s": 1.5,
        "process_s": 0.3,
        "first_token_s": 0.25,
        "rest_s": pytest.approx(0.15),
    } == one.parts
    assert 1.5 == one.read_s


def test_parts_that_run_beside_others_are_not_stacked() -> None:
    """The stack is as high as the swap took; what ran beside stands for itself."""
    parts = {"kill_s": 1.0, "read_s": 2.0, "process_s": 0.5, "drain_s": 0.0}

    assert [("kill", 1.0), ("process", 0.5)] == stacked(parts)
    assert [("read", 2.0)] == beside(parts)


def test_shares_reach_one_at_the_last() -> None:
    """Each value stands at the share of all that is not larger."""
    assert ([1.0, 2.0], [0.5, 1.0]) == steps([1.0, 2.0])


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    """Each series makes its pictures, and a part that was not run makes none."""
    trace = {"windlass_s": [1.0, 2.0], "router_s": [2.0, 3.0], "memory": [(0.0, 1, 2), (1.0, 2, 2)]}
    figures = {"p50_s": 1.0, "p99_s": 2.0}
    drawn = draw({"trace": {"ABC": trace}, "simulator": {"0.25": {"ours": figures}}}, tmp_path)

    assert {"budget-over-time.png", "latency-of-traces.png", "wait-by-load.png"} == {path.name for path in drawn}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_parts_are_chosen_by_name() -> None:
    """All without a word, some in their own order with words, and a wrong one is told with the right ones."""
    first, second, *_ = PARTS

    assert list(PARTS) == list(chosen(""))
    assert [first, second] == list(chosen(f"{second}, {first}"))
    with pytest.raises(Exception, match="wanted some of"):
        chosen("nonsense")
