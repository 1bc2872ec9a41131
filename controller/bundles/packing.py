"""What a home has to give: a model's folder, and the engine files that were built of it."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.bundles.layout import MOST_PARTS, PART_BYTES, clash, name_problem, part_names, part_sizes
from controller.bundles.manifest import ENGINES, MODELS
from controller.errors import BundleError, BundleRefusedError, ModelError
from controller.store.engine_manifest import EngineManifest, read_manifest
from controller.store.folder import NAME, list_files, printable
from controller.store.manifest import read_manifest as read_model_manifest
from controller.store.planning import source_digests
from controller.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """
    A file to be packed, as it was when it was looked at.

    Attributes:
        name: what it is called in its folder.
        path: what is read: another name beside it where this one is a link.
        size_bytes: its size.
        changed_ns: when it was changed.

    """

    name: str
    path: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    A folder to be packed.

    Attributes:
        at: where it lies in the bundle, and in the home.
        folder: where it lies here.
        files: what is in it.
        engine: what an engine file's manifest says; `None` for a model.

    """

    at: str
    folder: Path
    files: tuple[SourceFile, ...]
    engine: EngineManifest | None = None

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    def part_paths(self, part_bytes: int) -> dict[str, int]:
        """Return where its parts will lie in the bundle, with their sizes."""
        return {
            f"{self.at}/{path}": size
            for file in self.files
            for sizes in (part_sizes(file.size_bytes, part_bytes),)
            for path, size in zip(part_names(file.name, len(sizes)), sizes, strict=True)
        }


def all_models(home: Path) -> tuple[str, ...]:
    """
    Return the names of all model folders.

    Raises:
        BundleError: there is no such folder.

    """
    try:
        return tuple(sorted(path.name for path in (home / MODELS).iterdir() if NAME.fullmatch(path.name) and path.is_dir()))
    except OSError as exc:
        raise BundleError(f"{home / MODELS}: cannot be read: {exc.strerror}; set WINDLASS_HOME") from exc


def find_sources(home: Path, models: Iterable[str], *, with_engine_files: bool) -> tuple[Source, ...]:
    """
    Return what is to be packed for these models, the engine files first.

    Raises:
        BundleError: something cannot be read.
        BundleRefusedError: there is no such model, or it has files that cannot be in a bundle.

    """
    packed = [model_source(home, name) for name in dict.fromkeys(models)]
    if not with_engine_files:
        return tuple(packed)
    known = list(engine_sources(home))
    wanted = {one.at: one for source in packed for one in _built_of(source, known)}
    return (*(wanted[at] for at in sorted(wanted)), *packed)


def model_source(home: Path, name: str) -> Source:
    """
    Return a model's folder.

    Raises:
        BundleError: it cannot be read.
        BundleRefusedError: there is none, or it has files that cannot be in a bundle.

    """
    folder = home / MODELS / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        there = ", ".join(all_models(home)) or "none"
        raise BundleRefusedError(f"wanted the model {name!r}, and {home / MODELS} has no such folder; there are: {there}")
    try:
        files = tuple(sorted(_walk(folder, ""), key=lambda file: file.name))
    except OSError as exc:
        raise BundleError(f"{exc.filename or folder}: cannot be read: {exc.strerror}; check its mode, or use sudo") from exc
    if not files:
        raise BundleRefusedError(f"{folder} is empty: wanted a model")
    _check_side_by_side(folder, files)
    return Source(at=f"{MODELS}/{name}", folder=folder, files=files)


def _walk(folder: Path, inside: str) -> Iterator[SourceFile]:
    """Yield every file but hidden ones; what is a link is the file it leads to, as long as that lies beside it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = inside + entry.name
            if entry.name.startswith("."):
                continue
            if problem := name_problem(name) if printable(name) == name else "wanted a name that is text":
                raise BundleRefusedError(f"{folder / printable(entry.name)}: {problem}; rename it")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{name}/")
                continue
            read = str(Path(entry.path).readlink()) if entry.is_symlink() else entry.name
            if "/" in read or (read != entry.name and (folder / read).is_symlink()):
                raise BundleRefusedError(f"{entry.path} is a link out of its folder, which no worker can follow; copy the file")
            found = entry.stat()
            if not stat.S_ISREG(found.st_mode):
                raise BundleRefusedError(f"{entry.path}: wanted plain files, got something else; remove it")
            if found.st_size > MOST_PARTS * PART_BYTES:
                raise BundleRefusedError(f"{entry.path} is larger than a bundle's file can be: {format_bytes(found.st_size)}")
            yield SourceFile(name=name, path=inside + read, size_bytes=found.st_size, changed_ns=found.st_mtime_ns)


def _check_side_by_side(folder: Path, files: Sequence[SourceFile]) -> None:
    parts = [path for file in files for path in part_names(file.name, len(part_sizes(file.size_bytes)))]
    for paths in ([file.name for file in files], parts):
        if (path := clash(paths)) is not None:
            raise BundleRefusedError(f"{folder / path} has another file's name in other letters, as a stick sees it; rename it")


def engine_sources(home: Path) -> Iterator[Source]:
    """Yield the engine files of a home; what is half made or spoilt is the controller's business, and none."""
    folders = sorted((home / ENGINES).glob("[!.]*")) if (home / ENGINES).is_dir() else []
    for folder in folders:
        try:
            manifest = read_manifest(folder)
            files = tuple(sorted(_walk(folder, ""), key=lambda file: file.name))
        except (OSError, ValueError, BundleRefusedError):
            continue
        if manifest.fingerprint == folder.name:
            yield Source(at=f"{ENGINES}/{folder.name}", folder=folder, files=files, engine=manifest)


def _built_of(model: Source, known: Iterable[Source]) -> Iterator[Source]:
    """Yield the engine files that were built of a model, of those that differ in their builder's version the newest."""
    digests = _digests(model.folder)
    newest: dict[str, Source] = {}
    for one in known:
        if one.engine is None or one.engine.source not in digests:
            continue
        rival = newest.get(one.engine.lineage)
        if rival is None or rival.engine is None or one.engine.built_at > rival.engine.built_at:
            newest[one.engine.lineage] = one
    yield from newest.values()


def _digests(folder: Path) -> frozenset[str]:
    try:
        return source_digests(folder, list_files(folder), read_model_manifest(folder))
    except (ModelError, OSError):
        return frozenset()  # nothing was ever built of what cannot be served
