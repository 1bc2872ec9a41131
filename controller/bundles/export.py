"""
Pack models and their engine files into a folder.

Killed at any moment and begun again, it goes on: what lies there already is compared with its source and not written again. A
folder's files are named by the manifest when they are on the disk, so what was packed before stays good whatever happens.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller import __version__
from controller.bundles import claims
from controller.bundles.beneath import open_beneath
from controller.bundles.copying import SourceError, compare_and_write
from controller.bundles.layout import PART_BYTES, part_names, part_sizes
from controller.bundles.manifest import (
    Bundle,
    BundledFile,
    EngineItem,
    FilePart,
    Item,
    ModelItem,
    read_bundle,
    with_item,
    without,
    write_bundle,
)
from controller.bundles.packing import Source, SourceFile
from controller.bundles.reporting import Outcome, Progress, State
from controller.errors import BundleError, BundleRefusedError
from controller.store.digests import sync
from controller.units import MIB, format_bytes

SPARE_BYTES: Final = 16 * MIB
"""Left free for the manifest and what a file system needs for itself."""

_WRITE: Final = os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Packer:
    """
    Packs into one folder.

    Attributes:
        root: the bundle.
        progress: who is told how far it is.
        part_bytes: the largest file to be written.

    """

    root: Path
    progress: Progress
    part_bytes: int = PART_BYTES

    def pack(self, sources: Sequence[Source], *, dry_run: bool = False) -> tuple[Outcome, ...]:
        """
        Pack these folders beside what the bundle holds already.

        Raises:
            BundleError: something cannot be read or written, or changed meanwhile.
            BundleRefusedError: there is no room; nothing was changed.

        """
        bundle = self._known()
        self._check_room(sources)
        if dry_run:
            return tuple(self._foreseen(source, bundle) for source in sources)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with claims.claimed(self.root, "export"):
                outcomes = []
                for source in sources:
                    bundle, outcome = self._pack_one(source, bundle)
                    outcomes.append(outcome)
                return tuple(outcomes)
        except OSError as exc:
            raise BundleError(f"{exc.filename or self.root}: {exc.strerror}; mend that and run it again: it goes on") from exc

    def _known(self) -> Bundle:
        found = read_bundle(self.root) if self.root.is_dir() else None
        return found or Bundle(made_by=f"windlass {__version__}")

    def _foreseen(self, source: Source, bundle: Bundle) -> Outcome:
        named = dict(bundle.items()).get(source.at)
        state = State.COPIED if named is None else State.THERE if self._is_same(named, source) else State.REPLACED
        return Outcome(at=source.at, state=state, size_bytes=source.size_bytes)

    def _check_room(self, sources: Sequence[Source]) -> None:
        paths = {path: size for source in sources for path, size in source.part_paths(self.part_bytes).items()}
        missing_bytes = sum(max(0, size - _size(self.root / path)) for path, size in paths.items())
        existing = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.is_dir())
        free_bytes = shutil.disk_usage(existing).free
        if missing_bytes and missing_bytes + SPARE_BYTES > free_bytes:
            raise BundleRefusedError(
                f"{self.root}: wanted {format_bytes(missing_bytes + SPARE_BYTES)} of free disk, there are "
                f"{format_bytes(free_bytes)}; make room, or pack fewer models"
            )

    def _pack_one(self, source: Source, bundle: Bundle) -> tuple[Bundle, Outcome]:
        named = dict(bundle.items()).get(source.at)
        if named is not None and not self._is_same(named, source):
            bundle = without(bundle, [source.at])  # what it says of these files ends before they do
            write_bundle(self.root, bundle)
        self.progress.begin(source.at, source.size_bytes)
        item = _item(source, tuple(self._pack_file(source, file) for file in source.files))
        _check_engine_file(source, item)
        self._clear(source)
        changed = with_item(bundle, item)
        if changed != bundle:
            write_bundle(self.root, changed)
        state = State.THERE if named == item else State.COPIED if named is None else State.REPLACED
        return changed, Outcome(at=source.at, state=state, size_bytes=source.size_bytes)

    def _pack_file(self, source: Source, file: SourceFile) -> BundledFile:
        sizes = part_sizes(file.size_bytes, self.part_bytes)
        parts = []
        with open_beneath(source.folder, file.path) as reader:
            for name, size in zip(part_names(file.name, len(sizes)), sizes, strict=True):
                with open_beneath(self.root, f"{source.at}/{name}", _WRITE) as writer:
                    try:
                        sha256 = compare_and_write(reader, size, writer, moved=self.progress.moved)
                    except SourceError as exc:
                        raise _changed(source, file) from exc
                parts.append(FilePart(size_bytes=size, sha256=sha256))
        found = (source.folder / file.path).stat()
        if (found.st_size, found.st_mtime_ns) != (file.size_bytes, file.changed_ns):
            raise _changed(source, file)
        return BundledFile(name=file.name, changed_ns=file.changed_ns, parts=tuple(parts))

    def _is_same(self, item: Item, source: Source) -> bool:
        """Say whether names, sizes and times are those of the source; whether the bytes are, is seen when they are compared."""
        said = [(file.name, tuple(part.size_bytes for part in file.parts), file.changed_ns) for file in item.files]
        return said == [(file.name, part_sizes(file.size_bytes, self.part_bytes), file.changed_ns) for file in source.files]

    def _clear(self, source: Source) -> None:
        """Remove what an earlier export has left of other files, and see that every name is on the disk."""
        kept = set(source.part_paths(self.part_bytes))
        top = self.root / source.at
        for path in sorted(top.rglob("*"), reverse=True):
            inside = path.relative_to(self.root).as_posix()
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
                else:
                    sync(path)
            elif inside not in kept:
                path.unlink()
        for folder in (top, top.parent, self.root):
            sync(folder)


def _changed(source: Source, file: SourceFile) -> BundleError:
    return BundleError(f"{source.folder / file.path} was changed while it was packed; run it again when it is left alone")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _item(source: Source, files: tuple[BundledFile, ...]) -> ModelItem | EngineItem:
    name = source.folder.name
    if source.engine is None:
        return ModelItem(name=name, files=files)
    said = source.engine
    return EngineItem(
        name=name, model=said.model, engine=said.engine, quantization=said.quantization, device=said.device, files=files
    )


def _check_engine_file(source: Source, item: Item) -> None:
    """Refuse to pack what is not what its own manifest says."""
    if source.engine is None:
        return
    said = {entry.name: (entry.size_bytes, entry.sha256) for entry in source.engine.files}
    for file in item.files:
        wanted = said.get(file.name)
        if wanted and len(file.parts) == 1 and wanted != (file.size_bytes, file.parts[0].sha256):
            raise BundleError(
                f"{source.folder / file.name} is not what its manifest says; restart the controller, which has it built anew, "
                "or leave it out with --no-engine-files"
            )
