"""
The headers of a safetensors checkpoint and its `config.json`, read without trusting any number in them.

A header is JSON behind an eight-byte length. The length is held against the file, each tensor's type and shape against its place,
and the places must fill the file without a gap: what the format promises, so that no byte is read as something it is not.
"""

import hashlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.engines.base import WeightsHeader
from controller.errors import WeightsError

MAX_HEADER_BYTES: Final = 8 * 1024 * 1024
"""Three times the header of a file with twenty thousand tensors."""
MAX_JSON_BYTES: Final = 8 * 1024 * 1024
MAX_SHARDS: Final = 1024
INDEX: Final = "model.safetensors.index.json"
QUANTIZATION: Final = "hf_quant_config.json"
"""Where some tools say how they quantised; then `config.json` need not."""

_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Bits of one number, by its type's name."""
_PACKED: Final = 8
"""Weights of four bits in a number of thirty-two."""
_LARGEST: Final = 2**31
"""No figure of a model that this could serve is larger; a larger one is a lie or a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """
    What a checkpoint's files say.

    Attributes:
        header: the model in them.
        files: the weights files, by name.
        sha256: of the headers' bytes and of `config.json`.

    """

    header: WeightsHeader
    files: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensors:
    counts: Counter[str]
    weights_bytes: int
    raw: bytes


def read_checkpoint(folder: Path, names: tuple[str, ...]) -> Checkpoint:
    """
    Read and check the headers of a checkpoint.

    Args:
        folder: the model's folder.
        names: the weights files there are; with an index, those it names must be among them.

    Raises:
        WeightsError: a file is incomplete, contradicts itself, or a part of the model is missing.

    """
    files = _shards(folder, names)
    digest = hashlib.sha256()
    counts: Counter[str] = Counter()
    weights_bytes = 0
    for name in files:
        tensors = _read_tensors(folder / name)
        digest.update(tensors.raw)
        counts += tensors.counts
        weights_bytes += tensors.weights_bytes
    raw = _read_bytes(folder / "config.json", MAX_JSON_BYTES)
    digest.update(raw)
    config = _parse(folder / "config.json", raw)
    template = _template(folder)
    quantization = _quantization(folder, config)
    if "auto_map" in config:
        raise _error(folder / "config.json")(
            "has an `auto_map`, which asks for code of the checkpoint to be run; that is never done"
        )
    header = _header(
        _Config(_error(folder / "config.json"), config),
        counts=counts,
        weights_bytes=weights_bytes,
        template=template,
        pooled=(folder / "modules.json").is_file(),
        quantization=quantization,
    )
    return Checkpoint(header=header, files=files, sha256=digest.hexdigest())


def _shards(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    index = folder / INDEX
    if not index.exists():
        if len(names) > 1:
            raise WeightsError(f"wanted one safetensors file or {INDEX}, got {len(names)} files; name one with `file`")
        return names
    weight_map = _parse(index, _read_bytes(index, MAX_JSON_BYTES)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _error(index)("wanted a `weight_map` from tensors to files, got none; copy it again")
    shards = {shard for shard in weight_map.values() if isinstance(shard, str)}
    if len(shards) > MAX_SHARDS or len(shards) != len(set(map(repr, weight_map.values()))):
        raise _error(index)(f"wanted at most {MAX_SHARDS} file names in its `weight_map`, got something else; copy it again")
    missing = sorted(shards.difference(names))
    if missing:
        raise WeightsError(
            f"is incomplete: {len(missing)} of {len(shards)} files are missing, the first is {missing[0][:80]!r}; "
            "copy them, or wait for the copy to end"
        )
    return tuple(sorted(shards))


def _error(path: Path) -> Callable[[str], WeightsError]:
    return lambda text: WeightsError(f"{path.name}: {text}")


def _read_bytes(path: Path, most: int) -> bytes:
    """Read a whole small file."""
    error = _error(path)
    try:
        with _open(path) as file:
            # Never the limit itself: a reader sets aside as many bytes as it is asked for.
            raw: bytes = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except FileNotFoundError:
        raise error("is missing; copy the whole checkpoint, not its weights alone") from None
    except OSError as exc:
        raise error(f"cannot be read: {exc.strerror}; check its owner and mode") from exc
    if len(raw) > most:
        raise error(f"wanted at most {most} bytes, got more; it is not what its name says")
    return raw


def _open(path: Path) -> Any:  # noqa: ANN401  # a raw file
    # Not a plain open(): on a pipe somebody left in the folder it would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WeightsError(f"{path.name}: wanted a file, got something else; put a file there")
    return os.fdopen(descriptor, "rb")


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    error = _error(path)
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError:
        raise error("is nested too deeply to be what it says; copy it again") from None
    except ValueError as exc:
        raise error(f"wanted JSON, got something else: {exc}; copy it again") from exc
    if not isinstance(parsed, dict):
        raise error("wanted a JSON object, got something else; copy it again")
    return parsed


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _read_tensors(path: Path) -> _Tensors:
    error = _error(path)
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise error(
                    f"is incomplete: wanted at least {8 + length} bytes, got {size}; copy it again, or wait for the copy to end"
                )
            if length > MAX_HEADER_BYTES:
                raise error(f"wanted a header of at most {MAX_HEADER_BYTES} bytes, got {length}; it is no safetensors file")
            raw: bytes = file.read(length)
    except OSError as exc:
        raise error(f"cannot be read: {exc.strerror}; check its owner and mode") from exc
    if not raw.startswith(b"{"):
        raise error(f"wanted a header that starts with {{, got {raw[:4]!r}; it is no safetensors file")
    described = _parse(path, raw)
    described.pop("__metadata__", None)
    counts, weights_bytes = _check_places(error, described)
    if 8 + length + weights_bytes != size:
        wanted = 8 + length + weights_bytes
        if wanted > size:
            raise error(f"is incomplete: wanted {wanted} bytes, got {size}; copy it again, or wait for the copy to end")
        raise error(f"wanted {wanted} bytes, as its header says, got {size}; it is damaged")
    return _Tensors(counts=counts, weights_bytes=weights_bytes, raw=raw)


def _check_places(error: Callable[[str], WeightsError], described: Mapping[str, Any]) -> tuple[Counter[str], int]:
    """Return how many numbers of each type and bytes the tensors have, having checked that they lie end to end."""
    places: list[tuple[int, int, str]] = []
    counts: Counter[str] = Counter()
    for name, tensor in described.items():
        count, start, end = _check_tensor(error, name, tensor)
        places.append((start, end, name))
        counts[tensor["dtype"]] += count
    if counts.total() == 0:
        raise error("has no numbers in it; it is not a model")
    place = 0
    for start, end, name in sorted(places):
        if start != place:
            raise error(f"its tensor {name[:80]!r} starts at {start}, wanted {place}; it is damaged")
        place = end
    return counts, place


def _check_tensor(error: Callable[[str], WeightsError], name: str, tensor: object) -> tuple[int, int, int]:
    match tensor:
        case {"dtype": str() as dtype, "shape": [*shape], "data_offsets": [int() as start, int() as end]} if dtype in _BITS:
            pass
        case _:
            raise error(f"its tensor {name[:80]!r} has no known `dtype`, `shape` and `data_offsets`; it is damaged")
    if len(shape) > 16 or not all(type(length) is int and 0 <= length < 2**48 for length in shape) or not 0 <= start <= end:
        raise error(f"its tensor {name[:80]!r} has a shape or a place that cannot be; it is damaged")
    count = math.prod(shape)
    if count * _BITS[dtype] != (end - start) * 8:
        raise error(f"its tensor {name[:80]!r} says {dtype} {shape} in {end - start} bytes, which does not agree; it is damaged")
    return count, start, end


def _template(folder: Path) -> str:
    """Return the chat template, wherever the checkpoint keeps it; empty if it has none."""
    if (folder / "chat_template.jinja").exists():
        return _read_bytes(folder / "chat_template.jinja", MAX_JSON_BYTES).decode("utf-8", "replace")
    tokenizer = folder / "tokenizer_config.json"
    found = _parse(tokenizer, _read_bytes(tokenizer, MAX_JSON_BYTES)).get("chat_template") if tokenizer.exists() else None
    return found if isinstance(found, str) else json.dumps(found) if found else ""


def _quantization(folder: Path, config: Mapping[str, Any]) -> str:
    """Return how the weights were quantised, in the words of whoever did it; empty if nobody says that they were."""
    beside = folder / QUANTIZATION
    if beside.exists():
        said = _parse(beside, _read_bytes(beside, MAX_JSON_BYTES)).get("quantization")
        return _algorithm(said) if isinstance(said, dict) else ""
    nested = config.get("text_config")
    said = (nested.get("quantization_config") if isinstance(nested, dict) else None) or config.get("quantization_config")
    if not isinstance(said, dict):
        return ""
    if said.get("quant_algo"):
        return _algorithm(said)
    groups = said.get("config_groups")
    layouts = [said, *(groups.values() if isinstance(groups, dict) else ())]
    named = {str(one["format"]).lower() for one in layouts if isinstance(one, dict) and one.get("format")}
    return " ".join(("quant_method", str(said.get("quant_method", "")).lower(), *sorted(named))).rstrip()


def _algorithm(said: Mapping[str, Any]) -> str:
    """Name the algorithm; where several are mixed, all of them."""
    algorithm = str(said.get("quant_algo") or "").lower()
    layers = said.get("quantized_layers")
    if algorithm != "mixed_precision" or not isinstance(layers, dict):
        return f"quant_algo {algorithm}".rstrip() if algorithm else ""
    mixed = {str(layer.get("quant_algo", "")).lower() for layer in layers.values() if isinstance(layer, dict)}
    return f"quant_algo {algorithm} {','.join(sorted(mixed))}".rstrip()


def _parameters(counts: Counter[str], quantization: str) -> int:
    """Count the weights: those of four bits are stored several in one number."""
    total = counts.total()
    if quantization.startswith(("quant_method awq", "quant_method gptq")):
        return total + (_PACKED - 1) * counts["I32"]
    return total


class _Config:
    """`config.json`, whose families name the same figure differently."""

    def __init__(self, error: Callable[[str], WeightsError], raw: Mapping[str, Any]) -> None:
        self.error = error
        nested = raw.get("text_config")
        self.values: Mapping[str, Any] = {**raw, **nested} if isinstance(nested, dict) else raw

    def whole(self, *names: str, default: int | None = None) -> int:
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if type(value) is not int or not 0 < value < _LARGEST:
                raise self.error(f"wanted a whole number as its {name!r}, got {value!r}; copy it again")
            return value
        if default is None:
            raise self.error(f"wanted {' or '.join(names)}, got neither; it is no language model")
        return default

    def architecture(self) -> tuple[str, str]:
        """Return the family and the class, such as `qwen2` and `Qwen2ForCausalLM`."""
        family = self.values.get("model_type")
        classes = self.values.get("architectures")
        first = classes[0] if isinstance(classes, list) and classes else ""
        if not isinstance(family, str) or not family or not isinstance(first, str):
            raise self.error("wanted `model_type` and `architectures`, got something else; copy it again")
        return family, first


def _header(
    config: _Config, *, counts: Counter[str], weights_bytes: int, template: str, pooled: bool, quantization: str
) -> WeightsHeader:
    family, class_name = config.architecture()
    width = config.whole("hidden_size", "n_embd", "d_model", "dim")
    heads = config.whole("num_attention_heads", "n_head", "num_heads", "n_heads")
    embeddings = pooled or not class_name.endswith(("ForCausalLM", "LMHeadModel"))
    return WeightsHeader(
        format="safetensors",
        architecture=family,
        weights_bytes=weights_bytes,
        parameters=_parameters(counts, quantization),
        layers=config.whole("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        embedding_length=width,
        feed_forward_length=config.whole("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * width),
        heads=heads,
        kv_heads=config.whole("num_key_value_heads", default=heads),
        head_length=config.whole("head_dim", default=max(1, width // heads)),
        vocabulary=config.whole("vocab_size"),
        context_tokens=config.whole("max_position_embeddings", "n_positions", "n_ctx", "seq_length", default=2048),
        chat=bool(template) and not embeddings,
        tools="tools" in template and not embeddings,
        embeddings=embeddings,
        stored=counts.most_common(1)[0][0].lower(),
        quantization=quantization,
    )
