"""
How hard a request looks, and how long it is: cheap signals, no model involved.

Each signal adds its weight, and the sum, capped at 1, is the difficulty. The router picks a model's tier by it.

| signal | weight | holds when |
|---|---|---|
| `length` | up to 0.25 | grows with the logarithm of the prompt, full at 4,000 tokens |
| `code` | 0.25 | a code fence, or two lines that look like source |
| `math` | 0.20 | LaTeX, an equation, or words of mathematics |
| `reasoning` | 0.25 | asks to prove, compare, derive, analyse, design, debug, or to go step by step |
| `question` | 0.05 | asks why or how |
| `conversation` | up to 0.10 | full at ten turns |
| `tools` | 0.20 | offers tools |
| `long_answer` | 0.10 | asks for more than 1,024 tokens |
| `structured` | 0.10 | wants JSON of a given schema |

At most 4,096 characters of the start and as many of the end are looked at, so a long prompt costs no more than a short one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CHARACTERS_PER_TOKEN: Final = 4
"""What tokenizers of today make of English text; languages without spaces are counted by their UTF-8 bytes."""
SCANNED_CHARACTERS: Final = 4096
_FULL_LENGTH_TOKENS: Final = 4000
_FULL_TURNS: Final = 10
_LONG_ANSWER_TOKENS: Final = 1024

_CODE: Final = re.compile(
    r"```|(?:^\s*(?:def |class |import |from \w+ import|#include|function |const |let |SELECT |return\b).*$\s*){2}", re.M
)
_MATH: Final = re.compile(
    r"\$\$|\\(?:frac|sum|int|begin\{)|\b(?:integral|derivative|theorem|equation|probability|matrix|polynomial)\b|\d\s*[=^*/]\s*\d",
    re.I,
)
_REASONING: Final = re.compile(
    r"\b(?:prove|proof|derive|step[- ]by[- ]step|compare|analy[sz]e|design|debug|refactor|trade-?offs?|in detail|evaluate)\b",
    re.I,
)
_QUESTION: Final = re.compile(r"\b(?:why|how)\b", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What the signals say: the difficulty from 0 to 1, and which of them made it."""

    difficulty: float
    signals: tuple[str, ...]


def estimate_tokens(texts: Sequence[str], *, turns: int = 0) -> int:
    """Estimate the tokens of *texts*; each turn of a conversation costs four more for its frame."""
    size = 0
    for text in texts:
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // CHARACTERS_PER_TOKEN) + 4 * turns


def sample(texts: Sequence[str]) -> str:
    """Return the start and the end of *texts*, as much as is looked at."""
    head, room = [], SCANNED_CHARACTERS
    for text in texts:
        if room <= 0:
            break
        head.append(text[:room])
        room -= len(text)
    if room > 0:
        return "\n".join(head)
    tail, room = [], SCANNED_CHARACTERS
    for text in reversed(texts):
        if room <= 0:
            break
        tail.append(text[-room:])
        room -= len(text)
    return "\n".join([*head, *reversed(tail)])


def weigh(
    texts: Sequence[str],
    *,
    prompt_tokens: int,
    turns: int = 1,
    tools: bool = False,
    max_tokens: int = 0,
    structured: bool = False,
) -> Weighed:
    """Say how hard a request looks."""
    text = sample(texts)
    weights = {
        "length": min(1.0, math.log1p(prompt_tokens) / math.log1p(_FULL_LENGTH_TOKENS)) ** 2 * 0.25,
        "code": 0.25 if _CODE.search(text) else 0.0,
        "math": 0.20 if _MATH.search(text) else 0.0,
        "reasoning": 0.25 if _REASONING.search(text) else 0.0,
        "question": 0.05 if _QUESTION.search(text) else 0.0,
        "conversation": min(1.0, (turns - 1) / _FULL_TURNS) * 0.10 if turns > 1 else 0.0,
        "tools": 0.20 if tools else 0.0,
        "long_answer": 0.10 if max_tokens > _LONG_ANSWER_TOKENS else 0.0,
        "structured": 0.10 if structured else 0.0,
    }
    return Weighed(
        difficulty=round(min(1.0, sum(weights.values())), 3),
        signals=tuple(f"{name} {weight:.2f}" for name, weight in weights.items() if weight >= 0.01),
    )
