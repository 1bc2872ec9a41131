"""
The header of a GGUF file, versions 2 and 3, read without trusting any number in it.

Every count and length is held against the bytes that are left in the file before anything is read or allocated, no more than
`MAX_HEADER_BYTES` are ever read, and the tensors must fill the file as the format's own reader demands: one after the other, each
aligned, the last one ending within the file.
"""

import hashlib
import os
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from controller.engines.base import WeightsHeader
from controller.errors import WeightsError

MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
"""Ten times the header of a model with 150,000 tokens and as many merge rules."""
MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 262_144
MAX_DIMENSIONS: Final = 4
MAX_NUMBERS: Final = 4_096
"""Longer arrays of numbers are skipped; those that matter have one entry a layer."""
MAX_ALIGNMENT: Final = 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024

_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Values and bytes of one block, by tensor type."""
_NAMES: Final[Mapping[int, str]] = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k",
    14: "q6_k", 20: "iq4_nl", 23: "iq4_xs", 30: "bf16",
}  # fmt: skip
"""What the usual tensor types are called."""

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"), 4: struct.Struct("<I"),
    5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"), 10: struct.Struct("<Q"), 11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}  # fmt: skip
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")

_EMBEDDING_FAMILIES: Final = frozenset(
    {
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "neo-bert",
        "modern-bert",
        "eurobert",
        "gemma-embedding",
    }
)
_POOLING_RANK: Final = 4
_LARGEST: Final = 2**31
"""No figure of a model that this could serve is larger; a larger one is a lie or a mistake."""


@dataclass(frozen=True, slots=True)
class _Skipped:
    """An array whose entries do not matter, only how many there are."""

    count: int


Number = int | float | bool
Value = Number | str | list[Number] | _Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Gguf:
    """
    What a GGUF file says.

    Attributes:
        header: the model in it.
        sha256: of the header's bytes.
        kind: `model` unless the file says that it is something else: `adapter`, `mmproj`, `imatrix`.

    """

    header: WeightsHeader
    sha256: str
    kind: str


def read_gguf(path: Path) -> Gguf:
    """
    Read and check the header of a model.

    Raises:
        WeightsError: it is no GGUF, is incomplete, contradicts itself, or is not a model that can be served alone.

    """
    try:
        # Not a plain open(): on a pipe somebody left in the folder it would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise WeightsError(f"{path.name}: cannot be opened: {exc.strerror}; check its owner and mode") from exc
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path.name}: wanted a file, got something else; put a GGUF file there")
        try:
            return _read(_Cursor(file, path.name, status.st_size))
        except OSError as exc:
            raise WeightsError(f"{path.name}: cannot be read: {exc.strerror}; check the disk") from exc


class _Cursor:
    """A place in a file, and everything before it in memory."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.place = 0
        self.bytes = bytearray()
        self._file = file

    def error(self, text: str) -> WeightsError:
        return WeightsError(f"{self.name}: {text}")

    def incomplete(self, wanted_bytes: int) -> WeightsError:
        return self.error(
            f"is incomplete: wanted at least {wanted_bytes} bytes, got {self.size}; copy it again, or wait for the copy to end"
        )

    def ensure(self, count: int) -> None:
        """Have the next *count* bytes in memory."""
        wanted = self.place + count
        if wanted <= len(self.bytes):
            return
        if wanted > self.size:
            raise self.incomplete(wanted)
        if wanted > MAX_HEADER_BYTES:
            raise self.error(f"wanted a header of at most {MAX_HEADER_BYTES} bytes, got one of at least {wanted}; it is damaged")
        while len(self.bytes) < wanted:
            chunk = self._file.read(max(CHUNK_BYTES, wanted - len(self.bytes)))
            if not chunk:
                raise self.incomplete(wanted)
            self.bytes += chunk

    def number(self, form: struct.Struct) -> int:
        self.ensure(form.size)
        (value,) = form.unpack_from(self.bytes, self.place)
        self.place += form.size
        return int(value)

    def count(self, what: str, *, least_bytes: int, most: int) -> int:
        """Read a count of things that take at least *least_bytes* each."""
        count = self.number(_U64)
        if count > most or count * least_bytes > self.size - self.place:
            raise self.error(f"says that it has {count} {what}, more than can be in its {self.size} bytes; copy it again")
        return count

    def skip(self, count: int) -> None:
        self.ensure(count)
        self.place += count

    def string(self) -> bytes:
        length = self.number(_U64)
        self.ensure(length)
        self.place += length
        return bytes(self.bytes[self.place - length : self.place])

    def skip_strings(self, count: int) -> None:
        """Pass over *count* strings; a vocabulary has hundreds of thousands, so this is the one loop that must be quick."""
        read, place, have = _U64.unpack_from, self.place, len(self.bytes)
        for _ in range(count):
            if place + 8 > have:
                self.place = place
                self.ensure(8)
                have = len(self.bytes)
            place += 8 + read(self.bytes, place)[0]
        self.place = place
        self.ensure(0)


def _read(cursor: _Cursor) -> Gguf:
    if cursor.size == 0:
        raise cursor.error("is empty; copy it again, or wait for the copy to end")
    cursor.ensure(4)
    if cursor.bytes[:4] != b"GGUF":
        raise cursor.error(f"wanted a file that starts with GGUF, got {bytes(cursor.bytes[:4])!r}; it is no GGUF file")
    cursor.place = 4
    version = cursor.number(_U32)
    if version not in (2, 3):
        hint = "it is big-endian" if version in (2 << 24, 3 << 24) else "convert it with a current llama.cpp"
        raise cursor.error(f"wanted GGUF version 2 or 3, got {version}; {hint}")
    tensors = cursor.count("tensors", least_bytes=24, most=MAX_TENSORS)
    keys = cursor.count("keys", least_bytes=13, most=MAX_KEYS)
    values = _read_values(cursor, keys)
    data = _read_tensors(cursor, tensors, _alignment(cursor, values))
    facts = _Facts(cursor.error, values)
    kind = facts.text("general.type") or "model"
    if kind != "model":
        raise cursor.error(f"wanted a model, got a file of type {kind!r}; name the model with `file`, an adapter with `lora`")
    sha256 = hashlib.sha256(memoryview(cursor.bytes)[: cursor.place]).hexdigest()
    return Gguf(header=_header(facts, data), sha256=sha256, kind=kind)


def _read_values(cursor: _Cursor, keys: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for _ in range(keys):
        key = cursor.string().decode("utf-8", "replace")
        if key in values:
            raise cursor.error(f"has the key {key[:80]!r} twice; it is damaged")
        values[key] = _read_value(cursor, key, cursor.number(_U32))
    return values


def _read_value(cursor: _Cursor, key: str, kind: int) -> Value:
    if kind == _STRING:
        return cursor.string().decode("utf-8", "replace")
    if kind == _ARRAY:
        return _read_array(cursor, key)
    return _read_scalar(cursor, key, kind)


def _read_scalar(cursor: _Cursor, key: str, kind: int) -> Number:
    form = _SCALARS.get(kind)
    if form is None:
        raise cursor.error(f"its key {key[:80]!r} has the unknown type {kind}; it is damaged, or newer than this program")
    cursor.ensure(form.size)
    (value,) = form.unpack_from(cursor.bytes, cursor.place)
    cursor.place += form.size
    number: Number = value
    return number


def _read_array(cursor: _Cursor, key: str) -> Value:
    kind = cursor.number(_U32)
    if kind == _STRING:
        count = cursor.count("strings in one array", least_bytes=8, most=MAX_HEADER_BYTES)
        cursor.skip_strings(count)
        return _Skipped(count)
    form = _SCALARS.get(kind)
    if form is None:
        raise cursor.error(
            f"its key {key[:80]!r} is an array of the unknown type {kind}; it is damaged, or newer than this program"
        )
    count = cursor.count("numbers in one array", least_bytes=form.size, most=MAX_HEADER_BYTES)
    if count > MAX_NUMBERS:
        cursor.skip(count * form.size)
        return _Skipped(count)
    cursor.skip(count * form.size)  # all at once: thousands of numbers read one by one take longer than the rest of the header
    return [value for (value,) in form.iter_unpack(bytes(cursor.bytes[cursor.place - count * form.size : cursor.place]))]


def _alignment(cursor: _Cursor, values: Mapping[str, Value]) -> int:
    value = values.get("general.alignment", 32)
    if type(value) is not int or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise cursor.error(f"wanted an alignment that is a power of two up to {MAX_ALIGNMENT}, got {value!r}; it is damaged")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """How many numbers and bytes the tensors have, and how most of them are stored."""

    parameters: int
    weights_bytes: int
    stored: str


def _read_tensors(cursor: _Cursor, tensors: int, alignment: int) -> _Data:
    """Add up the tensors, having checked that the file holds them all."""
    counts: Counter[int] = Counter()
    weights_bytes = place = 0
    if tensors == 0:
        raise cursor.error("has no tensors; it is a vocabulary, not a model")
    for _ in range(tensors):
        name = cursor.string()[:80].decode("utf-8", "replace")
        kind, count, size = _read_shape(cursor, name)
        offset = cursor.number(_U64)
        if offset != place:
            raise cursor.error(f"its tensor {name!r} starts at {offset}, wanted {place}; it is damaged")
        counts[kind] += count
        weights_bytes += size
        place += _padded(size, alignment)
        end = offset + size
    wanted = _padded(cursor.place, alignment) + end
    if wanted > cursor.size:
        raise cursor.incomplete(wanted)
    return _Data(parameters=counts.total(), weights_bytes=weights_bytes, stored=_NAMES.get(counts.most_common(1)[0][0], ""))


def _read_shape(cursor: _Cursor, name: str) -> tuple[int, int, int]:
    dimensions = cursor.number(_U32)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"its tensor {name!r} has {dimensions} dimensions, wanted at most {MAX_DIMENSIONS}; it is damaged")
    shape = [cursor.number(_U64) for _ in range(dimensions)]
    kind = cursor.number(_U32)
    if kind not in _BLOCKS:
        raise cursor.error(f"its tensor {name!r} has the unknown type {kind}; it is damaged, or newer than this program")
    values, size = _BLOCKS[kind]
    count = 1
    for length in shape:
        count *= length
    if count == 0 or (shape[0] if shape else 1) % values:
        raise cursor.error(f"its tensor {name!r} has the shape {shape}, which its type cannot have; it is damaged")
    return kind, count, count // values * size


def _padded(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


class _Facts:
    """The values of a header, asked for by key and checked for their type."""

    def __init__(self, error: Callable[[str], WeightsError], values: Mapping[str, Value]) -> None:
        self.error = error
        self._values = values

    def text(self, key: str) -> str:
        value = self._values.get(key, "")
        if not isinstance(value, str):
            raise self.error(f"its key {key!r} is no text; it is damaged")
        return value

    def length(self, key: str) -> int:
        """How many entries an array has; 0 if it is not there."""
        match self._values.get(key):
            case _Skipped(count=count):
                return count
            case list() as entries:
                return len(entries)
            case _:
                return 0

    def whole(self, key: str, default: int | None = None) -> int:
        """Read a figure of the model; of one figure a layer, their mean, rounded up."""
        value = self._values.get(key, default)
        if isinstance(value, list) and value and all(type(entry) is int for entry in value):
            value = -(-sum(int(entry) for entry in value) // len(value))
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise self.error(f"wanted a whole number as its {key!r}, got {value!r}; it is damaged, or no language model")
        return value


def _header(facts: _Facts, data: _Data) -> WeightsHeader:
    family = facts.text("general.architecture")
    if not family:
        raise facts.error("does not name its architecture; it is no language model")
    if facts.whole("split.count", 0) > 1:
        raise facts.error("is one part of a model that was split; join the parts with `llama-gguf-split --merge`")
    pooling = facts.whole(f"{family}.pooling_type", 0)
    if pooling == _POOLING_RANK:
        raise facts.error("is a reranker, and no path here serves one; register a generator or an embedding model")
    heads = max(1, facts.whole(f"{family}.attention.head_count", 1))
    width = facts.whole(f"{family}.embedding_length")
    key_length = facts.whole(f"{family}.attention.key_length", width // heads)
    embeddings = pooling > 0 or family in _EMBEDDING_FAMILIES
    template = facts.text("tokenizer.chat_template")
    experts = facts.whole(f"{family}.expert_feed_forward_length", 0) * facts.whole(f"{family}.expert_used_count", 0)
    return WeightsHeader(
        format="gguf",
        architecture=family,
        weights_bytes=data.weights_bytes,
        parameters=data.parameters,
        layers=facts.whole(f"{family}.block_count"),
        embedding_length=width,
        feed_forward_length=max(facts.whole(f"{family}.feed_forward_length", 4 * width), experts),
        heads=heads,
        kv_heads=facts.whole(f"{family}.attention.head_count_kv", heads),
        head_length=max(key_length, facts.whole(f"{family}.attention.value_length", key_length)),
        vocabulary=facts.length("tokenizer.ggml.tokens") or facts.whole(f"{family}.vocab_size", 0),
        context_tokens=facts.whole(f"{family}.context_length"),
        chat=bool(template) and not embeddings,
        tools="tools" in template and not embeddings,
        embeddings=embeddings,
        stored=data.stored,
    )
