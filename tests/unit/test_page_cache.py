"""How much of a real file is in the page cache: dropped and read by the test itself."""

import os
from pathlib import Path

from controller.probes.page_cache import read_cached_bytes, weights_files
from controller.units import MIB


def drop(file: Path) -> None:
    """Take a file out of the page cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_cached_bytes_follow_what_was_read(tmp_path: Path) -> None:
    """All of a file that was just written, none of one that was dropped, and half of one whose first half was read."""
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(16 * MIB))

    assert (16 * MIB, 16 * MIB) == read_cached_bytes([file])

    drop(file)

    assert (16 * MIB, 0) == read_cached_bytes([file])

    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        opened.read(8 * MIB)
    size_bytes, cached_bytes = read_cached_bytes([file])

    assert 16 * MIB == size_bytes
    assert 7 * MIB <= cached_bytes <= 9 * MIB


def test_what_is_not_there_or_empty_counts_nothing(tmp_path: Path) -> None:
    """A folder's weights are its safetensors, together."""
    (tmp_path / "empty").touch()
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"x" * 5000)

    assert (0, 0) == read_cached_bytes([tmp_path / "gone", tmp_path / "empty"])
    assert ["a.safetensors", "b.safetensors"] == [file.name for file in weights_files(tmp_path)]
    assert (10_000, 10_000) == read_cached_bytes(weights_files(tmp_path))
