"""What the builder decides where torch is not installed: how a tokenizer splits text, and what it refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "images" / "transformers"))

from builder import checkpoint, pretokenizers
from builder.errors import BuildError

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern: str, **changes: object) -> dict[str, Any]:
    """Write a rule that splits by a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **changes}


def in_bytes(**changes: object) -> dict[str, Any]:
    """Write the rule that turns text into bytes."""
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, **changes}


def recognised(folder: Path, *rules: dict[str, Any]) -> str:
    """Write a tokenizer with these rules and recognise it."""
    file = folder / "tokenizer.json"
    rule = rules[0] if len(rules) == 1 else {"type": "Sequence", "pretokenizers": list(rules)}
    file.write_text(json.dumps({"pre_tokenizer": rule}))
    return pretokenizers.recognise(file)


def test_the_published_rules_are_recognised(tmp_path: Path) -> None:
    """By what they state, whatever the vocabulary is."""
    thrice = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

    assert "qwen2" == recognised(tmp_path, split(QWEN2), in_bytes())
    assert "llama-bpe" == recognised(tmp_path, split(thrice), in_bytes())
    assert "gpt-2" == recognised(tmp_path, in_bytes(use_regex=True))
    assert "smollm" == recognised(tmp_path, {"type": "Digits", "individual_digits": True}, in_bytes(use_regex=True))


@pytest.mark.parametrize(
    "rules",
    [
        [split(r"\p{L}{1,3}"), in_bytes()],
        [split(QWEN2, invert=True), in_bytes()],
        [split(QWEN2, behavior="Removed"), in_bytes()],
        [split(QWEN2), in_bytes(use_regex=True)],
        [split(QWEN2), in_bytes(add_prefix_space=True)],
        [split(QWEN2)],
        [in_bytes()],
        [{"type": "Digits", "individual_digits": False}, in_bytes(use_regex=True)],
        [{"type": "Metaspace"}],
    ],
)
def test_a_rule_that_only_looks_alike_is_refused(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    """One that splits otherwise in a single place would make a model a little worse, and nobody would see why."""
    with pytest.raises(BuildError, match="no name for"):
        recognised(tmp_path, *rules)


def test_a_tokenizer_without_its_rule_is_refused(tmp_path: Path) -> None:
    """The text names the file that is missing."""
    with pytest.raises(BuildError, match=r"tokenizer\.json"):
        pretokenizers.recognise(tmp_path / "tokenizer.json")


def test_an_adapter_beside_the_weights_is_no_part_of_them(tmp_path: Path) -> None:
    """What is merged is not converted."""
    for name in ("adapter_model.safetensors", "model-00001-of-00001.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()

    assert ["model-00001-of-00001.safetensors"] == [file.name for file in checkpoint.weights(tmp_path)]
    checkpoint.check_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BuildError, match="tokenizer"):
        checkpoint.check_tokenizer(tmp_path)
