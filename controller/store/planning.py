"""
Whether a model's folder wants an engine file built, which one, and why.

It does if its `model.toml` names a quantisation, if its engine does not read the format of its weights, if it names an adapter
that its engine cannot apply while it serves, or if its engine serves nothing but what was built for this very device.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from controller import engines
from controller.engines.base import Engine, Options, WeightsHeader
from controller.engines.builds import Adapter, AdapterFormat, BuildRecipe, Quantization, SourceDescription, Want, recipe
from controller.engines.builds.auto import Choice, best_fit
from controller.engines.builds.quantization import estimate_bytes
from controller.errors import ModelError
from controller.spec import Footprint
from controller.store.engine_files import EngineFile
from controller.store.fingerprint import BuildKey
from controller.store.folder import File
from controller.store.manifest import FILE_NAME, Manifest
from controller.store.weights import Weights, read_weights

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
SAME_SHARE: Final = 0.05
"""A GGUF whose size differs by less from what is wanted is stored so already."""
_LLAMA_CPP: Final = "llama-cpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What is to be built for a folder.

    Attributes:
        recipe: the steps.
        key: what the result depends on.
        reason: why it is this one, for people.
        header: what the result's header will say, as far as it can be told.
        servable: the source itself can be served until it is built, if it fits.

    """

    recipe: BuildRecipe
    key: BuildKey
    reason: str
    header: WeightsHeader
    servable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    What a plan depends on beside the folder.

    Attributes:
        images: the image of each engine, by tag.
        device: what is built for.
        limit_bytes: the memory that the model may need, for `auto`.
        gpu_limit_bytes: what it may need of one card beside that; 0 on a box without cards.
        estimate: the memory that a model with such a header needs.
        context_tokens: prompt and answer together, for one caller.
        options: the engine's options for this model.

    """

    images: Mapping[str, str]
    device: str
    limit_bytes: int
    estimate: Callable[[WeightsHeader], Footprint]
    gpu_limit_bytes: int = 0
    context_tokens: int = 0
    options: Options = field(default_factory=dict)


def source_formats(engine: Engine | None, names: Sequence[str]) -> frozenset[str] | None:
    """Return the formats the source may have: those the engine reads, and for `llama-cpp` a checkpoint where there is no GGUF."""
    if engine is None:
        return None
    if engine.name == _LLAMA_CPP and not any(name.endswith(".gguf") for name in names):
        return engine.formats | {"safetensors"}
    return engine.formats


def find_adapters(manifest: Manifest, files: Mapping[str, File]) -> tuple[Adapter, ...]:
    """
    Return the adapters that `model.toml` names.

    Raises:
        ModelError: there is no such adapter.

    """
    return tuple(_adapter(name, files) for name in manifest.lora)


def _adapter(name: str, files: Mapping[str, File]) -> Adapter:
    if name.endswith(".gguf") and name in files:
        return Adapter(path=PurePosixPath(name), format=AdapterFormat.GGUF, weights_bytes=files[name].size)
    folder = "" if name == ADAPTER_WEIGHTS else f"{name}/"
    if f"{folder}{ADAPTER_CONFIG}" in files and f"{folder}{ADAPTER_WEIGHTS}" in files:
        return Adapter(
            path=PurePosixPath(folder or "."), format=AdapterFormat.PEFT, weights_bytes=files[f"{folder}{ADAPTER_WEIGHTS}"].size
        )
    raise ModelError(
        f"{FILE_NAME} names {name!r} as an adapter; wanted a .gguf file, {ADAPTER_WEIGHTS!r} with {ADAPTER_CONFIG} beside it, "
        "or a folder with these two"
    )


def make_plan(
    *,
    folder: Path,
    manifest: Manifest,
    engine: Engine,
    weights: Weights,
    adapters: tuple[Adapter, ...],
    files: Sequence[File],
    terms: Terms,
) -> Plan | None:
    """
    Say what is to be built, or `None` if the folder is served as it is.

    Raises:
        ModelError: what is wanted cannot be built, or cannot be served.

    """
    header = weights.header
    read = header.format in engine.formats and all(one.format is AdapterFormat.GGUF for one in adapters)
    servable = read and not engine.only_built
    if header.format not in engine.formats and engine.name != _LLAMA_CPP:
        raise ModelError(f"engine {engine.name!r} reads {', '.join(sorted(engine.formats))}, got {header.format}")
    choice = _choose(manifest, engine, header, servable=servable, adapted=bool(adapters), terms=terms)
    if choice.quantization is None and servable:
        return None
    source = SourceDescription(
        header=header,
        weights=weights.path,
        files=frozenset(path.name for path in folder.iterdir()),
        adapters=adapters,
    )
    want = Want(
        engine=engine.name,
        quantization=choice.quantization,
        context_tokens=terms.context_tokens,
        parallel=manifest.parallel,
        options=terms.options,
    )
    planned = recipe(source, want)
    digest = _source_digest(weights, files, manifest)
    result_format = "gguf" if engine.name == _LLAMA_CPP else header.format
    return Plan(
        recipe=planned,
        key=BuildKey.of(planned, source=digest, images=terms.images, device=terms.device),
        reason=choice.reason,
        header=header if planned.beside_source else replace(header, format=result_format, weights_bytes=planned.estimate_bytes),
        servable=servable,
    )


def _choose(manifest: Manifest, engine: Engine, header: WeightsHeader, *, servable: bool, adapted: bool, terms: Terms) -> Choice:
    wanted = manifest.quantization
    if wanted == "auto" or (wanted is None and not servable and engine.name == _LLAMA_CPP):
        if engine.name != _LLAMA_CPP:
            return Choice(quantization=None, reason=f"auto: {engine.name} serves weights as they are stored")
        needed_bytes, limit_bytes = _room(header, terms)
        return best_fit(header, needed_bytes=needed_bytes, limit_bytes=limit_bytes, as_it_is=servable)
    if wanted is None:
        reason = f"{engine.name} serves what is built on this device" if engine.only_built else "the adapter is merged"
        return Choice(quantization=None, reason=reason)
    if servable and not adapted and _is_stored_so(header, wanted):
        return Choice(quantization=None, reason=f"{FILE_NAME} says {wanted}, and the weights are stored so")
    return Choice(quantization=wanted, reason=f"{FILE_NAME} says {wanted}")


def _room(header: WeightsHeader, terms: Terms) -> tuple[Callable[[WeightsHeader], int], int]:
    """Return what `auto` counts, and how much of it there may be: of a card where one holds the weights, else of the memory."""
    if terms.gpu_limit_bytes and terms.estimate(header).gpu_bytes:
        return lambda one: terms.estimate(one).gpu_bytes, terms.gpu_limit_bytes
    return lambda one: terms.estimate(one).total_bytes, terms.limit_bytes


def _is_stored_so(header: WeightsHeader, wanted: Quantization) -> bool:
    return abs(estimate_bytes(header, wanted) / max(1, header.weights_bytes) - 1) < SAME_SHARE


def source_digests(folder: Path, files: Sequence[File], manifest: Manifest) -> frozenset[str]:
    """Return what a folder is called in the engine files built of it: one name for each kind of weights that is read of it."""
    names = tuple(file.name for file in files if file.name not in manifest.lora and "/" not in file.name)
    found = set()
    for engine in engines.ENGINES.values():
        with contextlib.suppress(ModelError):
            weights = read_weights(folder, names, file=manifest.file, formats=source_formats(engine, names))
            found.add(_source_digest(weights, files, manifest))
    return frozenset(found)


def _source_digest(weights: Weights, files: Sequence[File], manifest: Manifest) -> str:
    """Identify the source: a GGUF by itself, a checkpoint by everything that may go into the result; adapters in both cases."""
    digest = hashlib.sha256(weights.sha256.encode())
    whole = weights.header.format == "safetensors"
    for file in files:
        folder, _, name = file.name.rpartition("/")
        is_adapter = file.name in manifest.lora or folder in manifest.lora or name.startswith("adapter_")
        if file.name in weights.files or is_adapter or (whole and file.name not in (".", FILE_NAME)):
            digest.update(f"\n{file.name} {file.size} {file.changed_ns}".encode())
    return digest.hexdigest()


def built_digest(file: EngineFile, *, beside: str = "") -> str:
    """Identify the weights of an engine file: by their content, since that is known, and by the source's digest *beside* it."""
    digest = hashlib.sha256(f"{file.fingerprint}{beside}".encode())
    for entry in file.manifest.files:
        digest.update(f"\n{entry.name} {entry.sha256}".encode())
    return digest.hexdigest()
