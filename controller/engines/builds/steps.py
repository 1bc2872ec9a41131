"""
The commands builds are made of, and the memory each may use.

Every step runs sealed: no network, read-only root, not root. What it writes lies in `/out`, temporary files too.
"""

from pathlib import PurePosixPath
from typing import Final

from controller.engines.base import SOURCE_MOUNT, WeightsHeader
from controller.engines.builds.quantization import Quantization
from controller.engines.builds.values import OUT_MOUNT, Adapter, BuildStep
from controller.units import MIB

CONVERTER: Final = "transformers"
"""The engine whose image has torch, and with it whatever reads checkpoints."""
QUANTIZER: Final = "llama-cpp"
"""The engine whose image has the tools for GGUF."""

_PYTHON: Final = ("/opt/venv/bin/python", "-m", "builder")
_PYTHON_BYTES: Final = 256 * MIB
"""Python with torch and transformers. Measured 181 MB."""
_TOOL_BYTES: Final = 64 * MIB
_VOCABULARY_ENTRY_BYTES: Final = 1024
"""Each entry of a tokenizer while it is converted: several dictionaries of text."""
_HEADER_ENTRY_BYTES: Final = 2560
"""Each entry of a tokenizer while a GGUF's header is read in Python. Measured 1.9 KiB."""
_CONVERTED_BYTES: Final = 9
"""Each weight of the largest matrix while it is converted: at 32 bits, as written, and once more. Measured 7.9."""
_QUANTIZED_BYTES: Final = 6.5
"""Each weight of the largest matrix while it is quantised: at 32 bits, and as written. Measured 4.8 on the way to 4 bits."""
_COPIED_BYTES: Final = 4
"""Each weight of the largest matrix while it is copied, as it was read. Measured 2, of a source of sixteen bits."""
_APPLIED_BYTES: Final = 24
"""Each weight of a matrix that an adapter changes: as read, three times at 32 bits, and as written, in buffers that double."""
_MERGED_BYTES: Final = 64 * MIB
"""A few rows at 32 bits. Measured 41 MB."""
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
        memory_bytes=_PYTHON_BYTES + header.vocabulary * _VOCABULARY_ENTRY_BYTES + _CONVERTED_BYTES * _largest(header),
        env=_ENVIRONMENT,
    )


def merge(folder: PurePosixPath, adapters: tuple[Adapter, ...], out: PurePosixPath) -> BuildStep:
    """Add PEFT adapters to a checkpoint's weights, and write another checkpoint."""
    named = tuple(part for adapter in adapters for part in ("--adapter", str(in_source(adapter.path))))
    return BuildStep(
        title="merge the adapter into the checkpoint",
        image=CONVERTER,
        argv=(*_PYTHON, "merge", "--checkpoint", str(folder), *named, "--out", str(out)),
        memory_bytes=_PYTHON_BYTES + _MERGED_BYTES + 4 * sum(adapter.weights_bytes for adapter in adapters),
        env=_ENVIRONMENT,
    )


def convert_adapter(adapter: Adapter, base: PurePosixPath, out: PurePosixPath, *, header: WeightsHeader) -> BuildStep:
    """Make a GGUF of a PEFT adapter for a model whose GGUF is *base*."""
    return BuildStep(
        title="convert the adapter to GGUF",
        image=CONVERTER,
        argv=(*_PYTHON, "adapter", "--adapter", str(in_source(adapter.path)), "--base", str(base), "--out", str(out)),
        memory_bytes=_PYTHON_BYTES + header.vocabulary * _HEADER_ENTRY_BYTES + 6 * adapter.weights_bytes,
        env=_ENVIRONMENT,
    )


def apply_adapter(base: PurePosixPath, adapter: PurePosixPath, out: PurePosixPath, *, header: WeightsHeader) -> BuildStep:
    """Add one adapter to the weights of a GGUF; the matrices it touches come out at sixteen bits."""
    return BuildStep(
        title="merge the adapter into the GGUF",
        image=QUANTIZER,
        argv=("/usr/local/bin/llama-export-lora", "--model", str(base), "--lora", str(adapter), "--output", str(out)),
        memory_bytes=_tool_bytes(header) + _COPIED_BYTES * _largest(header) + _APPLIED_BYTES * _largest_of_a_layer(header),
    )


def quantize(source: PurePosixPath, out: PurePosixPath, *, stored: Quantization, header: WeightsHeader) -> BuildStep:
    """Store the weights of a GGUF another way."""
    return BuildStep(
        title=f"store the weights as {stored}",
        image=QUANTIZER,
        argv=("/usr/local/bin/llama-quantize", "--allow-requantize", str(source), str(out), stored.value),
        memory_bytes=_tool_bytes(header) + int(_QUANTIZED_BYTES * _largest(header)),
    )


def in_source(path: PurePosixPath) -> PurePosixPath:
    """Say where a step sees a file of the source's folder."""
    return SOURCE_MOUNT / path


def in_out(name: str) -> PurePosixPath:
    """Say where a step writes a file of this name."""
    return OUT_MOUNT / name


def _largest(header: WeightsHeader) -> int:
    """Count the weights of the largest matrix."""
    return max(header.embedding_length * header.vocabulary, _largest_of_a_layer(header))


def _largest_of_a_layer(header: WeightsHeader) -> int:
    return header.embedding_length * max(header.feed_forward_length, header.heads * header.head_length)


def _tool_bytes(header: WeightsHeader) -> int:
    return _TOOL_BYTES + header.vocabulary * _VOCABULARY_ENTRY_BYTES
