"""
The model folders, read into specs and problems.

Each folder of `<home>/models` is a model. A folder that cannot be served is a problem with a sentence, and the others are served
all the same. What was read is kept under the names, sizes, times and modes of the folder's files, so that looking again at ten
thousand models costs their `stat` calls and nothing more.

Folders whose name starts with a dot are not looked at: copy a model to `.name` and rename it, and it appears whole or not at all.
A folder copied in place shows as a problem until its files are complete and have been left alone for a moment.

A folder that wants an engine file built is an order beside, until the file is there and takes the place of the folder.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from controller import engines
from controller.config import Settings
from controller.device import NO_GPU, Device
from controller.engines.choice import AUTO
from controller.errors import ConfigError, ModelError
from controller.footprint import Measured, resolve
from controller.spec import ModelName, ModelSpec
from controller.store.contest import Contest, Judge
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.folder import NOT_OURS, File, find_clashes, is_model, list_files, printable
from controller.store.ledger import Ledger
from controller.store.manifest import Manifest, Stored, read_manifest
from controller.store.orders import Order
from controller.store.planning import Plan, built_digest
from controller.store.reading import Found, Reader
from controller.store.setbacks import Setbacks
from controller.store.weights import Weights, read_weights

ASSUMED_BYTES_PER_S: Final = 1_000_000_000
"""How fast weights are read, until a load was measured."""
ASSUMED_START_S: Final = 0.7
"""What a start takes beside that: the container and the engine."""
QUIET_S: Final = 1.0
"""Files changed later than this may still be being written."""
NO_LIMIT_BYTES: Final = 1 << 62


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
        orders: what models want built, built already or not.
        again_s: something is still being written: look again after this many seconds, even if nothing changes.

    """

    models: tuple[ModelSpec, ...] = ()
    problems: tuple[Problem, ...] = ()
    orders: tuple[Order, ...] = ()
    again_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    files: tuple[File, ...]
    outcome: Found | Contest | ModelError


@dataclass(slots=True)
class _Sweep:
    """One pass over all folders, while it runs."""

    models: list[ModelSpec] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    unsettled: bool = False


class Scanner:
    """Reads the models folder, and remembers what it has read. One thread at a time."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger | None = None,
        *,
        shelf: EngineFiles | None = None,
        budget_bytes: int = NO_LIMIT_BYTES,
        memory_bytes: int = NO_LIMIT_BYTES,
        device: Device = NO_GPU,
        setbacks: Setbacks | None = None,
        has_image: Callable[[str], bool] = lambda _: True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Prepare to scan `<home>/models`.

        Args:
            settings: how models are run.
            ledger: what was measured of them.
            shelf: the engine files there are; without it, none is taken to be there.
            budget_bytes: what all models may take together, for `quantization = "auto"`.
            memory_bytes: all memory of the box, for `engine = "auto"`.
            device: the box they run on.
            setbacks: which engines have failed with which models, for `engine = "auto"`.
            has_image: whether an engine's image is on this box, for the same.
            now: the wall clock.

        Raises:
            ConfigError: `[engines]` names an engine or an option that there is not.

        """
        self.folder = Path(settings.home) / "models"
        self._ledger = ledger
        self._shelf = shelf
        self._reader = Reader(settings=settings, device=device, budget_bytes=budget_bytes)
        self._judge = Judge(
            reader=self._reader,
            memory_bytes=memory_bytes,
            ledger=ledger,
            shelf=shelf,
            setbacks=setbacks,
            has_image=has_image,
        )
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._built: dict[str, Weights] = {}
        _check_engines(settings)

    def scan(self) -> Catalog:
        """Look at every folder and return what there is now; this never fails."""
        sweep = _Sweep()
        try:
            entries = sorted(os.scandir(self.folder), key=lambda entry: entry.name)
        except OSError as exc:
            return Catalog(problems=(Problem(folder="models", text=f"{self.folder}: {exc.strerror}; make the folder"),))
        clashes = find_clashes(entry.name for entry in entries)
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in NOT_OURS:
                self._visit(entry, clashes, sweep)
        self._kept = {name: kept for name, kept in self._kept.items() if name in sweep.seen}
        wanted = {order.fingerprint for order in sweep.orders}
        self._built = {fingerprint: weights for fingerprint, weights in self._built.items() if fingerprint in wanted}
        return Catalog(
            models=tuple(sweep.models),
            problems=tuple(sweep.problems),
            orders=tuple(sweep.orders),
            again_s=QUIET_S if sweep.unsettled else None,
        )

    def order(self, name: str, quantization: Stored | None = None) -> Order:
        """
        Say what building a model would be, as its manifest says or in another quantisation.

        Raises:
            ModelError: it cannot be built so, or it is stored so already.

        """
        folder = self.folder / name
        try:
            files = list_files(folder)
            manifest = read_manifest(folder)
            if quantization is not None:
                manifest = manifest.model_copy(update={"quantization": quantization})
            found, *_ = self._settle(ModelName(name), self._read_as(folder, files, manifest))
            if found.plan is None:
                raise ModelError(f"{name} need not be built for this: its weights are served as they are")
            return self._order(ModelName(name), found, found.plan)
        except OSError as exc:
            raise ModelError(f"{name} cannot be read: {exc.strerror}; check its mode") from exc

    def _visit(self, entry: "os.DirEntry[str]", clashes: Mapping[str, str], sweep: _Sweep) -> None:
        try:
            if not is_model(entry, clashes):
                return
            sweep.seen.add(entry.name)
            name = ModelName(entry.name)
            found, *stand_ins = self._settle(name, self._look(Path(entry.path), sweep))
            self._take(name, found, stand_ins, sweep)
        except ModelError as exc:
            sweep.problems.append(Problem(folder=printable(entry.name), text=str(exc)))
        except OSError as exc:
            sweep.problems.append(Problem(folder=printable(entry.name), text=f"cannot be read: {exc.strerror}; check its mode"))

    def _look(self, folder: Path, sweep: _Sweep) -> Found | Contest:
        """Return what the folder says, from memory if none of its files has changed."""
        files = list_files(folder)
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

    def _is_moving(self, files: tuple[File, ...]) -> bool:
        # A time in the future says nothing: the clock was set back, or the file comes from another box.
        return any(0 <= self._now() - file.changed_ns / 1e9 < QUIET_S for file in files)

    def _read(self, folder: Path, files: tuple[File, ...]) -> Found | Contest | ModelError:
        try:
            return self._read_as(folder, files, read_manifest(folder))
        except ModelError as exc:
            return exc

    def _read_as(self, folder: Path, files: tuple[File, ...], manifest: Manifest) -> Found | Contest:
        if manifest.engine == AUTO:
            return self._judge.read(folder, files, manifest)
        return self._reader.read(folder, files, manifest, engines.find(manifest.engine) if manifest.engine else None)

    def _settle(self, name: ModelName, said: Found | Contest) -> tuple[Found, ...]:
        """Return what is to be served, and after it what may go on until it can be."""
        return (said,) if isinstance(said, Found) else self._judge.settle(name, said)

    def _take(self, name: ModelName, found: Found, stand_ins: Sequence[Found], sweep: _Sweep) -> None:
        if found.plan is None:
            sweep.models.append(self._spec(name, found))
            return
        order = self._order(name, found, found.plan)
        if order.served is None:
            served = (self._servable(name, one) for one in stand_ins)
            order = replace(order, served=next((spec for spec in served if spec is not None), None))
        sweep.orders.append(order)
        if order.served is not None:
            sweep.models.append(order.served)

    def _servable(self, name: ModelName, found: Found) -> ModelSpec | None:
        """Describe what can be served of it at once, if anything can."""
        return self._spec(name, found) if found.plan is None else self._order(name, found, found.plan).served

    def _order(self, name: ModelName, found: Found, plan: Plan) -> Order:
        """Say what a folder wants built, and what is served of it meanwhile."""
        expected = replace(
            found,
            weights=replace(found.weights, header=plan.header),
            weights_bytes=plan.recipe.estimate_bytes + (found.weights_bytes if plan.recipe.beside_source else 0),
            estimate=self._reader.estimate(found.engine, found.manifest, found.context_tokens, plan.header),
        )
        order = Order(
            model=name,
            source=PurePosixPath(self.folder / name),
            key=plan.key,
            recipe=plan.recipe,
            reason=plan.reason,
            spec=self._spec(name, expected),
            file=self._shelf.find(plan.key.fingerprint) if self._shelf else None,
        )
        if order.file is not None and order.file.verified:
            spec = self._built_spec(name, found, order.file)
            return replace(order, spec=spec, served=spec)
        older = self._shelf.find_older(plan.key) if self._shelf and not plan.recipe.one_image else None
        if older is not None and older.verified:
            return replace(order, served=self._built_spec(name, found, older))
        order = replace(order, older=older)
        if plan.servable and self._reader.could_hold(found.estimate, found.manifest):
            return replace(order, served=self._spec(name, found))
        return order

    def _built_spec(self, name: ModelName, found: Found, file: EngineFile) -> ModelSpec:
        """Describe a model that is served from an engine file."""
        if found.plan is not None and found.plan.recipe.beside_source:
            return self._beside_spec(name, found, file)
        weights = self._built.get(file.fingerprint)
        if weights is None:
            names = tuple(entry.name for entry in file.manifest.files)
            weights = read_weights(Path(file.folder), names, formats=found.engine.formats)
            self._built[file.fingerprint] = weights
        built = replace(
            found,
            manifest=found.manifest.model_copy(update={"lora": ()}),
            weights=weights,
            weights_bytes=sum(entry.size_bytes for entry in file.manifest.files if entry.name in weights.files),
            digest=built_digest(file),
            estimate=self._reader.estimate(found.engine, found.manifest, found.context_tokens, weights.header),
        )
        return replace(self._spec(name, built), folder=file.folder)

    def _beside_spec(self, name: ModelName, found: Found, file: EngineFile) -> ModelSpec:
        """Describe a model whose engine file is served beside the source, which has the weights."""
        built = replace(
            found, weights_bytes=found.weights_bytes + file.size_bytes, digest=built_digest(file, beside=found.digest)
        )
        return replace(self._spec(name, built), folder=file.folder, source=PurePosixPath(self.folder / name))

    def _spec(self, name: ModelName, found: Found) -> ModelSpec:
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
            replicas=manifest.replicas,
            footprint=resolve(
                found.estimate,
                override_bytes=manifest.memory,
                gpu_override_bytes=manifest.gpu_memory,
                measured=measured,
                context_tokens=found.context_tokens,
            ),
            load_s=measured.load_s if measured and measured.load_s else assumed_s,
            api_paths=found.engine.api_paths(header),
            tier=manifest.tier,
            tags=frozenset(manifest.tags),
            pinned=manifest.pinned,
            priority=manifest.priority,
            chat=header.chat,
            tools=found.tools,
            parameters=header.parameters,
            lora=tuple(PurePosixPath(name) for name in found.applied),
            options=tuple(sorted(manifest.options.items())),
            description=manifest.description,
            choice=found.choice,
        )

    def _measured(self, found: Found) -> Measured | None:
        if self._ledger is None:
            return None
        return self._ledger.find(self._reader.ledger_key(found))


def _check_engines(settings: Settings) -> None:
    problems: list[str] = []
    for name, engine_settings in settings.engines.items():
        try:
            problems.extend(engines.find(name).check_options(engine_settings.options))
        except ModelError as exc:
            problems.append(f"engines.{name}: {exc}")
    if problems:
        raise ConfigError(problems)


def _meanwhile(kept: _Kept | None, files: tuple[File, ...]) -> Found | Contest:
    """Return what held before the folder began to change, if its weights are the same; a manifest is being edited, then."""
    if kept is not None and not isinstance(kept.outcome, ModelError):
        said = kept.outcome
        names = said.files if isinstance(said, Contest) else frozenset(said.weights.files)
        used = {*names, *map(str, said.manifest.lora)}
        if {file for file in kept.files if file.name in used} <= set(files):
            return said
    raise ModelError("is still being written; it is looked at again when its files have been left alone for a moment")
