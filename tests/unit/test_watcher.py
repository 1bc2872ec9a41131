"""The watcher: a catalog for every change, one for a burst of them, and none for nothing."""

import asyncio
import contextlib
import re
import time
from pathlib import Path, PurePosixPath

from controller.config import Settings
from controller.store.catalog import Catalog, Scanner
from controller.store.watcher import Watcher
from tests.checkpoints import write_gguf_folder

SOON_S = 20.0
READING = 0x01 | 0x10 | 0x20
"""inotify(7): accessed, closed after reading, opened."""


def _reports() -> set[int]:
    """Return what this process has asked the kernel to report, as the kernel itself shows it (proc(5), fdinfo)."""
    found: set[int] = set()
    for entry in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(mask, 16) for mask in re.findall(r"^inotify .* mask:([0-9a-f]+)", entry.read_text(), re.M)}
    return found


def _watcher(home: Path, *, resync_s: float = 3600.0) -> Watcher:
    scanner = Scanner(Settings(home=PurePosixPath(home)), now=lambda: time.time() + 3600)
    return Watcher(scanner, quiet_s=0.02, resync_s=resync_s)


def _names(catalog: Catalog) -> list[str]:
    return [model.name for model in catalog.models]


async def test_first_catalog_comes_at_once(tmp_path: Path) -> None:
    """What is there when watching starts needs no change to be seen."""
    write_gguf_folder(tmp_path / "models", "a")
    catalogs = _watcher(tmp_path).catalogs()

    assert ["a"] == _names(await asyncio.wait_for(anext(catalogs), SOON_S))
    await catalogs.aclose()


async def test_folder_that_appears_and_goes_is_seen(tmp_path: Path) -> None:
    """A model moved in is served, and one moved out is not."""
    (tmp_path / "models").mkdir()
    write_gguf_folder(tmp_path, "b")
    catalogs = _watcher(tmp_path).catalogs()
    seen = [_names(await asyncio.wait_for(anext(catalogs), SOON_S))]
    (tmp_path / "b").rename(tmp_path / "models/b")
    seen.append(_names(await asyncio.wait_for(anext(catalogs), SOON_S)))
    (tmp_path / "models/b").rename(tmp_path / "b")
    seen.append(_names(await asyncio.wait_for(anext(catalogs), SOON_S)))

    assert [[], ["b"], []] == seen
    await catalogs.aclose()


async def test_change_inside_a_folder_is_seen(tmp_path: Path) -> None:
    """A manifest that is edited changes the catalog."""
    folder = write_gguf_folder(tmp_path / "models", "a")
    catalogs = _watcher(tmp_path).catalogs()
    await asyncio.wait_for(anext(catalogs), SOON_S)
    (folder / "model.toml").write_text("priority = 3")

    assert [3] == [model.priority for model in (await asyncio.wait_for(anext(catalogs), SOON_S)).models]
    await catalogs.aclose()


async def test_folder_that_cannot_be_watched_is_looked_at(tmp_path: Path) -> None:
    """Where the kernel reports nothing, as for a folder that is made later, looking now and then finds it."""
    catalogs = _watcher(tmp_path, resync_s=0.01).catalogs()
    first = await asyncio.wait_for(anext(catalogs), SOON_S)
    write_gguf_folder(tmp_path / "models", "a")
    found = await asyncio.wait_for(anext(catalogs), SOON_S)
    while not found.models:
        found = await asyncio.wait_for(anext(catalogs), SOON_S)

    assert ([], ["a"]) == (_names(first), _names(found))
    await catalogs.aclose()


async def test_poke_looks_at_once(tmp_path: Path) -> None:
    """Whoever knows of a change need not wait for the kernel to tell."""
    catalogs = (watcher := _watcher(tmp_path)).catalogs()
    await asyncio.wait_for(anext(catalogs), SOON_S)
    write_gguf_folder(tmp_path / "models", "a")
    watcher.poke()

    assert ["a"] == _names(await asyncio.wait_for(anext(catalogs), SOON_S))
    await catalogs.aclose()


async def test_changes_are_told_to_those_who_look_themselves(tmp_path: Path) -> None:
    """Without a catalog in between, a change is still one event."""
    (tmp_path / "models").mkdir()
    changes = (watcher := _watcher(tmp_path)).changes()
    told = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    watcher.poke()

    assert await asyncio.wait_for(told, SOON_S) is None
    await changes.aclose()


async def test_reading_a_model_is_no_change(tmp_path: Path) -> None:
    """The kernel reports nothing of what a scan does itself: thousands of models would fill its queue, and be scanned again."""
    write_gguf_folder(tmp_path / "models", "a")
    before = _reports()
    catalogs = _watcher(tmp_path).catalogs()
    await asyncio.wait_for(anext(catalogs), SOON_S)
    asked = _reports() - before

    assert asked
    assert not [mask for mask in asked if mask & READING]
    await catalogs.aclose()
