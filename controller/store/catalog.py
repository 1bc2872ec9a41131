"""
The model folders, read into specs and problems.

Each folder of `<home>/models` is a model. A folder that cannot be served is a problem with a sentence, and the others are served
all the same. What was read is kept under the names, sizes, times and modes of the folder's files, so that looking again at ten
thousand models costs their `stat` calls and nothing more.

Folders whose name starts with a dot are not looked at: copy a model to `.name` and rename it, and it appears whole or not at all.
A folder copied in place shows as a problem until its files are complete and have been left alone for a moment.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from controller import engines
from controller.config import Settings
from controller.engines.base import Engine
from controller.errors import ConfigError, ModelError
from controller.footprint import Measured, resolve
from controller.spec import GROUP_GID, WORKER_UID, Footprint, ModelName, ModelSpec
from controller.store.ledger import Ledger, LedgerKey
from controller.store.manifest import FILE_NAME, Manifest, read_manifest
from controller.store.weights import Weights, read_weights

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DEFAULT_CONTEXT_TOKENS: Final = 4096
ASSUMED_BYTES_PER_S: Final = 1_000_000_000
"""How fast weights are read, until a load was measured."""
ASSUMED_START_S: Final = 0.7
"""What a start takes beside that: the container and the engine."""
QUIET_S: Final = 1.0
"""Files changed later than this may still be being written."""
DEVICE: Final = "cpu"

_RELEVANT: Final = (".gguf", ".safetensors", ".json", ".jinja", ".toml", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WEIGHTS: Final = (".gguf", ".safetensors")
_NOT_OURS: Final = frozenset({"lost+found"})
"""What a file system puts at its root, should that be the models folder."""
_RESERVED: Final = frozenset({"auto"})
"""What a request says instead of a model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A folder that is not served, and what to do about it."""

    folder: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """
    Everything found in the models folder.

    Attributes:
        models: what can be served, by name.
        problems: what cannot, by folder.
        again_s: something is still being written: look again after this many seconds, even if nothing changes.

    """

    models: tuple[ModelSpec, ...] = ()
    problems: tuple[Problem, ...] = ()
    again_s: float | None = None


@dataclass(frozen=True, slots=True, order=True)
class _File:
    """One file of a folder, as far as it can be told without opening it."""

    name: str
    size: int
    changed_ns: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a folder said, before the ledger is asked."""

    manifest: Manifest
    weights: Weights
    weights_bytes: int
    digest: str
    engine: Engine
    context_tokens: int
    estimate: Footprint


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    files: tuple[_File, ...]
    outcome: "_Found | ModelError"


@dataclass(slots=True)
class _Sweep:
    """One pass over all folders, while it runs."""

    models: list[ModelSpec] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    unsettled: bool = False


class Scanner:
    """Reads the models folder, and remembers what it has read. One thread at a time."""

    def __init__(
        self, settings: Settings, ledger: Ledger | None = None, *, device: str = DEVICE, now: Callable[[], float] = time.time
    ) -> None:
        """
        Prepare to scan `<home>/models`.

        Raises:
            ConfigError: `[engines]` names an engine or an option that there is not.

        """
        self.folder = Path(settings.home) / "models"
        self._settings = settings
        self._ledger = ledger
        self._device = device
        self._now = now
        self._kept: dict[str, _Kept] = {}
        _check_engines(settings)

    def scan(self) -> Catalog:
        """Look at every folder and return what there is now; this never fails."""
        sweep = _Sweep()
        try:
            entries = sorted(os.scandir(self.folder), key=lambda entry: entry.name)
        except OSError as exc:
            return Catalog(problems=(Problem(folder="models", text=f"{self.folder}: {exc.strerror}; make the folder"),))
        clashes = _clashes(entry.name for entry in entries)
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in _NOT_OURS:
                self._visit(entry, clashes, sweep)
        self._kept = {name: kept for name, kept in self._kept.items() if name in sweep.seen}
        return Catalog(models=tuple(sweep.models), problems=tuple(sweep.problems), again_s=QUIET_S if sweep.unsettled else None)

    def _visit(self, entry: "os.DirEntry[str]", clashes: Mapping[str, str], sweep: _Sweep) -> None:
        try:
            if not _is_model_folder(entry, clashes):
                return
            sweep.seen.add(entry.name)
            found = self._look(Path(entry.path), sweep)
            sweep.models.append(self._spec(ModelName(entry.name), found))
        except ModelError as exc:
            sweep.problems.append(Problem(folder=_printable(entry.name), text=str(exc)))
        except OSError as exc:
            sweep.problems.append(Problem(folder=_printable(entry.name), text=f"cannot be read: {exc.strerror}; check its mode"))

    def _look(self, folder: Path, sweep: _Sweep) -> _Found:
        """Return what the folder says, from memory if none of its files has changed."""
        files = _files(folder)
        kept = self._kept.get(folder.name)
        if kept is None or kept.files != files:
            if self._is_moving(files):
                sweep.unsettled = True
                return _meanwhile(kept, files)
            kept = _Kept(files=files, outcome=self._read(folder, files))
            self._kept[folder.name] = kept
        if isinstance(kept.outcome, ModelError):
            raise kept.outcome
        return kept.outcome

    def _is_moving(self, files: tuple[_File, ...]) -> bool:
        # A time in the future says nothing: the clock was set back, or the file comes from another box.
        return any(0 <= self._now() - file.changed_ns / 1e9 < QUIET_S for file in files)

    def _read(self, folder: Path, files: tuple[_File, ...]) -> "_Found | ModelError":
        try:
            return self._read_folder(folder, files)
        except ModelError as exc:
            return exc

    def _read_folder(self, folder: Path, files: tuple[_File, ...]) -> _Found:
        manifest = read_manifest(folder)
        chosen = engines.find(manifest.engine) if manifest.engine else None
        names = tuple(file.name for file in files if file.name not in manifest.lora)
        weights = read_weights(folder, names, file=manifest.file, formats=chosen.formats if chosen else None)
        engine = chosen or engines.choose(weights.header.format)
        if weights.header.format not in engine.formats:
            raise ModelError(f"engine {engine.name!r} reads {', '.join(sorted(engine.formats))}, got {weights.header.format}")
        by_name = {file.name: file for file in files}
        _check_lora(manifest, engine, by_name)
        used = [by_name[name] for name in (*weights.files, *manifest.lora)]
        _check_readable(folder, files)
        context_tokens = _context(manifest, weights)
        estimate = engine.estimate(
            weights.header,
            context_tokens=context_tokens,
            parallel=manifest.parallel,
            options=self._settings.engine(engine.name).options,
        )
        return _Found(
            manifest=manifest,
            weights=weights,
            weights_bytes=sum(file.size for file in used),
            digest=_digest(used, weights),
            engine=engine,
            context_tokens=context_tokens,
            estimate=estimate,
        )

    def _spec(self, name: ModelName, found: _Found) -> ModelSpec:
        manifest, header = found.manifest, found.weights.header
        measured = self._measured(found)
        assumed_s = manifest.load_seconds or found.weights_bytes / ASSUMED_BYTES_PER_S + ASSUMED_START_S
        return ModelSpec(
            name=name,
            engine=found.engine.name,
            folder=PurePosixPath(self.folder / name),
            weights=found.weights.path,
            weights_bytes=found.weights_bytes,
            digest=found.digest,
            context_tokens=found.context_tokens,
            parallel=manifest.parallel,
            footprint=resolve(
                found.estimate, override_bytes=manifest.memory, measured=measured, context_tokens=found.context_tokens
            ),
            load_s=measured.load_s if measured and measured.load_s else assumed_s,
            api_paths=found.engine.api_paths(header),
            tier=manifest.tier,
            tags=frozenset(manifest.tags),
            pinned=manifest.pinned,
            priority=manifest.priority,
            chat=header.chat,
            tools=_tools(found),
            parameters=header.parameters,
            lora=tuple(PurePosixPath(name) for name in manifest.lora),
            description=manifest.description,
        )

    def _measured(self, found: _Found) -> Measured | None:
        if self._ledger is None:
            return None
        key = LedgerKey(
            engine=found.engine.name,
            image=self._settings.engine(found.engine.name).image,
            digest=found.digest,
            context_tokens=found.context_tokens,
            parallel=found.manifest.parallel,
            device=self._device,
        )
        return self._ledger.find(key)


def _check_engines(settings: Settings) -> None:
    problems: list[str] = []
    for name, engine_settings in settings.engines.items():
        try:
            problems.extend(engines.find(name).check_options(engine_settings.options))
        except ModelError as exc:
            problems.append(f"engines.{name}: {exc}")
    if problems:
        raise ConfigError(problems)


def _clashes(names: Iterable[str]) -> Mapping[str, str]:
    """Return, for every folder whose name another one has in other letters, that other one: the one that keeps the name."""
    first: dict[str, str] = {}
    clashing: dict[str, str] = {}
    # The name in lower case is the valid one, so it goes first and keeps its place.
    for name in sorted(names, key=lambda name: (name != name.lower(), name)):
        kept = first.setdefault(name.lower(), name)
        if kept != name:
            clashing[name] = kept
    return clashing


def _is_model_folder(entry: "os.DirEntry[str]", clashes: Mapping[str, str]) -> bool:
    name = entry.name
    if entry.is_symlink():
        raise ModelError("is a link: a worker sees nothing beyond its own folder; move the model here")
    if not entry.is_dir(follow_symlinks=False):
        if name.endswith(_WEIGHTS):
            raise ModelError("is a file beside the model folders; make a folder with the model's name and move it there")
        return False
    if name in clashes:
        raise ModelError(f"has the name of {clashes[name]!r} in other letters; rename one of them")
    if name in _RESERVED:
        raise ModelError(f"{name!r} in a request means that no model is named; rename the folder")
    if not NAME.fullmatch(name):
        raise ModelError("wanted a name of at most 63 lower-case letters, digits, '.', '_' and '-'; rename the folder")
    return True


def _files(folder: Path) -> tuple[_File, ...]:
    """Return the folder itself and those of its files that matter."""
    found = [_file(".", folder.stat())]
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(_RELEVANT):
                continue
            if entry.is_symlink() and not _stays_inside(folder, entry):
                raise ModelError(
                    f"{_printable(entry.name)} is a link out of the folder, where the worker cannot follow; copy the file"
                )
            if _printable(entry.name) != entry.name or "," in entry.name:
                raise ModelError(f"{_printable(entry.name)} has characters in its name that no file of a model needs; rename it")
            found.append(_file(entry.name, entry.stat()))
    return tuple(sorted(found))


def _file(name: str, status: os.stat_result) -> _File:
    # A folder's own time changes with every log or lock written into it; only its mode matters.
    folder = stat.S_ISDIR(status.st_mode)
    return _File(
        name,
        0 if folder else status.st_size,
        0 if folder else status.st_mtime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def _stays_inside(folder: Path, entry: "os.DirEntry[str]") -> bool:
    target = str(Path(entry.path).readlink())
    return "/" not in target and (folder / target).is_file() and not (folder / target).is_symlink()


def _meanwhile(kept: _Kept | None, files: tuple[_File, ...]) -> _Found:
    """Return what held before the folder began to change, if its weights are the same; a manifest is being edited, then."""
    if kept is not None and isinstance(kept.outcome, _Found):
        used = {*kept.outcome.weights.files, *map(str, kept.outcome.manifest.lora)}
        if {file for file in kept.files if file.name in used} <= set(files):
            return kept.outcome
    raise ModelError("is still being written; it is looked at again when its files have been left alone for a moment")


def _check_lora(manifest: Manifest, engine: Engine, files: Mapping[str, _File]) -> None:
    if manifest.lora and "gguf" not in engine.formats:
        raise ModelError(f"engine {engine.name!r} applies no adapters; merge them into the weights, and remove `lora`")
    for name in manifest.lora:
        if name not in files or not name.endswith(".gguf"):
            raise ModelError(f"{FILE_NAME} names {name!r} as an adapter, and there is no such .gguf file")


def _check_readable(folder: Path, files: Iterable[_File]) -> None:
    """Refuse what the worker's user could not open: it would fail at the start with a text that says less."""
    for file in files:
        wanted = 0o5 if file.name == "." else 0o4
        shift = 6 if file.uid == WORKER_UID else 3 if file.gid == GROUP_GID else 0
        if (file.mode >> shift) & wanted != wanted:
            path = folder if file.name == "." else folder / file.name
            raise ModelError(
                f"{'the folder' if file.name == '.' else file.name} cannot be read by the worker (user {WORKER_UID}, group "
                f"{GROUP_GID}): mode {stat.S_IMODE(file.mode):04o}; run `chmod o+rX {path}`"
            )


def _tools(found: _Found) -> bool:
    said = found.weights.header.tools if found.manifest.tools is None else found.manifest.tools
    return said and "tools" not in found.engine.refused_fields


def _context(manifest: Manifest, weights: Weights) -> int:
    longest = weights.header.context_tokens or DEFAULT_CONTEXT_TOKENS
    if manifest.context is not None and manifest.context > longest:
        raise ModelError(f"{FILE_NAME}: context: wanted at most the {longest} tokens it was trained for, got {manifest.context}")
    return manifest.context or min(longest, DEFAULT_CONTEXT_TOKENS)


def _digest(used: Iterable[_File], weights: Weights) -> str:
    digest = hashlib.sha256(weights.sha256.encode())
    for file in used:
        digest.update(f"\n{file.name} {file.size} {file.changed_ns}".encode())
    return digest.hexdigest()


def _printable(name: str) -> str:
    """Write a name so that it is one line of text, whatever bytes it is made of."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
