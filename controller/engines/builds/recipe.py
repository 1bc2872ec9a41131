"""
Which steps lead from a source to what is wanted, or why none do.

    checkpoint ─┬─────────────> GGUF ─┬──────────────────> other quantisation
                └─ merge (PEFT) ─┘    └─ merge (GGUF) ─────┘
    checkpoint ── merge (PEFT) ──> checkpoint
    checkpoint ──────────────────> TensorRT engine, beside the checkpoint
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from controller.engines.base import WeightsHeader
from controller.engines.builds import edge_llm, llm_jetson, steps
from controller.engines.builds.quantization import Quantization, estimate_bytes, sixteen_bits
from controller.engines.builds.values import AdapterFormat, BuildRecipe, BuildStep, SourceDescription, Want
from controller.errors import ModelError
from controller.units import format_bytes

GGUF_NAME: Final = "model.gguf"
CHECKPOINT_NAME: Final = "model"
WORTHWHILE: Final = 0.95
"""A build that only stores weights anew must make them smaller than this share of what they are."""
_TOKENIZERS: Final = frozenset({"tokenizer.json", "tokenizer.model", "vocab.txt"})
_UNDONE: Final = frozenset({"bitnet", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4"})
"""Ways to quantise a checkpoint that the converter can undo."""
_FORMATS: Final = ("gguf", "safetensors")
_CONVERTED: Final = (Quantization.BF16, Quantization.F16, Quantization.Q8_0)
"""What the converter writes by itself."""


def recipe(source: SourceDescription, want: Want) -> BuildRecipe:
    """
    Plan the build.

    Raises:
        ModelError: this cannot be made of that, or need not be.

    """
    if source.header.format not in _FORMATS:
        raise ModelError(f"builds start from GGUF or safetensors, got {source.header.format!r}")
    match want.engine:
        case "llama-cpp":
            return _gguf(source, want.quantization or sixteen_bits(source.header))
        case "transformers":
            return _checkpoint(source, want.quantization)
        case "tensorrt-edge-llm":
            return edge_llm.recipe(source, want)
        case "tensorrt-llm-jetson":
            return llm_jetson.recipe(source, want)
        case _:
            raise ModelError(
                f"engine {want.engine!r} has no builds; wanted llama-cpp, transformers, tensorrt-edge-llm or tensorrt-llm-jetson"
            )


def _checkpoint(source: SourceDescription, quantization: Quantization | None) -> BuildRecipe:
    """Merge adapters into a checkpoint; that is all there is to build for `transformers`."""
    if source.header.format != "safetensors":
        raise ModelError("engine 'transformers' reads safetensors, and none can be made of a GGUF; use engine llama-cpp")
    if quantization is not None:
        raise ModelError(
            f"engine 'transformers' serves weights as they are stored, wanted {quantization}; "
            "remove `quantization`, or set `engine` to llama-cpp"
        )
    if not source.adapters:
        raise ModelError("the checkpoint is served as it is; there is nothing to build")
    for adapter in source.adapters:
        if adapter.format is not AdapterFormat.PEFT:
            raise ModelError(f"adapter {adapter.path} is a GGUF, and a checkpoint takes PEFT adapters; use engine llama-cpp")
    step = steps.merge(steps.in_source(PurePosixPath()), source.adapters, steps.in_out(CHECKPOINT_NAME))
    return BuildRecipe(
        engine="transformers",
        quantization=None,
        steps=(step,),
        output=PurePosixPath(CHECKPOINT_NAME),
        estimate_bytes=source.header.weights_bytes,
        scratch_bytes=0,
    )


def _gguf(source: SourceDescription, wanted: Quantization) -> BuildRecipe:
    _check_source(source, wanted)
    line = _Line(header=source.header, here=steps.in_source(source.weights))
    if source.header.format == "safetensors":
        _from_checkpoint(line, source, wanted)
    _apply_gguf_adapters(line, source)
    if line.stored is not wanted:
        line.add(steps.quantize(line.here, steps.in_out(GGUF_NAME), stored=wanted, header=source.header), at=GGUF_NAME)
    return BuildRecipe(
        engine="llama-cpp",
        quantization=wanted,
        steps=tuple(line.steps),
        output=PurePosixPath(line.here.name),
        estimate_bytes=estimate_bytes(source.header, wanted),
        scratch_bytes=line.scratch_bytes,
    )


def _check_source(source: SourceDescription, wanted: Quantization) -> None:
    header = source.header
    if header.format == "safetensors":
        if not _TOKENIZERS & source.files:
            raise ModelError("has no tokenizer.json or tokenizer.model, which a GGUF must hold; copy the whole checkpoint")
        kind, *method = header.quantization.split() or [""]
        if kind == "quant_method" and _UNDONE.isdisjoint(method[:1]):
            raise ModelError(
                f"llama.cpp's converter does not read weights that are quantised so ({header.quantization}); "
                "start from the original weights"
            )
        return
    size_bytes = estimate_bytes(header, wanted)
    if not source.adapters and size_bytes > WORTHWHILE * header.weights_bytes:
        raise ModelError(
            f"its weights take {format_bytes(header.weights_bytes)} and would take {format_bytes(size_bytes)} as {wanted}: "
            "more bits bring nothing back; remove `quantization`, or start from the original weights"
        )


@dataclass(slots=True, kw_only=True)
class _Line:
    """A build while it is planned: its steps, and where the weights are after the last of them."""

    header: WeightsHeader
    here: PurePosixPath
    steps: list[BuildStep] = field(default_factory=list)
    stored: Quantization | None = None
    scratch_bytes: int = 0

    def add(self, step: BuildStep, *, at: str, leaves_bytes: int = 0) -> None:
        self.steps.append(step)
        self.here = steps.in_out(at)
        self.scratch_bytes += leaves_bytes


def _from_checkpoint(line: _Line, source: SourceDescription, wanted: Quantization) -> None:
    """Merge what can be merged before, and convert: to what is wanted, if the converter writes it and nothing comes after."""
    header = source.header
    folder = steps.in_source(PurePosixPath())
    peft = tuple(adapter for adapter in source.adapters if adapter.format is AdapterFormat.PEFT)
    if peft:
        line.add(
            steps.merge(folder, peft, steps.in_out(CHECKPOINT_NAME)),
            at=CHECKPOINT_NAME,
            leaves_bytes=header.weights_bytes,
        )
        folder = line.here
    last = len(peft) == len(source.adapters) and wanted in _CONVERTED
    stored = wanted if last else sixteen_bits(header)
    name = GGUF_NAME if last else "converted.gguf"
    line.add(
        steps.convert(folder, steps.in_out(name), stored=stored, header=header),
        at=name,
        leaves_bytes=0 if last else estimate_bytes(header, stored),
    )
    line.stored = stored


def _apply_gguf_adapters(line: _Line, source: SourceDescription) -> None:
    """Apply the adapters that are left, one after the other."""
    header = source.header
    for number, adapter in enumerate(source.adapters):
        path = steps.in_source(adapter.path)
        if adapter.format is AdapterFormat.PEFT:
            if header.format == "safetensors":
                continue
            path = steps.in_out(f"adapter-{number}.gguf")
            line.steps.append(steps.convert_adapter(adapter, line.here, path, header=header))
            line.scratch_bytes += 2 * adapter.weights_bytes
        name = f"merged-{number}.gguf"
        line.add(
            steps.apply_adapter(line.here, path, steps.in_out(name), header=header),
            at=name,
            leaves_bytes=estimate_bytes(header, Quantization.BF16),
        )
        line.stored = None
