"""Free pages for a load on a Jetson's GPU: made of other models' page cache, and of no more of it than needed."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from controller.free_pages import SPARE_BYTES, FreePages
from controller.probes.page_cache import drop_pages, read_cached_bytes, read_free_bytes
from controller.units import GIB, MIB
from tests.controller.rig import model

NEEDED_BYTES = 2 * GIB


class Cache:
    """A page cache with a GiB of each model in it."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def drop(self, files: Iterable[Path]) -> None:
        """Forget some files."""
        self.free_bytes += GIB * len(list(files))


@pytest.mark.parametrize(
    ("free_bytes", "dropped"),
    [
        (NEEDED_BYTES + SPARE_BYTES, []),
        (NEEDED_BYTES, ["a"]),
        (NEEDED_BYTES - GIB + SPARE_BYTES, ["a"]),
        (NEEDED_BYTES - GIB, ["a", "b"]),
        (0, ["a", "b", "c"]),
    ],
)
async def test_no_more_is_dropped_than_the_load_needs(free_bytes: int, dropped: list[str]) -> None:
    """In the order given, until there is enough; and when there is no more to drop, the load has to do with what there is."""
    cache = Cache(free_bytes)
    pages = FreePages(read_free=lambda: cache.free_bytes, drop=cache.drop)

    assert dropped == await pages.make(NEEDED_BYTES, [model(name) for name in "abc"])


async def test_the_real_page_cache_forgets_a_model(tmp_path: Path) -> None:
    """Of its weights nothing is left there, and of a file that nobody has asked about everything is."""
    named = {name: tmp_path / name / "model.gguf" for name in ("drop", "keep")}
    for file in named.values():
        file.parent.mkdir()
        file.write_bytes(os.urandom(4 * MIB))
        with file.open("rb") as written:
            os.fsync(written.fileno())
    spec = model("drop", folder=PurePosixPath(named["drop"].parent))

    await FreePages(read_free=lambda: 0).make(1, [spec])

    assert [(4 * MIB, 0), (4 * MIB, 4 * MIB)] == [read_cached_bytes([named[name]]) for name in ("drop", "keep")]


def test_what_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    """A model may leave in this moment."""
    drop_pages([tmp_path / "gone"])


@pytest.mark.parametrize(("text", "free_bytes"), [("MemTotal: 9 kB\nMemFree:  2048 kB\nMemAvailable: 7 kB\n", 2 * MIB), ("", 0)])
def test_free_memory_is_what_holds_nothing(tmp_path: Path, text: str, free_bytes: int) -> None:
    """Not what is available, which is more."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(text)

    assert free_bytes == read_free_bytes(root=tmp_path)
