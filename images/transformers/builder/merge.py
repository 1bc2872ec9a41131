"""
A checkpoint and adapters become another checkpoint.

Merging changes values and nothing else: neither names, types, shapes nor places. So each file is copied as it is, and the
matrices that change are computed on the way, some rows at a time, at 32 bits, and rounded once. A model of any size takes the
memory of the adapters and of a few rows.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from builder import checkpoint, lora
from builder.errors import BuildError
from builder.lora import Pair

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ROWS_VALUES: Final = 2_000_000
"""How many numbers are worked on at once: 8 MB at 32 bits, a few times over."""
_CHUNK_BYTES: Final = 8 * 1024 * 1024
_COPIED: Final = (".json", ".jinja", ".txt", ".model")
_POOLING: Final = "1_Pooling"
"""What sentence-transformers adds to an embedding model."""

Changes = Mapping[str, Sequence[Pair]]
"""What each matrix is changed by, one pair of each adapter."""


def merge(path: Path, adapters: Sequence[Path], *, out: Path) -> None:
    """
    Write the checkpoint in *path*, with the adapters merged, to the folder *out*.

    Raises:
        BuildError, LoadError: the checkpoint or an adapter cannot be used, or they do not belong together.

    """
    checkpoint.check(path)
    files = checkpoint.weights(path)
    headers = {file: _header(file) for file in files}
    changes = _changes(adapters)
    _check_targets(changes, {name: tensor for header in headers.values() for name, tensor in header.items()})
    out.mkdir()
    _copy_rest(path, out)
    for file in files:
        _merge_file(file, out / file.name, changes)


def _changes(adapters: Sequence[Path]) -> dict[str, list[Pair]]:
    changes: dict[str, list[Pair]] = {}
    for adapter in adapters:
        for target, pair in lora.read(adapter).items():
            changes.setdefault(target, []).append(pair)
    return changes


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def _check_targets(changes: Changes, tensors: Mapping[str, Any]) -> None:
    for target, pairs in changes.items():
        if target not in tensors:
            raise BuildError(
                f"the adapter changes {target}, which the checkpoint does not have; it was trained on another model, or on a "
                "matrix that this one shares with another"
            )
        for pair in pairs:
            if tuple(tensors[target]["shape"]) != pair.shape:
                raise BuildError(
                    f"the adapter changes {target} as {pair.shape}, and the checkpoint has it as "
                    f"{tuple(tensors[target]['shape'])}; it was trained on another model"
                )
        if tensors[target]["dtype"] not in _DTYPES:
            raise BuildError(
                f"{target} is stored as {tensors[target]['dtype']}, and nothing can be added to that without losing it; "
                "start from the weights at 16 bits"
            )


def _copy_rest(path: Path, out: Path) -> None:
    """Copy what describes the model; never code, never pickles."""
    for folder in (path, path / _POOLING):
        target = out / folder.relative_to(path)
        for file in sorted(folder.glob("*")):
            if file.is_file() and file.suffix in _COPIED and not file.name.startswith(checkpoint.ADAPTER_PREFIX):
                target.mkdir(exist_ok=True)
                shutil.copyfile(file, target / file.name)


def _merge_file(source: Path, target: Path, changes: Changes) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        head = read.read(8)
        raw = read.read(int.from_bytes(head, "little"))
        write.write(head + raw)
        header = json.loads(raw)
        header.pop("__metadata__", None)
        for name, tensor in sorted(header.items(), key=lambda entry: (entry[1]["data_offsets"], entry[0])):
            begin, end = tensor["data_offsets"]
            if name in changes:
                _merge_tensor(read, write, tensor, changes[name])
            else:
                _copy(read, write, end - begin)


def _copy(read: BinaryIO, write: BinaryIO, count: int) -> None:
    while count:
        chunk = read.read(min(count, _CHUNK_BYTES))
        write.write(chunk)
        count -= len(chunk)


def _merge_tensor(read: BinaryIO, write: BinaryIO, tensor: Mapping[str, Any], pairs: Sequence[Pair]) -> None:
    dtype, (rows, columns) = _DTYPES[tensor["dtype"]], tensor["shape"]
    step = max(1, _ROWS_VALUES // columns)
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        raw = bytearray(read.read((end - begin) * columns * dtype.itemsize))
        merged = torch.frombuffer(raw, dtype=dtype).reshape(end - begin, columns).float()
        for pair in pairs:
            merged += pair.rows(begin, end)
        write.write(merged.to(dtype).contiguous().view(torch.uint8).numpy().tobytes())
