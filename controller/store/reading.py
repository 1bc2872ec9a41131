"""What one folder says, read for one engine: its weights, its adapters, and whether an engine file is to be built of it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller import engines
from controller.cards import could_hold, for_models
from controller.charges import Capacity, Cards
from controller.config import Settings
from controller.device import Device
from controller.engines.base import Engine, Options, WeightsHeader
from controller.errors import ModelError
from controller.spec import EngineChoice, Footprint
from controller.store.folder import File, check_readable
from controller.store.ledger import LedgerKey, options_text
from controller.store.manifest import FILE_NAME, Manifest
from controller.store.planning import Plan, Terms, find_adapters, make_plan, source_formats
from controller.store.weights import Weights, read_weights

DEFAULT_CONTEXT_TOKENS: Final = 4096


class EngineRefusedError(ModelError):
    """
    An engine says that it cannot run a model here.

    Attributes:
        why: its own sentence.

    """

    def __init__(self, engine: str, why: str) -> None:
        """Put the engine's name before what it says."""
        super().__init__(f"engine {engine!r} cannot run it here: {why}")
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder said, before the ledger is asked."""

    manifest: Manifest
    weights: Weights
    weights_bytes: int
    digest: str
    engine: Engine
    context_tokens: int
    estimate: Footprint
    plan: Plan | None
    choice: EngineChoice | None = None

    @property
    def applied(self) -> tuple[str, ...]:
        """The adapters that are applied while the source is served."""
        return _applied(self.manifest, self.plan)

    @property
    def tools(self) -> bool:
        """Whether it can call tools."""
        said = self.weights.header.tools if self.manifest.tools is None else self.manifest.tools
        return said and "tools" not in self.engine.refused_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """
    Reads folders.

    Attributes:
        settings: how models are run.
        device: the box they run on.
        budget_bytes: what all models may take together, for `quantization = "auto"`.

    """

    settings: Settings
    device: Device
    budget_bytes: int

    def read(self, folder: Path, files: tuple[File, ...], manifest: Manifest, engine: Engine | None) -> Found:
        """
        Read a folder for an engine, or for the one that its files are the choice of.

        Raises:
            ModelError: that engine cannot serve it, here or at all.
            OSError: it cannot be read.

        """
        names = tuple(file.name for file in files if file.name not in manifest.lora and "/" not in file.name)
        weights = read_weights(folder, names, file=manifest.file, formats=source_formats(engine, names))
        chosen = engine or engines.choose(weights.header.format)
        if refusal := chosen.refusal(self.device, weights.header):
            raise EngineRefusedError(chosen.name, refusal)
        by_name = {file.name: file for file in files}
        adapters = find_adapters(manifest, by_name)
        check_readable(folder, files)
        context_tokens = _context(manifest, weights)
        plan = make_plan(
            folder=folder,
            manifest=manifest,
            engine=chosen,
            weights=weights,
            adapters=adapters,
            files=files,
            terms=self._terms(chosen, manifest, context_tokens),
        )
        used = [by_name[str(name)] for name in (*weights.files, *_applied(manifest, plan))]
        return Found(
            manifest=manifest,
            weights=weights,
            weights_bytes=sum(file.size for file in used),
            digest=_digest(used, weights),
            engine=chosen,
            context_tokens=context_tokens,
            estimate=self.estimate(chosen, manifest, context_tokens, weights.header),
            plan=plan,
        )

    def estimate(self, engine: Engine, manifest: Manifest, context_tokens: int, header: WeightsHeader) -> Footprint:
        """Compute the memory that weights with this header would need."""
        options = self._options(engine, manifest)
        return engine.estimate(
            header, context_tokens=context_tokens, parallel=manifest.parallel, options=options, device=self.device
        )

    def could_hold(self, footprint: Footprint, manifest: Manifest) -> bool:
        """Say whether a model could ever be in memory here, on cards as well."""
        ram_bytes = min(manifest.memory or self.budget_bytes, self.budget_bytes)
        return could_hold(Capacity(ram_bytes=ram_bytes, cards=self._cards), footprint)

    @property
    def _cards(self) -> Cards:
        return for_models(self.device, budget_bytes=self.settings.gpu.budget, reserve_bytes=self.settings.gpu.reserve)

    def ledger_key(self, found: Found) -> LedgerKey:
        """Return what a measurement of it holds for."""
        return LedgerKey(
            engine=found.engine.name,
            image=self.settings.engine(found.engine.name).image,
            digest=found.digest,
            context_tokens=found.context_tokens,
            parallel=found.manifest.parallel,
            device=self.device.fingerprint,
            options=options_text(self._options(found.engine, found.manifest)),
        )

    def _terms(self, engine: Engine, manifest: Manifest, context_tokens: int) -> Terms:
        return Terms(
            images={name: self.settings.engine(name).image for name in engines.ENGINES},
            device=self.device.fingerprint,
            limit_bytes=manifest.memory or self.budget_bytes,
            gpu_limit_bytes=manifest.gpu_memory or max((room.size_bytes for room in self._cards), default=0),
            estimate=lambda header: self.estimate(engine, manifest, context_tokens, header),
            context_tokens=context_tokens,
            options=self._options(engine, manifest),
        )

    def _options(self, engine: Engine, manifest: Manifest) -> Options:
        options = {**self.settings.engine(engine.name).options, **manifest.options}
        if manifest.options and (problems := engine.check_options(options)):
            raise ModelError(f"{FILE_NAME}: {'; '.join(problems)}")
        return options


def _applied(manifest: Manifest, plan: Plan | None) -> tuple[str, ...]:
    return () if plan is not None and not plan.servable else manifest.lora


def _context(manifest: Manifest, weights: Weights) -> int:
    longest = weights.header.context_tokens or DEFAULT_CONTEXT_TOKENS
    if manifest.context is not None and manifest.context > longest:
        raise ModelError(f"{FILE_NAME}: context: wanted at most the {longest} tokens it was trained for, got {manifest.context}")
    return manifest.context or min(longest, DEFAULT_CONTEXT_TOKENS)


def _digest(used: Iterable[File], weights: Weights) -> str:
    digest = hashlib.sha256(weights.sha256.encode())
    for file in used:
        digest.update(f"\n{file.name} {file.size} {file.changed_ns}".encode())
    return digest.hexdigest()
