"""
Tells when the models folder has changed, by what the kernel reports and, in case it reports nothing, by looking now and then.

Changes come in bursts, as a copy does: the folder is scanned when it has been quiet for a moment, and no later than
`LONGEST_BURST_S` after the first change, so that one model being copied for an hour does not hide the others.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from controller.store.catalog import QUIET_S, Catalog, Scanner

RESYNC_S: Final = 60.0
"""How often to look when nothing is reported; a file system that reports nothing is seen this late."""
LONGEST_BURST_S: Final = 10.0
_CHANGES: Final[list[type[FileSystemEvent]]] = [
    *(DirCreatedEvent, DirDeletedEvent, DirModifiedEvent, DirMovedEvent),
    *(FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent, FileClosedEvent),
]
"""What the kernel is asked to report. Not that a file was opened or read: a scan does that to every model, and with thousands of
them its own reports would overflow the kernel's queue, which means another scan."""

log = structlog.get_logger(__name__)


class Watcher:
    """Yields the catalog whenever it differs from the one before. For one consumer, on one event loop."""

    def __init__(self, scanner: Scanner, *, quiet_s: float = QUIET_S, resync_s: float = RESYNC_S) -> None:
        """Watch the folder of *scanner*; nothing happens before `catalogs` is iterated."""
        self._scanner = scanner
        self._quiet_s = quiet_s
        self._resync_s = resync_s
        self._changed = asyncio.Event()
        self._at_once = asyncio.Event()

    def poke(self) -> None:
        """Scan at once: the ledger has learnt something, or somebody asked."""
        self._at_once.set()
        self._changed.set()

    async def catalogs(self) -> AsyncIterator[Catalog]:
        """Yield the catalog as it is now, then every one that differs from the last."""
        with _observed(self._scanner.folder, self._changed):
            last: Catalog | None = None
            while True:
                self._at_once.clear()
                self._changed.clear()
                catalog = await asyncio.to_thread(self._scanner.scan)
                if catalog != last:
                    last = catalog
                    yield catalog
                await self._quiet_after_change(catalog.again_s or self._resync_s)

    async def changes(self) -> AsyncIterator[None]:
        """Yield whenever the catalog may have changed, for those who scan themselves."""
        with _observed(self._scanner.folder, self._changed):
            while True:
                self._at_once.clear()
                self._changed.clear()
                await self._quiet_after_change(self._resync_s)
                yield None

    async def _quiet_after_change(self, longest_s: float) -> None:
        """Return when something has changed and then nothing for a moment, or when it is time to look anyway."""
        if not await _within(self._changed, longest_s):
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LONGEST_BURST_S
        while self._changed.is_set() and not self._at_once.is_set() and loop.time() < deadline:
            self._changed.clear()
            await _within(self._changed, self._quiet_s)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class _Notifier(FileSystemEventHandler):
    """Carries a change from the observer's thread to the event loop."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()

    def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002  # whatever it was, the folder is scanned
        """Set the event."""
        # The loop may close while the observer's thread still ends.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)


@contextlib.contextmanager
def _observed(folder: Path, changed: asyncio.Event) -> Iterator[None]:
    observer = Observer()
    try:
        observer.schedule(_Notifier(changed), str(folder), recursive=True, event_filter=_CHANGES)
        observer.start()
    except OSError as exc:
        # Too many folders for the kernel's watches, or no folder yet: looking now and then finds it all the same.
        log.warning("catalog.not_watched", folder=str(folder), reason=str(exc))
        yield
        return
    try:
        yield
    finally:
        observer.stop()
        observer.join(timeout=2)
