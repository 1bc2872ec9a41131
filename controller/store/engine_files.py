"""
The engine files: what builds have made, each in a folder named by the fingerprint of everything it was made from.

    engines/<fingerprint>/            whole, synced, and as its manifest.json says
    engines/.building-<fingerprint>/  being made; whatever a crash leaves of it is removed at the next start
    engines/.quarantine-<...>/        did not match its manifest, and is never served

A folder comes into being by one rename after everything in it is on the disk, so half of one is never seen. Sizes are compared
whenever a file is looked up. Its SHA-256 is computed when it is made, and again whenever size, time or inode are not those of the
last time it matched; what has not been compared yet is not served.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from controller.errors import StoreError
from controller.spec import GROUP_GID, WORKER_UID
from controller.store import digests
from controller.store.database import Database
from controller.store.engine_manifest import FILE_NAME, EngineManifest, FileEntry, read_manifest, write_manifest
from controller.store.fingerprint import BuildKey

BUILDING: Final = ".building-"
QUARANTINE: Final = ".quarantine-"
OUT: Final = "out"
"""The folder of a build that its steps write into."""
_READABLE: Final = 0o644
_ENTERABLE: Final = 0o755
_OPEN_TO_GROUP: Final = 0o770


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """
    One engine file that is there, with the sizes its manifest says.

    Attributes:
        folder: where it lies; what an engine is given instead of the model's own folder.
        manifest: what it is and was made from.
        verified: its SHA-256 was compared since it was last changed.

    """

    folder: PurePosixPath
    manifest: EngineManifest
    verified: bool

    @property
    def fingerprint(self) -> str:
        """Which one it is."""
        return self.manifest.fingerprint

    @property
    def size_bytes(self) -> int:
        """What it takes of the disk."""
        return self.manifest.size_bytes


Stamp = tuple[int, int, int]
"""Size, time of change and inode of a file: while they stay, so does its content."""


class EngineFiles:
    """The store. Any thread may call it; the calls that hash or sync take long and hold no lock meanwhile."""

    def __init__(self, folder: Path, database: Database) -> None:
        """
        Know the folder; `recover` cleans it.

        Raises:
            StoreError: the database cannot be read.

        """
        self.folder = folder
        self._database = database
        self._lock = threading.Lock()
        self._manifests: dict[str, EngineManifest] = {}
        self._verified: dict[tuple[str, str], Stamp] = {}
        for fingerprint, name, *stamp in database.read(
            "SELECT fingerprint, name, size_bytes, changed_ns, inode FROM engine_files"
        ):
            self._verified[str(fingerprint), str(name)] = (int(stamp[0] or 0), int(stamp[1] or 0), int(stamp[2] or 0))

    # Looking.

    def find(self, fingerprint: str) -> EngineFile | None:
        """
        Return the engine file if it is there and has the sizes it should; one that has not is quarantined.

        One whose hash is still to be compared is returned as not verified, and must not be served.
        """
        folder = self.folder / fingerprint
        with self._lock:
            try:
                manifest = self._manifest(folder)
                stamps = {entry.name: _stamp(folder / entry.name) for entry in manifest.files}
            except FileNotFoundError:
                if folder.is_dir():
                    self._quarantine(fingerprint)
                return None
            except (OSError, ValueError):
                self._quarantine(fingerprint)
                return None
            if any(stamps[entry.name][0] != entry.size_bytes for entry in manifest.files):
                self._quarantine(fingerprint)
                return None
            verified = all(self._verified.get((fingerprint, name)) == stamp for name, stamp in stamps.items())
            return EngineFile(folder=PurePosixPath(folder), manifest=manifest, verified=verified)

    def find_older(self, key: BuildKey) -> EngineFile | None:
        """
        Return a file that differs from *key* in the images that made it and in nothing else.

        It is the newest of those that are verified, or, if none is, of those that are not.
        """
        older = [file for file in self.all() if file.manifest.lineage == key.lineage and file.fingerprint != key.fingerprint]
        return max(older, key=lambda file: (file.verified, file.manifest.built_at), default=None)

    def all(self) -> Sequence[EngineFile]:
        """Return every engine file that is there, in the order of their fingerprints."""
        found = (self.find(name) for name in sorted(self._names()) if not name.startswith("."))
        return [file for file in found if file is not None]

    def quarantined(self) -> Sequence[str]:
        """Return the names of the folders in quarantine."""
        return sorted(name for name in self._names() if name.startswith(QUARANTINE))

    def building_bytes(self, fingerprint: str) -> int:
        """Return how much has been written for a build so far."""
        return _tree_bytes(self.folder / (BUILDING + fingerprint))

    # Making.

    def begin(self, fingerprint: str) -> Path:
        """
        Make the empty folder that the steps of a build write into, and return it.

        Raises:
            StoreError: it cannot be made.

        """
        staging = self.folder / (BUILDING + fingerprint)
        try:
            shutil.rmtree(staging, ignore_errors=True)
            (staging / OUT).mkdir(parents=True)
            staging.chmod(_ENTERABLE)
            if os.geteuid() == 0:
                os.chown(staging / OUT, WORKER_UID, GROUP_GID)
            (staging / OUT).chmod(_OPEN_TO_GROUP)
        except OSError as exc:
            raise StoreError(f"wanted the folder {staging} for a build, got: {exc}; check the disk") from exc
        return staging / OUT

    def out(self, fingerprint: str) -> Path | None:
        """Return the folder a build writes into, if it has been begun."""
        found = self.folder / (BUILDING + fingerprint) / OUT
        return found if found.is_dir() else None

    def commit(self, key: BuildKey, output: PurePosixPath, *, model: str, seconds: float) -> EngineFile:
        """
        Take what a build has made: hash it, write its manifest, sync everything, and give it its name.

        Raises:
            StoreError: the output is missing or empty, or the disk does not take it; nothing is served then.

        """
        staging = self.folder / (BUILDING + key.fingerprint)
        try:
            kept = _keep(staging, output)
            entries = []
            for name in _files(kept):
                digests.sync(kept / name)
                entries.append(FileEntry(name=name, size_bytes=(kept / name).stat().st_size, sha256=digests.sha256(kept / name)))
            if not entries or not any(entry.size_bytes for entry in entries):
                raise StoreError(f"wanted {output} from the build of {model}, got nothing; see `windlass builds`")
            manifest = EngineManifest.of(key, model=model, files=tuple(entries), seconds=seconds)
            write_manifest(kept, manifest)
            digests.sync(kept)
            with self._lock:
                final = self.folder / key.fingerprint
                shutil.rmtree(final, ignore_errors=True)
                kept.rename(final)
                digests.sync(self.folder)
                self._manifests.pop(key.fingerprint, None)
            self._remember(manifest)
            shutil.rmtree(staging, ignore_errors=True)
        except OSError as exc:
            raise StoreError(f"wanted to keep the engine file of {model}, got: {exc}; check the disk's free space") from exc
        return EngineFile(folder=PurePosixPath(final), manifest=manifest, verified=True)

    def abandon(self, fingerprint: str) -> None:
        """Remove what a build has written so far."""
        shutil.rmtree(self.folder / (BUILDING + fingerprint), ignore_errors=True)

    def recover(self, *, keep: Iterable[str] = ()) -> int:
        """Remove what builds before this start have left half-made, but for those that still run; return how many."""
        kept = {BUILDING + fingerprint for fingerprint in keep}
        half_made = [name for name in self._names() if name.startswith(BUILDING) and name not in kept]
        for name in half_made:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return len(half_made)

    # Checking and removing.

    def verify(self, fingerprint: str) -> bool:
        """Compare the SHA-256 of a file with its manifest; one that differs is quarantined. Takes as long as reading it."""
        file = self.find(fingerprint)
        if file is None:
            return False
        folder = Path(file.folder)
        try:
            matches = all(digests.sha256(folder / entry.name) == entry.sha256 for entry in file.manifest.files)
        except OSError:
            matches = False
        if matches:
            self._remember(file.manifest)
        else:
            with self._lock:
                self._quarantine(fingerprint)
        return matches

    def remove(self, fingerprint: str) -> None:
        """Delete an engine file; it is gone under its name at once, whatever happens while its bytes are freed."""
        doomed = self.folder / (BUILDING + fingerprint + "-removed")
        with self._lock, contextlib.suppress(OSError):
            self._manifests.pop(fingerprint, None)
            (self.folder / fingerprint).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        self._forget(fingerprint)

    def remove_quarantined(self, name: str) -> None:
        """Delete a folder in quarantine."""
        if name.startswith(QUARANTINE):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []

    def _manifest(self, folder: Path) -> EngineManifest:
        known = self._manifests.get(folder.name)
        if known is None or not folder.is_dir():
            known = read_manifest(folder)
            if known.fingerprint != folder.name:
                raise ValueError(f"{folder / FILE_NAME} is the manifest of {known.fingerprint}")
            self._manifests[folder.name] = known
        return known

    def _quarantine(self, fingerprint: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        with contextlib.suppress(OSError):
            (self.folder / fingerprint).rename(self.folder / f"{QUARANTINE}{fingerprint}-{stamp}")
        self._manifests.pop(fingerprint, None)
        self._forget(fingerprint)

    def _remember(self, manifest: EngineManifest) -> None:
        folder = self.folder / manifest.fingerprint
        stamps: Mapping[str, Stamp] = {entry.name: _stamp(folder / entry.name) for entry in manifest.files}
        self._verified.update({(manifest.fingerprint, name): stamp for name, stamp in stamps.items()})
        with contextlib.suppress(StoreError):  # a full disk costs another comparison at the next start
            rows = [(manifest.fingerprint, name, *stamp) for name, stamp in stamps.items()]
            self._database.write("INSERT OR REPLACE INTO engine_files VALUES (?, ?, ?, ?, ?)", rows)

    def _forget(self, fingerprint: str) -> None:
        for key in [key for key in tuple(self._verified) if key[0] == fingerprint]:
            self._verified.pop(key, None)
        with contextlib.suppress(StoreError):
            self._database.write("DELETE FROM engine_files WHERE fingerprint = ?", [(fingerprint,)])


def _keep(staging: Path, output: PurePosixPath) -> Path:
    """Move what is kept of a build beside its scratch, closed to whoever made it, and return the folder that will get a name."""
    made, kept = staging / OUT / output, staging / "kept"
    if made.is_symlink() or not made.exists():
        raise StoreError(f"wanted {output} from the build, and it is not there")
    shutil.rmtree(kept, ignore_errors=True)
    if made.is_dir():
        made.rename(kept)
    else:
        kept.mkdir()
        made.rename(kept / output.name)
    for path in (kept, *kept.rglob("*")):
        if path != kept and (path.is_symlink() or not path.is_file()):
            raise StoreError(f"wanted plain files from the build, got {path.name}")
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        path.chmod(_ENTERABLE if path.is_dir() else _READABLE)
    return kept


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != FILE_NAME)


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _tree_bytes(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # the build may remove what it needs no longer
                total += (Path(where) / name).lstat().st_size
    return total
