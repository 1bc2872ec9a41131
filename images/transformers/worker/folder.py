"""
Is a model folder safe to read, and whole?

A checkpoint is somebody else's file. Weights are taken from safetensors alone, because a pickle runs code when it is opened,
and a folder that brings its own Python (`auto_map`) is refused rather than obeyed. The headers are checked here, before
anything maps the files: a truncated or lying file gives a sentence instead of a crash.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from worker.errors import LoadError

PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Endings of files that are, or may be, Python pickles."""

_CONFIGS: Final = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")
_LONGEST_HEADER_BYTES: Final = 100_000_000
_ITEM_BITS: Final = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "C64": 64, "F4": 4,
}  # fmt: skip


def check(folder: Path) -> dict[str, Any]:
    """
    Refuse a folder that is unsafe or incomplete, and return its `config.json`.

    Raises:
        LoadError: with what was found and what to do.

    """
    try:
        return _checked(folder)
    except PermissionError as exc:
        name = Path(str(exc.filename)).name
        raise LoadError(f"{name} may not be read by user {os.getuid()}, group {os.getgid()}: open it with chmod a+rX") from exc


def _checked(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise LoadError(f"wanted a folder with a checkpoint, but {folder} is not a folder")
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in PICKLES)
    if pickles:
        raise LoadError(
            f"{', '.join(pickles)}: pickled weights can run code when they are opened and are never read;"
            " remove them and keep (or convert the model to) safetensors"
        )
    for name in _CONFIGS:
        if "auto_map" in _json(folder / name, required=name == "config.json"):
            raise LoadError(f"{name} has an auto_map, which asks for Python code from the folder to be run; that is never done")
    weights = _weights(folder)
    for file in weights:
        check_header(file)
    return _json(folder / "config.json", required=True)


def check_header(file: Path) -> None:
    """Refuse a safetensors file whose header and length do not agree."""
    length_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if length_bytes < 8 or header_bytes > min(length_bytes - 8, _LONGEST_HEADER_BYTES):
            raise LoadError(
                f"{file.name} is cut off or no safetensors file: {length_bytes} bytes, header said to be {header_bytes}"
            )
        try:
            header = json.loads(stream.read(header_bytes))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end_bytes = max((_end_bytes(tensor) for tensor in tensors), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise LoadError(f"{file.name} has a header that cannot be read: {exc}") from exc
    if 8 + header_bytes + end_bytes != length_bytes:
        raise LoadError(
            f"{file.name} should be {8 + header_bytes + end_bytes} bytes by its header, but is {length_bytes}; copy it again"
        )


def context_tokens(config: dict[str, Any], *, wanted: int) -> int:
    """Return the context to serve: what is wanted, but never more than the model has positions for."""
    text = config.get("text_config", config)
    known = text.get("max_position_embeddings") or text.get("n_positions")
    return min(wanted, known) if isinstance(known, int) and known > 0 else wanted


def _end_bytes(tensor: dict[str, Any]) -> int:
    begin_bytes, end_bytes = tensor["data_offsets"]
    items = 1
    for length in tensor["shape"]:
        items *= length
    # A kind of number of a later day is the library's business; that its place adds up is checked all the same.
    bits = _ITEM_BITS.get(str.upper(tensor["dtype"]))
    if begin_bytes < 0 or end_bytes < begin_bytes or (bits is not None and (end_bytes - begin_bytes) * 8 != items * bits):
        raise ValueError(f"a tensor of {items} numbers of {tensor['dtype']} cannot lie at {begin_bytes}..{end_bytes}")
    return int(end_bytes)


def _weights(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _json(index, required=True).get("weight_map", {})
        names = sorted({str(name) for name in weight_map.values()})
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise LoadError(f"{index.name} lists files that are not in the folder: {', '.join(missing) or 'none at all'}")
        return [folder / name for name in names]
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise LoadError(
            "no *.safetensors file in the folder: this engine reads no other format; GGUF is for the engine llama-cpp"
        )
    return weights


def _json(file: Path, *, required: bool) -> dict[str, Any]:
    if not file.is_file():
        if required:
            raise LoadError(f"{file.name} is missing: a checkpoint needs it to say what the weights are")
        return {}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as exc:
        raise LoadError(f"{file.name} is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise LoadError(f"{file.name} should hold a JSON object, but holds {type(content).__name__}")
    return content
