"""The readers of weights files: right files are understood, and no wrong one does more than be refused."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller.engines.base import WeightsHeader
from controller.errors import ModelError, WeightsError
from controller.store import gguf as gguf_module
from controller.store.gguf import read_gguf
from controller.store.safetensors import INDEX, read_checkpoint
from controller.store.weights import read_weights
from tests.checkpoints import CONFIG, F32, KEYS, Q8_0, entry, gguf, safetensors, tensor, text, write_checkpoint_folder


def _written(folder: Path, raw: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(raw)
    return path


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in KEYS.items() if name != key}


def test_gguf_header_is_read(tmp_path: Path) -> None:
    """A right GGUF gives every figure of its header."""
    header = read_gguf(_written(tmp_path, gguf())).header

    assert (
        WeightsHeader(
            format="gguf",
            architecture="qwen2",
            weights_bytes=64 * 3 * 4,
            parameters=64 * 3,
            layers=2,
            embedding_length=64,
            feed_forward_length=128,
            heads=4,
            kv_heads=2,
            head_length=16,
            vocabulary=3,
            context_tokens=1024,
            chat=True,
            tools=True,
            embeddings=False,
            stored="f32",
        )
        == header
    )


def test_gguf_of_quantised_tensors_is_measured_in_blocks(tmp_path: Path) -> None:
    """A tensor of 8-bit blocks takes 34 bytes for each 32 numbers."""
    raw = gguf(tensors=[tensor("w", (64, 3), kind=Q8_0)], data_bytes=64 * 3 // 32 * 34)

    header = read_gguf(_written(tmp_path, raw)).header

    assert (204, 192, "q8_0") == (header.weights_bytes, header.parameters, header.stored)


def test_gguf_tensors_lie_one_after_the_other(tmp_path: Path) -> None:
    """Tensors are padded to the alignment, and the last one needs no padding behind it."""
    raw = gguf(
        more={"general.alignment": 64},
        tensors=[tensor("a", (3,)), tensor("b", (5,), offset=64)],
        data_bytes=0,
    )
    padded = raw + bytes(-len(raw) % 64) + bytes(64 + 20)

    assert 32 == read_gguf(_written(tmp_path, padded)).header.weights_bytes


def test_gguf_figures_given_per_layer_are_averaged(tmp_path: Path) -> None:
    """A model whose layers differ is weighed by the mean, rounded up."""
    raw = gguf(more={"qwen2.attention.head_count_kv": (0, 3)})

    assert 2 == read_gguf(_written(tmp_path, raw)).header.kv_heads


def test_gguf_of_experts_is_weighed_by_those_at_work(tmp_path: Path) -> None:
    """The hidden width of a mixture is that of the experts one token uses."""
    raw = gguf(more={"qwen2.expert_feed_forward_length": 100, "qwen2.expert_used_count": 4})

    assert 400 == read_gguf(_written(tmp_path, raw)).header.feed_forward_length


@pytest.mark.parametrize("more", [{"qwen2.pooling_type": 3}, {"general.architecture": "bert"}])
def test_gguf_embedding_models_are_told_apart(tmp_path: Path, more: Mapping[str, Any]) -> None:
    """A model that pools, or whose family does nothing else, embeds and does not chat."""
    family = more.get("general.architecture", "qwen2")
    keys = {key.replace("qwen2.", f"{family}."): value for key, value in KEYS.items()}

    header = read_gguf(_written(tmp_path, gguf(keys, more=more))).header

    assert (True, False, False) == (header.embeddings, header.chat, header.tools)


def test_gguf_long_arrays_are_passed_over(tmp_path: Path) -> None:
    """An array with an entry for each token is counted, not kept."""
    raw = gguf(more={"tokenizer.ggml.token_type": (1,) * 5000, "x.flag": True, "x.scale": 0.5})

    assert 3 == read_gguf(_written(tmp_path, raw)).header.vocabulary


def test_gguf_header_longer_than_a_chunk_is_read(tmp_path: Path) -> None:
    """A vocabulary is counted across the chunks in which the file is read."""
    words = ("x" * 100,) * 12_000
    raw = gguf(more={"tokenizer.ggml.tokens": words})

    assert 12_000 == read_gguf(_written(tmp_path, raw)).header.vocabulary


def test_gguf_digest_covers_the_header_alone(tmp_path: Path) -> None:
    """The same header gives the same digest, another header another one."""
    first = read_gguf(_written(tmp_path, gguf())).sha256
    more_data = read_gguf(_written(tmp_path, gguf() + b"x")).sha256
    other = read_gguf(_written(tmp_path, gguf(more={"x": 1}))).sha256

    assert (first == more_data, first == other) == (True, False)


WRONG_GGUFS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "another format": (b"PK\x03\x04" + bytes(100), "starts with GGUF"),
    "version 1": (gguf(version=1), "version 2 or 3"),
    "big-endian": (gguf(version=3 << 24), "big-endian"),
    "too many tensors": (gguf(counts=(2**63, 1)), "tensors, more than can be"),
    "too many keys": (gguf(counts=(1, 2**63)), "keys, more than can be"),
    "no tensors": (gguf(tensors=[]), "has no tensors"),
    "tensor beyond the end": (gguf(data_bytes=100), "is incomplete"),
    "a key twice": (b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + entry("a", 1) * 2 + bytes(200), "twice"),
    "unknown value type": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("k") + struct.pack("<I", 99) + bytes(99),
        "unknown type",
    ),
    "array in an array": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(99),
        "array of the unknown type 9",
    ),
    "huge array": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("k") + struct.pack("<IIQ", 9, 4, 2**62) + bytes(99),
        "more than",
    ),
    "huge string": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**63) + bytes(99), "is incomplete"),
    "alignment of zero": (gguf(more={"general.alignment": 0}), "alignment"),
    "alignment of three": (gguf(more={"general.alignment": 3}), "alignment"),
    "alignment in words": (gguf(more={"general.alignment": "big"}), "alignment"),
    "shape of five": (gguf(tensors=[tensor("w", (1, 1, 1, 1, 1))]), "5 dimensions"),
    "unknown tensor type": (gguf(tensors=[tensor("w", (1,), kind=200)]), "unknown type 200"),
    "half a block": (gguf(tensors=[tensor("w", (33,), kind=Q8_0)]), "shape"),
    "nothing in it": (gguf(tensors=[tensor("w", (0,), kind=F32)]), "shape"),
    "numbers that overflow": (gguf(tensors=[tensor("w", (2**63, 2**63, 2, 2))]), "is incomplete"),
    "a tensor elsewhere": (gguf(tensors=[tensor("w", (1,), offset=32)]), "starts at 32"),
    "no architecture": (gguf(_without("general.architecture")), "architecture"),
    "architecture is a number": (gguf(more={"general.architecture": 3}), "is no text"),
    "no layers": (gguf(_without("qwen2.block_count")), "block_count"),
    "negative width": (gguf(more={"qwen2.embedding_length": -1}), "embedding_length"),
    "layers in words": (gguf(more={"qwen2.block_count": "two"}), "block_count"),
    "an adapter": (gguf(more={"general.type": "adapter"}), "'adapter'"),
    "a part": (gguf(more={"split.count": 3}), "llama-gguf-split --merge"),
    "a reranker": (gguf(more={"qwen2.pooling_type": 4}), "reranker"),
}


@pytest.mark.parametrize(("raw", "said"), WRONG_GGUFS.values(), ids=list(WRONG_GGUFS))
def test_wrong_gguf_is_refused_with_a_reason(tmp_path: Path, raw: bytes, said: str) -> None:
    """Each way in which a GGUF can be wrong has its sentence, and the sentence names the file."""
    with pytest.raises(WeightsError) as caught:
        read_gguf(_written(tmp_path, raw))

    assert said in str(caught.value)
    assert str(caught.value).startswith("model.gguf: ")


def test_header_larger_than_any_header_is_refused(tmp_path: Path) -> None:
    """A length that the file could hold, but no header has, is not read."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, gguf_module.MAX_HEADER_BYTES))
        file.truncate(gguf_module.MAX_HEADER_BYTES * 4)

    with pytest.raises(WeightsError, match="wanted a header of at most"):
        read_gguf(path)


def test_pipe_in_place_of_weights_does_not_block(tmp_path: Path) -> None:
    """A named pipe is refused at once, rather than waited for."""
    os.mkfifo(tmp_path / "model.gguf")

    with pytest.raises(WeightsError, match="wanted a file"):
        read_gguf(tmp_path / "model.gguf")


def test_missing_file_is_a_weights_error(tmp_path: Path) -> None:
    """A file that vanished between listing and reading is refused like any other."""
    with pytest.raises(WeightsError, match="cannot be opened"):
        read_gguf(tmp_path / "model.gguf")


def _reads_or_refuses(read: Callable[[], object], *, most_bytes: int = 8 * 1024 * 1024) -> None:
    """Read a damaged file: a header or a `WeightsError`, and never much memory."""
    tracemalloc.start()
    try:
        read()
    except WeightsError:
        pass
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < most_bytes


ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANY_FOLDER
@given(cut=st.integers(min_value=0, max_value=len(gguf()) - 1))
def test_gguf_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    """A copy that stopped at any byte is an error of ours, never another one, and never a model."""
    with pytest.raises(WeightsError):
        read_gguf(_written(tmp_path, gguf()[:cut]))


@ANY_FOLDER
@given(
    flips=st.lists(st.tuples(st.integers(min_value=0, max_value=len(gguf()) - 1), st.integers(1, 255)), min_size=1, max_size=4)
)
@example(flips=[(23, 0x7F)])
def test_damaged_gguf_is_read_or_refused(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    """Bytes changed anywhere lead to a header or to an error of ours, in little memory."""
    raw = bytearray(gguf())
    for place, change in flips:
        raw[place] ^= change
    path = _written(tmp_path, bytes(raw))

    _reads_or_refuses(lambda: read_gguf(path))


@ANY_FOLDER
@given(number=st.integers(min_value=0, max_value=2**64 - 1), place=st.integers(min_value=4, max_value=len(gguf()) - 8))
def test_lying_numbers_are_read_or_refused(tmp_path: Path, number: int, place: int) -> None:
    """Any number in the place of any eight bytes leads to a header or to an error of ours, in little memory."""
    raw = bytearray(gguf())
    raw[place : place + 8] = struct.pack("<Q", number)
    path = _written(tmp_path, bytes(raw))

    _reads_or_refuses(lambda: read_gguf(path))


@ANY_FOLDER
@given(raw=st.binary(max_size=400))
def test_noise_behind_a_right_start_is_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    """Anything at all behind the magic is read or refused."""
    path = _written(tmp_path, b"GGUF\x03\x00\x00\x00" + raw)

    _reads_or_refuses(lambda: read_gguf(path))


def _read_checkpoint(folder: Path) -> WeightsHeader:
    names = tuple(sorted(path.name for path in folder.glob("*.safetensors")))
    return read_checkpoint(folder, names).header


def test_checkpoint_is_read(tmp_path: Path) -> None:
    """A right checkpoint gives every figure of its header and its configuration."""
    folder = write_checkpoint_folder(tmp_path, "m")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ tools }}"}))

    assert WeightsHeader(
        format="safetensors",
        architecture="qwen2",
        weights_bytes=24,
        parameters=12,
        layers=2,
        embedding_length=64,
        feed_forward_length=128,
        heads=4,
        kv_heads=2,
        head_length=16,
        vocabulary=3,
        context_tokens=1024,
        chat=True,
        tools=True,
        embeddings=False,
        stored="bf16",
    ) == _read_checkpoint(folder)


QUANTIZED = {
    "awq": ({"quant_method": "awq", "bits": 4}, "quant_method awq"),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": {"format": "pack-quantized"}}},
        "quant_method compressed-tensors pack-quantized",
    ),
    "formats of groups": (
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"format": "nvfp4-pack-quantized"}, "h": 5}},
        "quant_method compressed-tensors nvfp4-pack-quantized",
    ),
    "an algorithm": ({"quant_algo": "W4A16_AWQ", "quant_method": "modelopt"}, "quant_algo w4a16_awq"),
    "a mixture": (
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A16_AWQ"}}},
        "quant_algo mixed_precision fp8,w4a16_awq",
    ),
    "nothing that could be read": ("four bits", ""),
}


@pytest.mark.parametrize(("said", "told"), QUANTIZED.values(), ids=list(QUANTIZED))
@pytest.mark.parametrize("nested", [False, True])
def test_how_a_checkpoint_was_quantised_is_told_in_its_words(tmp_path: Path, said: object, told: str, nested: bool) -> None:
    """The configuration says so, at its top or where it describes the text model."""
    inside = {"text_config": {"quantization_config": said}} if nested else {"quantization_config": said}
    folder = write_checkpoint_folder(tmp_path, "m", config={**CONFIG, **inside})

    assert told == _read_checkpoint(folder).quantization


def test_a_file_of_its_own_says_how_it_was_quantised(tmp_path: Path) -> None:
    """What lies beside the configuration counts before what is in it."""
    folder = write_checkpoint_folder(tmp_path, "m", config={**CONFIG, "quantization_config": {"quant_method": "awq"}})
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))

    assert "quant_algo nvfp4" == _read_checkpoint(folder).quantization


def test_weights_that_share_a_number_are_counted_one_by_one(tmp_path: Path) -> None:
    """Eight weights of four bits lie in each number of thirty-two."""
    tensors = {
        "w.qweight": {"dtype": "I32", "shape": [2, 3], "data_offsets": [0, 24]},
        "norm": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
    }
    config = {**CONFIG, "quantization_config": {"quant_method": "gptq"}}
    folder = write_checkpoint_folder(tmp_path, "m", config=config)
    (folder / "model.safetensors").write_bytes(safetensors(tensors, data_bytes=32))

    assert 8 * 6 + 4 == _read_checkpoint(folder).parameters


def test_chat_template_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    """A template beside the tokenizer's configuration counts."""
    folder = write_checkpoint_folder(tmp_path, "m")
    (folder / "chat_template.jinja").write_text("{{ messages }}")

    assert (True, False) == (_read_checkpoint(folder).chat, _read_checkpoint(folder).tools)


def test_figures_of_a_model_with_several_parts_are_those_of_its_text(tmp_path: Path) -> None:
    """A configuration that nests its text model is read there."""
    folder = write_checkpoint_folder(tmp_path, "m", config={**CONFIG, "text_config": {"num_hidden_layers": 7}})

    assert 7 == _read_checkpoint(folder).layers


@pytest.mark.parametrize("config", [{**CONFIG, "architectures": ["BertModel"]}, CONFIG])
def test_checkpoint_that_embeds_is_told_apart(tmp_path: Path, config: Mapping[str, Any]) -> None:
    """A class without a head, or a pooling configuration, makes an embedding model."""
    folder = write_checkpoint_folder(tmp_path, "m", config=config)
    if config is CONFIG:
        (folder / "modules.json").write_text("[]")

    assert _read_checkpoint(folder).embeddings


def _sharded(folder: Path, shards: Mapping[str, str]) -> Path:
    write_checkpoint_folder(folder, "m")
    (folder / "m/model.safetensors").unlink()
    (folder / "m" / INDEX).write_text(json.dumps({"weight_map": dict(shards)}))
    return folder / "m"


def test_checkpoint_in_parts_is_read_whole(tmp_path: Path) -> None:
    """The parts an index names are added up."""
    folder = _sharded(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors())

    assert 48 == _read_checkpoint(folder).weights_bytes


def test_checkpoint_that_lacks_a_part_is_incomplete(tmp_path: Path) -> None:
    """A part that an index names and that is not there is a copy that has not ended."""
    folder = _sharded(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    (folder / "model-00001-of-00002.safetensors").write_bytes(safetensors())

    with pytest.raises(WeightsError, match=r"1 of 2 files are missing, the first is 'model-00002-of-00002.safetensors'"):
        _read_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}, {"a": None, "b": "x"}])
def test_index_that_names_no_files_is_refused(tmp_path: Path, weight_map: object) -> None:
    """An index must map tensors to files."""
    folder = _sharded(tmp_path, {})
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    with pytest.raises(WeightsError, match="weight_map"):
        _read_checkpoint(folder)


def _tensor(dtype: object = "BF16", shape: object = (3, 4), place: object = (0, 24)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": place}}


WRONG_TENSORS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "is incomplete"),
    "shorter than a length": (b"\x01\x00", "is incomplete"),
    "length beyond the end": (safetensors(length=2**40), "is incomplete"),
    "length of a whole disk": (safetensors(length=2**64 - 1), "is incomplete"),
    "no JSON": (safetensors(b"{nothing"), "wanted JSON"),
    "no object": (safetensors(b"[1]"), "starts with {"),
    "no text": (safetensors(b'{"\xff": 1}'), "wanted JSON"),
    "nested for ever": (safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "number for ever": (safetensors(b'{"a":' + b"1" * 5000 + b"}"), "wanted JSON"),
    "a key twice": (safetensors(b'{"w": {"dtype": "U8", "dtype": "I8"}}'), "occurs twice"),
    "no tensors": (safetensors({"__metadata__": {}}, data_bytes=0), "has no numbers"),
    "empty tensors": (safetensors(_tensor(shape=[0, 4], place=[0, 0]), data_bytes=0), "has no numbers"),
    "unknown type": (safetensors(_tensor(dtype="X8")), "no known `dtype`"),
    "no shape": (safetensors({"w": {"dtype": "U8", "data_offsets": [0, 24]}}), "no known `dtype`"),
    "shape in words": (safetensors(_tensor(shape=["3", 4])), "cannot be"),
    "shape that is true": (safetensors(_tensor(shape=[True, 12])), "cannot be"),
    "negative shape": (safetensors(_tensor(shape=[-3, -4])), "cannot be"),
    "backwards": (safetensors(_tensor(place=[24, 0])), "cannot be"),
    "bytes that do not agree": (safetensors(_tensor(shape=[3, 5])), "does not agree"),
    "a gap": (safetensors(_tensor(place=[1, 25]), data_bytes=25), "wanted 0"),
    "an overlap": (
        safetensors({**_tensor(), "v": {"dtype": "U8", "shape": [4], "data_offsets": [20, 24]}}),
        "wanted 24",
    ),
    "cut": (safetensors(data_bytes=23), "is incomplete"),
    "too long": (safetensors(data_bytes=25), "it is damaged"),
}


@pytest.mark.parametrize(("raw", "said"), WRONG_TENSORS.values(), ids=list(WRONG_TENSORS))
def test_wrong_safetensors_is_refused_with_a_reason(tmp_path: Path, raw: bytes, said: str) -> None:
    """Each way in which a safetensors file can be wrong has its sentence, and the sentence names the file."""
    folder = write_checkpoint_folder(tmp_path, "m")
    (folder / "model.safetensors").write_bytes(raw)

    with pytest.raises(WeightsError) as caught:
        _read_checkpoint(folder)

    assert said in str(caught.value)
    assert str(caught.value).startswith("model.safetensors: ")


def test_safetensors_header_larger_than_any_is_refused(tmp_path: Path) -> None:
    """A header that the file could hold, but none has, is not read."""
    folder = write_checkpoint_folder(tmp_path, "m")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**31)

    with pytest.raises(WeightsError, match="wanted a header of at most"):
        _read_checkpoint(folder)


WRONG_CONFIGS: Mapping[str, tuple[object, str]] = {
    "no object": ([], "JSON object"),
    "no family": ({**CONFIG, "model_type": None}, "model_type"),
    "no layers": ({key: value for key, value in CONFIG.items() if key != "num_hidden_layers"}, "num_hidden_layers"),
    "layers in words": ({**CONFIG, "num_hidden_layers": "two"}, "whole number"),
    "no heads at all": ({**CONFIG, "num_attention_heads": 0}, "whole number"),
    "code of its own": ({**CONFIG, "auto_map": {"AutoModel": "model.Model"}}, "auto_map"),
}


@pytest.mark.parametrize(("config", "said"), WRONG_CONFIGS.values(), ids=list(WRONG_CONFIGS))
def test_wrong_configuration_is_refused_with_a_reason(tmp_path: Path, config: object, said: str) -> None:
    """A `config.json` that is no model's is named with what is missing."""
    folder = write_checkpoint_folder(tmp_path, "m")
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(WeightsError) as caught:
        _read_checkpoint(folder)

    assert said in str(caught.value)


def test_weights_without_a_configuration_are_refused(tmp_path: Path) -> None:
    """Weights alone are not a checkpoint."""
    folder = write_checkpoint_folder(tmp_path, "m")
    (folder / "config.json").unlink()

    with pytest.raises(WeightsError, match=r"config.json: is missing"):
        _read_checkpoint(folder)


@ANY_FOLDER
@given(cut=st.integers(min_value=0, max_value=len(safetensors()) - 1))
def test_safetensors_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    """A copy that stopped at any byte is an error of ours, never another one, and never a model."""
    folder = tmp_path / "m" if (tmp_path / "m").exists() else write_checkpoint_folder(tmp_path, "m")
    (folder / "model.safetensors").write_bytes(safetensors()[:cut])

    with pytest.raises(WeightsError):
        _read_checkpoint(folder)


@ANY_FOLDER
@given(place=st.integers(min_value=0, max_value=len(safetensors()) - 1), change=st.integers(1, 255))
def test_damaged_safetensors_is_read_or_refused(tmp_path: Path, place: int, change: int) -> None:
    """A byte changed anywhere leads to a header or to an error of ours, in little memory."""
    folder = tmp_path / "m" if (tmp_path / "m").exists() else write_checkpoint_folder(tmp_path, "m")
    raw = bytearray(safetensors())
    raw[place] ^= change
    (folder / "model.safetensors").write_bytes(raw)

    _reads_or_refuses(lambda: _read_checkpoint(folder))


def test_a_single_gguf_is_the_weights(tmp_path: Path) -> None:
    """A folder with one GGUF needs no word about it; projectors and adapters beside it are not weights."""
    _written(tmp_path, gguf())

    found = read_weights(tmp_path, ["model.gguf", "mmproj-f16.gguf", "adapter_model.safetensors"])

    assert (("model.gguf",), "model.gguf") == (found.files, str(found.path))


def test_named_weights_are_taken(tmp_path: Path) -> None:
    """What the manifest names is taken, whatever lies beside it."""
    _written(tmp_path, gguf())

    assert ("model.gguf",) == read_weights(tmp_path, ["other.gguf", "model.gguf"], file="model.gguf").files


def test_engine_decides_between_two_formats(tmp_path: Path) -> None:
    """If the engine is named, only what it reads counts."""
    _written(tmp_path, gguf())
    names = ["model.gguf", "model.safetensors"]

    assert ("model.gguf",) == read_weights(tmp_path, names, formats=frozenset({"gguf"})).files


WRONG_CHOICES: Mapping[str, tuple[list[str], str | None, str]] = {
    "nothing": ([], None, "got none"),
    "a pickle alone": (["pytorch_model.bin"], None, "a pickle runs code"),
    "a pickle beside": (["model.safetensors", "pytorch_model.bin"], None, "a pickle runs code"),
    "two formats": (["a.gguf", "b.safetensors"], None, "wanted one format"),
    "two files": (["a.gguf", "b.gguf"], None, "wanted one GGUF file, got 2"),
    "two checkpoints": (["a.safetensors", "b.safetensors"], None, "got 2 files"),
    "named, not there": (["a.gguf"], "b.gguf", "there is no such file"),
    "named, not weights": (["a.gguf", "x.json"], "x.json", "wanted a .gguf or .safetensors file"),
}


@pytest.mark.parametrize(("names", "file", "said"), WRONG_CHOICES.values(), ids=list(WRONG_CHOICES))
def test_folder_without_a_choice_is_refused_with_a_reason(tmp_path: Path, names: list[str], file: str | None, said: str) -> None:
    """A folder in which no file is the weights, or several are, says what to do."""
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path, names, file=file)

    assert said in str(caught.value)
