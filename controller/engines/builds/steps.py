"""
The commands builds are made of, and the memory each may use.

Every step runs sealed: no network, read-only root, not root. What it writes lies in `/out`, temporary files too.
"""

from pathlib import PurePosixPath
from typing import Final

from controller.engines.base import WeightsHeader
from controller.engines.builds.quantization import Quantization
from controller.engines.builds.values import OUT_MOUNT, SOURCE_MOUNT, BuildStep
from controller.units import MIB

CONVERTER: Final = "transformers"
"""The engine whose image has torch, and with it whatever reads checkpoints."""
QUANTIZER: Final = "llama-cpp"
"""The engine whose image has the tools for GGUF."""

_PYTHON: Final = ("/opt/venv/bin/python", "-m", "builder")
_PYTHON_BYTES: Final = 640 * MIB
"""Python with torch and transformers, and the pages of their libraries."""
_TOOL_BYTES: Final = 96 * MIB
_VOCABULARY_ENTRY_BYTES: Final = 2048
"""Each entry of a tokenizer while it is converted: several dictionaries of text."""
_TENSOR_BYTES: Final = 12
"""Each weight of the largest matrix while it is worked on: as read, at 32 bits, and as written."""
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "2",
    "TMPDIR": str(OUT_MOUNT),
}


def convert(folder: PurePosixPath, out: PurePosixPath, *, stored: Quantization, header: WeightsHeader) -> BuildStep:
    """Make a GGUF of a checkpoint."""
    return BuildStep(
        title=f"convert the checkpoint to GGUF ({stored})",
        image=CONVERTER,
        argv=(*_PYTHON, "convert", "--checkpoint", str(folder), "--stored", stored.value, "--out", str(out)),
        memory_bytes=_python_bytes(header),
        env=_ENVIRONMENT,
    )


def merge(folder: PurePosixPath, adapters: tuple[PurePosixPath, ...], out: PurePosixPath, *, header: WeightsHeader) -> BuildStep:
    """Add adapters to a checkpoint's weights, and write another checkpoint."""
    named = tuple(part for adapter in adapters for part in ("--adapter", str(adapter)))
    return BuildStep(
        title="merge the adapter into the checkpoint",
        image=CONVERTER,
        argv=(*_PYTHON, "merge", "--checkpoint", str(folder), *named, "--out", str(out)),
        memory_bytes=_python_bytes(header),
        env=_ENVIRONMENT,
    )


def convert_adapter(adapter: PurePosixPath, base: PurePosixPath, out: PurePosixPath, *, weights_bytes: int) -> BuildStep:
    """Make a GGUF of an adapter for a model whose GGUF is *base*."""
    return BuildStep(
        title="convert the adapter to GGUF",
        image=CONVERTER,
        argv=(*_PYTHON, "adapter", "--adapter", str(adapter), "--base", str(base), "--out", str(out)),
        memory_bytes=_PYTHON_BYTES + 4 * weights_bytes,
        env=_ENVIRONMENT,
    )


def apply_adapter(base: PurePosixPath, adapter: PurePosixPath, out: PurePosixPath, *, header: WeightsHeader) -> BuildStep:
    """Add one adapter to the weights of a GGUF; the matrices it touches come out at sixteen bits."""
    return BuildStep(
        title="merge the adapter into the GGUF",
        image=QUANTIZER,
        argv=("/usr/local/bin/llama-export-lora", "--model", str(base), "--lora", str(adapter), "--output", str(out)),
        memory_bytes=_TOOL_BYTES + _tokenizer_bytes(header) + 2 * _TENSOR_BYTES * _largest(header),
    )


def quantize(source: PurePosixPath, out: PurePosixPath, *, stored: Quantization, header: WeightsHeader) -> BuildStep:
    """Store the weights of a GGUF another way."""
    return BuildStep(
        title=f"store the weights as {stored}",
        image=QUANTIZER,
        argv=("/usr/local/bin/llama-quantize", "--allow-requantize", str(source), str(out), stored.value),
        memory_bytes=_TOOL_BYTES + _tokenizer_bytes(header) + _TENSOR_BYTES * _largest(header),
    )


def in_source(path: PurePosixPath) -> PurePosixPath:
    """Say where a step sees a file of the source's folder."""
    return SOURCE_MOUNT / path


def in_out(name: str) -> PurePosixPath:
    """Say where a step writes a file of this name."""
    return OUT_MOUNT / name


def _largest(header: WeightsHeader) -> int:
    """Count the weights of the largest matrix."""
    return header.embedding_length * max(header.vocabulary, header.feed_forward_length)


def _tokenizer_bytes(header: WeightsHeader) -> int:
    return header.vocabulary * _VOCABULARY_ENTRY_BYTES


def _python_bytes(header: WeightsHeader) -> int:
    return _PYTHON_BYTES + _tokenizer_bytes(header) + _TENSOR_BYTES * _largest(header)
