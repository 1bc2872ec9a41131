"""
A folder whose engine is left to us: read for every engine, and settled by what is known of each.

What takes reading is done once, until the folder changes. Who wins is settled at every look, from what the ledger, the engine
files and the setbacks say then; but the speeds are those of the time when the folder was read, so that a model never changes its
engine in the middle of a run because one of two figures that are nearly the same has moved.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from controller import engines
from controller.engines.base import Engine
from controller.engines.choice import Box, Candidate, decide
from controller.errors import ModelError
from controller.footprint import Measured, resolve
from controller.spec import ApiPath, EngineChoice, ModelName
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.folder import File
from controller.store.ledger import Ledger
from controller.store.manifest import Manifest
from controller.store.planning import built_digest
from controller.store.reading import EngineRefusedError, Found, Reader
from controller.store.setbacks import Setbacks, setback_key
from controller.units import format_bytes

TOOLS: Final = "tools"
WANTED: Final[Mapping[str, ApiPath]] = {
    "chat": ApiPath.CHAT,
    "completions": ApiPath.COMPLETIONS,
    "embeddings": ApiPath.EMBEDDINGS,
}
"""Tags by which a manifest says what its model is there for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """
    What a folder says for every engine.

    Attributes:
        manifest: what its `model.toml` says.
        founds: the engines that can run it, and what each makes of it.
        refused: the engines that cannot, and why.
        tokens_per_s: what was measured of each when the folder was read.

    """

    manifest: Manifest
    founds: tuple[Found, ...]
    refused: Mapping[str, str]
    tokens_per_s: Mapping[str, float]

    @property
    def files(self) -> frozenset[str]:
        """The weights files that any of them would read."""
        return frozenset(name for found in self.founds for name in found.weights.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """
    Settles contests.

    Attributes:
        reader: reads folders.
        memory_bytes: all memory of the box.
        ledger: what was measured.
        shelf: the engine files there are.
        setbacks: which engines have failed with which models.
        has_image: whether an engine's image is on this box.

    """

    reader: Reader
    memory_bytes: int
    ledger: Ledger | None
    shelf: EngineFiles | None
    setbacks: Setbacks | None
    has_image: Callable[[str], bool]

    def read(self, folder: Path, files: tuple[File, ...], manifest: Manifest) -> Contest:
        """
        Read a folder for every engine.

        Raises:
            OSError: it cannot be read.

        """
        founds, refused = [], {}
        for engine in engines.ENGINES.values():
            try:
                found = self._read_for(engine, folder, files, manifest)
            except EngineRefusedError as exc:
                refused[engine.name] = exc.why
            except ModelError as exc:
                refused[engine.name] = str(exc)
            else:
                founds.append(found)
        speeds = {found.engine.name: self._speed(found) for found in founds}
        return Contest(manifest=manifest, founds=tuple(founds), refused=refused, tokens_per_s=speeds)

    def settle(self, model: ModelName, contest: Contest) -> tuple[Found, ...]:
        """
        Return what the folder is for the engine that wins, and after it those that could go on meanwhile, the best first.

        Raises:
            ModelError: no engine can run it.

        """
        refused = dict(contest.refused)
        founds = {}
        for found in contest.founds:
            if missing := self._missing_image(found):
                refused[found.engine.name] = missing
            else:
                founds[found.engine.name] = found
        box = Box(device=self.reader.device, memory_bytes=self.memory_bytes)
        candidates = [self._candidate(model, found, contest.tokens_per_s[name]) for name, found in founds.items()]
        embeds = any(found.weights.header.embeddings for found in contest.founds)
        decision = decide(candidates, refused=refused, box=box, embeds=embeds)
        winner, *rest = (founds[name] for name in decision.order)
        proven = {one.engine for one in candidates if one.proven}
        stand_ins = (
            replace(found, choice=_meanwhile(found.engine.name, winner.engine.name, decision.choice))
            for found in rest
            if found.engine.name in proven
        )
        return replace(winner, choice=decision.choice), *stand_ins

    def _read_for(self, engine: Engine, folder: Path, files: tuple[File, ...], manifest: Manifest) -> Found:
        if refusal := engine.refusal(self.reader.device):
            raise EngineRefusedError(engine.name, refusal)
        return self.reader.read(folder, files, manifest, engine)

    def _missing_image(self, found: Found) -> str:
        steps = found.plan.recipe.steps if found.plan and self._file(found) is None else ()
        for name in (found.engine.name, *(step.image for step in steps)):
            if not self.has_image(name):
                tag = self.reader.settings.engine(name).image
                return f"image {tag} is not on this box; run `make images`, then `make run`"
        return ""

    def _candidate(self, model: ModelName, found: Found, tokens_per_s: float) -> Candidate:
        name, key = found.engine.name, self._key(found)
        measured = self._measured(found)
        proven = measured is not None and measured.requests > 0
        return Candidate(
            engine=name,
            key=key,
            shortage="" if proven else self._shortage(found, measured),
            lacks=_lacks(found),
            tokens_per_s=tokens_per_s,
            proven=proven,
            setback=self.setbacks.find(model, name, key) if self.setbacks and not proven else None,
        )

    def _key(self, found: Found) -> str:
        """Return what a failure is remembered under: of what is to be built, before it is built as well as after."""
        digest = found.plan.key.fingerprint if found.plan else found.digest
        return setback_key(replace(self.reader.ledger_key(found), digest=digest))

    def _file(self, found: Found) -> EngineFile | None:
        return self.shelf.find(found.plan.key.fingerprint) if self.shelf and found.plan else None

    def _measured(self, found: Found) -> Measured | None:
        """Return what was measured of it as it would be served."""
        if self.ledger is None:
            return None
        if found.plan is None:
            return self.ledger.find(self.reader.ledger_key(found))
        file = self._file(found)
        beside = found.digest if found.plan.recipe.beside_source else ""
        served = replace(found, digest=built_digest(file, beside=beside)) if file else None
        return self.ledger.find(self.reader.ledger_key(served)) if served else None

    def _speed(self, found: Found) -> float:
        measured = self._measured(found)
        return measured.tokens_per_s if measured else 0.0

    def _shortage(self, found: Found, measured: Measured | None) -> str:
        manifest, plan = found.manifest, found.plan
        limit_bytes = self.reader.budget_bytes
        estimate = found.estimate
        if plan is not None:
            estimate = self.reader.estimate(found.engine, manifest, found.context_tokens, plan.header)
        needed = resolve(
            estimate,
            override_bytes=manifest.memory,
            gpu_override_bytes=manifest.gpu_memory,
            measured=measured,
            context_tokens=found.context_tokens,
        )
        if needed.total_bytes > limit_bytes:
            return f"needs {format_bytes(needed.total_bytes)}, and the budget is {format_bytes(limit_bytes)}"
        if plan is not None and self._file(found) is None:
            build_bytes = min(plan.recipe.memory_bytes, self.reader.settings.builds.memory or plan.recipe.memory_bytes)
            if build_bytes > limit_bytes:
                return f"needs {format_bytes(build_bytes)} to be built, and the budget is {format_bytes(limit_bytes)}"
        if self.reader.could_hold(needed, manifest):
            return ""
        return f"needs {format_bytes(needed.gpu_bytes)} on cards, more than they could ever hold of it"


def _meanwhile(engine: str, winner: str, choice: EngineChoice) -> EngineChoice:
    """Say why an engine serves although another one was chosen."""
    return EngineChoice(
        reason=f"it has answered here before, and goes on until {winner} can",
        key="",
        others=((winner, choice.reason), *(other for other in choice.others if other[0] != engine)),
    )


def _lacks(found: Found) -> str:
    """Say what the manifest asks for and this engine does not serve."""
    served = found.engine.api_paths(found.weights.header)
    missing = [f"{path.value}" for tag, path in WANTED.items() if tag in found.manifest.tags and path not in served]
    if (found.manifest.tools or TOOLS in found.manifest.tags) and not found.tools:
        missing.append("tools")
    if missing:
        return f"does not serve {', '.join(missing)}, and its manifest asks for that"
    if found.plan and not found.plan.recipe.beside_source and found.weights.header.quantization:
        return "could only serve it with its weights' own quantisation undone"
    return ""
