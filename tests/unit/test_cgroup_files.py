"""The kernel's own files of a container, wherever the engine and the kernel have put them."""

from pathlib import Path

import pytest

from controller.drivers.base import Usage
from controller.drivers.cgroup_files import CgroupFiles
from controller.units import MIB

ID = "b2fdcc4881d6"
PAGE_BYTES = 4096
V1 = "cache 5\nrss 6\ntotal_cache 3145728\ntotal_rss 2097152\ntotal_shmem 1048576\ntotal_workingset_refault_file 3\n"
V2 = "anon 2097152\nfile 3145728\nshmem 1048576\nworkingset_refault_anon 9\nworkingset_refault_file 3\n"
USAGE = Usage(limit_bytes=64 * MIB, anon_bytes=3 * MIB, file_bytes=2 * MIB, refault_bytes=3 * PAGE_BYTES)


def write(folder: Path, stat: str, **files: str) -> None:
    """Make the files of one container."""
    folder.mkdir(parents=True)
    (folder / "memory.stat").write_text(stat)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


@pytest.mark.parametrize("place", ["memory/docker/{}", "memory/system.slice/docker-{}.scope"])
def test_version_1_is_found_under_either_manager(tmp_path: Path, place: str) -> None:
    """The totals of the hierarchy are read, and shared memory counts as private."""
    write(tmp_path / place.format(ID), V1, limit_in_bytes=f"{64 * MIB}\n")

    assert USAGE == CgroupFiles((tmp_path,)).read(ID)


@pytest.mark.parametrize("place", ["docker/{}", "system.slice/docker-{}.scope"])
def test_version_2_is_found_under_either_manager(tmp_path: Path, place: str) -> None:
    """The same figures under their other names."""
    write(tmp_path / place.format(ID), V2, max=f"{64 * MIB}\n")

    assert USAGE == CgroupFiles((tmp_path,)).read(ID)


def test_no_limit_is_zero(tmp_path: Path) -> None:
    """Version 2 writes a word instead of a number."""
    write(tmp_path / "docker" / ID, V2, max="max\n")

    found = CgroupFiles((tmp_path,)).read(ID)

    assert found is not None
    assert 0 == found.limit_bytes


def test_the_first_tree_that_has_it_tells_where_the_others_are(tmp_path: Path) -> None:
    """Every container is found, in whichever tree it is."""
    write(tmp_path / "a" / "docker" / "one", V2, max="1\n")
    write(tmp_path / "b" / "memory" / "docker" / "two", V1, limit_in_bytes="2\n")
    files = CgroupFiles((tmp_path / "a", tmp_path / "b"))

    found = [files.read("one"), files.read("two"), files.read("one")]

    assert [1, 2, 1] == [usage.limit_bytes if usage else None for usage in found]


def test_what_cannot_be_seen_is_told_apart_from_using_nothing(tmp_path: Path) -> None:
    """A container that does not run has no files, and neither has one of a tree that is not mounted."""
    write(tmp_path / "docker" / "empty", "", max="1\n")
    files = CgroupFiles((tmp_path, tmp_path / "missing"))

    assert [None, None] == [files.read("empty"), files.read(ID)]


def test_lines_of_a_strange_form_are_left_out(tmp_path: Path) -> None:
    """A kernel may add what it likes."""
    write(tmp_path / "docker" / ID, "anon 2097152 x\nanon 1048576\nfile\nslab yes\n", max="1\n")

    found = CgroupFiles((tmp_path,)).read(ID)

    assert found is not None
    assert (MIB, 0) == (found.anon_bytes, found.file_bytes)


@pytest.mark.parametrize(
    ("place", "stat", "name", "events"),
    [
        ("memory/docker/{}", V1, "oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("docker/{}", V2, "events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ],
)
def test_the_kernels_kills_at_the_limit_are_counted(tmp_path: Path, place: str, stat: str, name: str, events: str) -> None:
    """Either version counts them in a file of its own; attempts and kills of whole groups are other lines."""
    write(tmp_path / place.format(ID), stat, **{name: events})

    found = CgroupFiles((tmp_path,)).read(ID)

    assert found is not None
    assert 2 == found.oom_kills
