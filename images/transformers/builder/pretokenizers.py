r"""
Recognises how a tokenizer splits text before it merges bytes, by the rule that its `tokenizer.json` states.

A converter that knows tokenizers by what they make of one sample text knows those of published models alone; a vocabulary of
one's own on a published rule is none of them. A rule that is not listed here is refused: with a wrong one, a model reads other
tokens than it was trained on, and answers a little worse without anybody seeing why.
"""

import json
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError

_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS: Final = {
    _WORDS % r"\p{N}": "qwen2",
    _WORDS % r"\p{N}{1,3}": "llama-bpe",
}
"""What llama.cpp calls the rule, by its pattern."""


def recognise(file: Path) -> str:
    """
    Return llama.cpp's name for the rule in a `tokenizer.json`.

    Raises:
        BuildError: there is no such file, or its rule has no name.

    """
    if not file.is_file():
        raise BuildError("wanted tokenizer.json, since its way to split text is known by nothing else; copy the whole checkpoint")
    rule = json.loads(file.read_bytes()).get("pre_tokenizer") or {}
    name = _name(rule.get("pretokenizers", [rule]))
    if name is None:
        raise BuildError(
            "tokenizer.json splits text by a rule that llama.cpp has no name for, so its GGUF would read other tokens than the "
            "model was trained on; serve it by engine transformers, without `quantization`"
        )
    return name


def _name(rules: list[dict[str, Any]]) -> str | None:
    if not rules or rules[-1].get("type") != "ByteLevel" or rules[-1].get("add_prefix_space"):
        return None
    by_words = rules[-1].get("use_regex", True)
    match rules[:-1]:
        case []:
            return "gpt-2" if by_words else None
        case [{"type": "Digits", "individual_digits": True}]:
            return "smollm" if by_words else None
        case [{"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": str(pattern)}}]:
            return None if by_words else _SPLITS.get(pattern)
        case _:
            return None
