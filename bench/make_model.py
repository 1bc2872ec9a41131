"""
Makes models to measure with: `python -m bench.make_model --shape qwen2-0.5b --dtype q8_0 --out models/big`.

The files have the shape, the size and the metadata of the published models, a tokenizer that works, and random weights. What they
write is nonsense, but they load, fill memory and decode exactly as fast as the real ones, and any number of different ones can be
made without a download.

The weights come from one random pool per seed, some megabytes large and already in the form of the file, of which every tensor
takes pieces at random places. So a file is made about as fast as the disk takes it, in a memory of a few dozen megabytes.
The block formats are those of ggml (`block_q8_0` and `block_q4_0` in `ggml-common.h`), packed by the `gguf` package.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import gguf
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from bench.shapes import BLOCK_BYTES, SHAPES, Dtype, Shape, Tensor, stored_as
from bench.vocabulary import Vocabulary

_TOKENIZER: Final = Path(__file__).parent.parent / "images/windlass-mini/safetensors/tokenizer.json"
_POOL_VALUES: Final = 4 * 1024 * 1024
_POOL_COLUMNS: Final = 1024
_WEIGHT_STD: Final = 0.02
_PIECE_BYTES: Final = 4 * 1024 * 1024
_GGML: Final = {
    Dtype.BF16: gguf.GGMLQuantizationType.BF16,
    Dtype.Q8_0: gguf.GGMLQuantizationType.Q8_0,
    Dtype.Q4_0: gguf.GGMLQuantizationType.Q4_0,
}
_FILE_TYPE: Final = {
    Dtype.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    Dtype.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    Dtype.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
}


class MakeError(Exception):
    """A model could not be made; the text says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    What model to make.

    Attributes:
        shape_name: a key of `SHAPES`.
        dtype: how the matrices are stored.
        folder: the model's folder; it must not exist yet.
        name: the model's name, and that of its GGUF.
        seed: models of one shape and different seeds differ in every tensor.
        as_safetensors: write a transformers checkpoint instead of a GGUF.

    """

    shape_name: str
    dtype: Dtype
    folder: Path
    name: str
    seed: int = 1
    as_safetensors: bool = False

    @property
    def shape(self) -> Shape:
        """Return the shape of that name."""
        return SHAPES[self.shape_name]


class Pool:
    """Random weights, ready to be written, of which tensors take pieces."""

    def __init__(self, *, seed: int, parameters: int) -> None:
        self._chance = np.random.default_rng(seed)
        rows = min(_POOL_VALUES, parameters) // _POOL_COLUMNS + 1
        self._values = self._chance.standard_normal((rows, _POOL_COLUMNS), dtype=np.float32) * np.float32(_WEIGHT_STD)
        self._packed: dict[Dtype, bytes] = {}

    def matrix(self, count_bytes: int, dtype: Dtype) -> Iterator[memoryview]:
        """Yield pieces that together are `count_bytes` long, each from a random block of the pool."""
        if dtype not in self._packed:
            self._packed[dtype] = gguf.quants.quantize(self._values, _GGML[dtype]).tobytes()
        pool, block_bytes = memoryview(self._packed[dtype]), BLOCK_BYTES[dtype]
        while count_bytes:
            start = int(self._chance.integers(len(pool) // block_bytes)) * block_bytes
            piece = pool[start : start + min(count_bytes, _PIECE_BYTES)]
            count_bytes -= len(piece)
            yield piece

    def vector(self, tensor: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        """Return a bias of zeros, or a norm's gains: one, give or take a little."""
        if tensor.name.endswith("bias"):
            return np.zeros(tensor.columns, dtype=np.float32)
        return 1 + self._chance.standard_normal(tensor.columns, dtype=np.float32) * np.float32(_WEIGHT_STD)


def make(order: Order, report: Callable[[int], None] = lambda _: None) -> Path:
    """
    Make the model and return its weights file.

    The folder appears under its name only when it is complete.

    Args:
        order: what to make.
        report: hears how many bytes were written since it was last called.

    Raises:
        MakeError: the folder exists, the disk is too small, or the vocabulary is missing.

    """
    if order.folder.exists():
        raise MakeError(f"{order.folder} exists already; give another --out, or remove it first")
    if not _TOKENIZER.exists():
        raise MakeError(f"{_TOKENIZER} is missing: its vocabulary goes into every model; train it with bench.train_mini")
    order.folder.parent.mkdir(parents=True, exist_ok=True)
    wanted_bytes, free_bytes = expected_bytes(order), shutil.disk_usage(order.folder.parent).free
    if wanted_bytes > free_bytes:
        raise MakeError(f"the model takes {wanted_bytes:,} bytes and {order.folder.parent} has {free_bytes:,} free; make room")
    partial = order.folder.with_name(f".{order.folder.name}.{os.getpid()}.part")
    partial.mkdir()
    try:
        write = _write_safetensors if order.as_safetensors else _write_gguf
        file = write(order, partial, report)
        partial.rename(order.folder)
    except OSError as error:
        raise MakeError(f"writing {order.folder} failed: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return order.folder / file


def expected_bytes(order: Order) -> int:
    """Return how many bytes the weights alone take."""
    return sum(
        tensor.columns * 4
        if tensor.is_vector and not order.as_safetensors
        else tensor.count_bytes(stored_as(tensor, order.dtype))
        for tensor in order.shape.tensors()
    )


def _write_gguf(order: Order, folder: Path, report: Callable[[int], None]) -> str:
    shape, path = order.shape, folder / f"{order.name}.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name(order.name)
    writer.add_description(f"random weights, seed {order.seed}: made to measure with")
    writer.add_file_type(_FILE_TYPE[order.dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    Vocabulary.read(_TOKENIZER).stretched(shape.vocab).add_to(writer)
    for tensor in shape.tensors():
        _announce(writer, tensor, order.dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    pool = Pool(seed=order.seed, parameters=shape.parameters)
    with path.open("ab") as file:
        _pad(file)
        for tensor in shape.tensors():
            _append(file, tensor, pool, stored_as(tensor, order.dtype), report)
            _pad(file)
        os.fsync(file.fileno())
    return path.name


def _announce(writer: gguf.GGUFWriter, tensor: Tensor, dtype: Dtype) -> None:
    if tensor.is_vector:
        writer.add_tensor_info(tensor.name, (tensor.columns,), np.dtype(np.float32), tensor.columns * 4)
        return
    stored = stored_as(tensor, dtype)
    size = tensor.count_bytes(stored)
    writer.add_tensor_info(tensor.name, (tensor.rows, tensor.columns), np.dtype(np.float16), size, _GGML[stored])


def _append(file: BinaryIO, tensor: Tensor, pool: Pool, dtype: Dtype, report: Callable[[int], None]) -> None:
    if tensor.is_vector:
        report(file.write(pool.vector(tensor).tobytes()))
        return
    for piece in pool.matrix(tensor.count_bytes(dtype), dtype):
        report(file.write(piece))


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def _write_safetensors(order: Order, folder: Path, report: Callable[[int], None]) -> str:
    """Write a checkpoint: the length of the header, the header as JSON, then the tensors, as the safetensors format says."""
    shape = order.shape
    vocabulary = Vocabulary.read(_TOKENIZER).stretched(shape.vocab)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in shape.tensors():
        start, end = end, end + tensor.count_bytes(Dtype.BF16)
        dimensions = [tensor.columns] if tensor.is_vector else [tensor.rows, tensor.columns]
        header[tensor.twin] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pool = Pool(seed=order.seed, parameters=shape.parameters)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in shape.tensors():
            if tensor.is_vector:
                packed = gguf.quants.quantize(pool.vector(tensor).reshape(1, -1), _GGML[Dtype.BF16])
                report(file.write(packed.tobytes()))
            else:
                _append(file, tensor, pool, Dtype.BF16, report)
        os.fsync(file.fileno())
    vocabulary.write_for_transformers(folder, shape.context)
    (folder / "config.json").write_text(json.dumps(_config(shape) | vocabulary.ids(), indent=2) + "\n")
    return "model.safetensors"


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
    }


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, make the model, say what was made; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.make_model", description="Make a model of random weights to measure with."
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), required=True)
    parser.add_argument("--dtype", choices=tuple(map(str, Dtype)), default=str(Dtype.BF16))
    parser.add_argument("--format", choices=("gguf", "safetensors"), default="gguf")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model's own folder; must not exist yet")
    parser.add_argument("--name", help="the model's name and that of its GGUF; the folder's name if not given")
    parser.add_argument("--seed", type=int, default=1, help="different seeds give different weights")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a sentence")
    options = parser.parse_args(arguments)
    if options.format == "safetensors" and options.dtype != Dtype.BF16:
        parser.error(f"a safetensors checkpoint is made in bf16, got --dtype {options.dtype}; leave it out")
    order = Order(
        shape_name=options.shape,
        dtype=Dtype(options.dtype),
        folder=options.out,
        name=options.name or options.out.name,
        seed=options.seed,
        as_safetensors=options.format == "safetensors",
    )
    began_s = time.monotonic()
    try:
        file = _make_with_bar(order)
    except MakeError as error:
        print(f"make_model: {error}", file=sys.stderr)
        return 1
    made = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "parameters": order.shape.parameters,
        "seconds": round(time.monotonic() - began_s, 3),
    }
    if options.json:
        print(json.dumps(made))
    else:
        print(f"{file}: {made['bytes']:,} bytes, {made['parameters']:,} parameters, in {made['seconds']:.1f} s")
    return 0


def _make_with_bar(order: Order) -> Path:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(order.name, total=expected_bytes(order))
        return make(order, lambda count_bytes: progress.advance(bar, count_bytes))


if __name__ == "__main__":
    sys.exit(main())
