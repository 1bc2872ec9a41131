"""Writes small weights files for tests: GGUF and safetensors, right by default, wrong where a test says so."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Value = str | int | float | bool | Sequence[str] | Sequence[int]

KEYS: Final[Mapping[str, Value]] = {
    "general.architecture": "qwen2",
    "qwen2.block_count": 2,
    "qwen2.context_length": 1024,
    "qwen2.embedding_length": 64,
    "qwen2.feed_forward_length": 128,
    "qwen2.attention.head_count": 4,
    "qwen2.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ("a", "b", "c"),
    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}",
}
"""The metadata of a model that can be served."""

CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 3,
    "max_position_embeddings": 1024,
}
"""The `config.json` of the same."""

F32: Final = 0
Q8_0: Final = 8


def text(value: str | bytes) -> bytes:
    """Write a string as GGUF does."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, value: Value) -> bytes:
    """Write one key and its value."""
    return text(key) + _typed(value)


def _typed(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<IB", 7, value)
        case int():
            return struct.pack("<Iq", 11, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(str(item)) for item in value)
        case _:
            return struct.pack("<IIQ", 9, 5, len(value)) + b"".join(struct.pack("<i", int(item)) for item in value)


def tensor(name: str, shape: Sequence[int], *, kind: int = F32, offset: int = 0) -> bytes:
    """Write what the header says of one tensor."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    keys: Mapping[str, Value] = KEYS,
    *,
    more: Mapping[str, Value] | None = None,
    tensors: Sequence[bytes] | None = None,
    data_bytes: int = 64 * 3 * 4,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """
    Write a whole file.

    Args:
        keys: its metadata.
        more: metadata beside that.
        tensors: what its header says of them; by default one of 64 x 3 numbers.
        data_bytes: how many bytes of tensors follow.
        version: of the format.
        counts: how many tensors and keys it says that it has.

    """
    entries = [entry(key, value) for key, value in {**keys, **(more or {})}.items()]
    infos = [tensor("token_embd.weight", (64, 3))] if tensors is None else list(tensors)
    said = counts or (len(infos), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, *said) + b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data_bytes)


def safetensors(header: Mapping[str, Any] | bytes | None = None, *, data_bytes: int = 24, length: int | None = None) -> bytes:
    """Write a safetensors file; by default with one tensor of 3 x 4 numbers of 16 bits."""
    if header is None:
        header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data_bytes)


def write_gguf_folder(models: Path, name: str, raw: bytes | None = None, *, manifest: str | None = None) -> Path:
    """Make a model's folder with a GGUF in it."""
    folder = models / name
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(gguf() if raw is None else raw)
    if manifest is not None:
        (folder / "model.toml").write_text(manifest)
    return folder


def write_checkpoint_folder(models: Path, name: str, *, config: Mapping[str, Any] = CONFIG) -> Path:
    """Make a model's folder with a safetensors checkpoint in it."""
    folder = models / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "config.json").write_text(json.dumps(config))
    return folder
