"""
A byte-level BPE vocabulary as `tokenizer.json` describes it, and how it is written into a GGUF.

It can be stretched: words that no merge leads to are added until the vocabulary has the size that a model's shape wants.
They are never read from a text, and when a model of random weights writes one it is a readable word.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Final, Self

import gguf

END: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SPLIT: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is cut before merging; llama.cpp knows the same cuts by the name in `_SPLIT_NAME`."""
_SPLIT_NAME: Final = "qwen2"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """
    Tokens in the order of their numbers, and the merges that lead to them.

    Attributes:
        description: the content of `tokenizer.json`.
        tokens: each token, in the printable form that byte-level BPE uses.
        special: the tokens that steer and are never text.

    """

    description: dict[str, Any]
    tokens: tuple[str, ...]
    special: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `tokenizer.json`."""
        return cls.parse(path.read_text())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take the vocabulary from the text of a `tokenizer.json`."""
        description = json.loads(text)
        numbers: dict[str, int] = description["model"]["vocab"]
        special = frozenset(token["content"] for token in description["added_tokens"])
        return cls(description=description, tokens=tuple(sorted(numbers, key=numbers.__getitem__)), special=special)

    def stretched(self, size: int) -> Self:
        """Return this vocabulary with as many words that no text contains as are missing to `size` tokens."""
        if size < len(self.tokens):
            raise ValueError(f"the vocabulary has {len(self.tokens)} tokens, which is more than the {size} that are wanted")
        tokens = self.tokens + tuple(f"\u0120w{number}" for number in range(len(self.tokens), size))
        model = self.description["model"] | {"vocab": {token: number for number, token in enumerate(tokens)}}
        return dataclasses.replace(self, tokens=tokens, description=self.description | {"model": model})

    def number(self, token: str) -> int:
        """Return the number of a token."""
        return self.tokens.index(token)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """Add tokens, merges, special tokens and the chat template to a GGUF."""
        kinds = [gguf.TokenType.CONTROL if token in self.special else gguf.TokenType.NORMAL for token in self.tokens]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in self.description["model"]["merges"]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_SPLIT_NAME)
        writer.add_token_list(self.tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(self.number(END))
        writer.add_eos_token_id(self.number(TURN_END))
        writer.add_eot_token_id(self.number(TURN_END))
        writer.add_pad_token_id(self.number(END))
        writer.add_add_bos_token(value=False)
        writer.add_chat_template(CHAT_TEMPLATE)

    def write_for_transformers(self, folder: Path, context: int) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` the way `AutoTokenizer` reads them."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": TURN_END,
            "pad_token": END,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
            "chat_template": CHAT_TEMPLATE,
        }
        (folder / "tokenizer.json").write_text(json.dumps(self.description, ensure_ascii=False, indent=1) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    def ids(self) -> dict[str, object]:
        """Return the numbers of the special tokens as `config.json` wants them."""
        end, turn_end = self.number(END), self.number(TURN_END)
        return {"bos_token_id": end, "eos_token_id": [turn_end, end], "pad_token_id": end}
