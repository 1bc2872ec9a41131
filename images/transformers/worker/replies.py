"""What callers get: bodies and chunks as OpenAI writes them, with llama.cpp's `timings` beside them."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.sequence import FinishReason, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One complete answer."""

    text: str
    reason: FinishReason
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """
    How one request's answer is written.

    Attributes:
        chat: as chat messages, else as bare text.
        model: the name of the model that answers.
        reply_id: the answer's own name.
        created_s: when it began, in seconds of Unix time.

    """

    chat: bool
    model: str
    reply_id: str
    created_s: int

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Write a complete answer."""
        written = [
            {
                "index": index,
                **(
                    {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
                    if self.chat
                    else {"text": choice.text}
                ),
                "logprobs": None,
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ]
        timings = [choice.timings for choice in choices]
        return {**self._head("chat.completion"), "choices": written, "usage": usage(timings), "timings": timed(timings)}

    def opening(self, index: int) -> dict[str, Any]:
        """Write the first chunk of a chat answer, which names the role."""
        return self._chunk(
            {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        )

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """Write a chunk with more text."""
        content = {"delta": {"content": text}} if self.chat else {"text": text}
        return self._chunk({"index": index, **content, "logprobs": None, "finish_reason": None})

    def closing(self, index: int, reason: FinishReason) -> dict[str, Any]:
        """Write the chunk that says why an answer ended."""
        content: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        return self._chunk({"index": index, **content, "logprobs": None, "finish_reason": reason})

    def summary(self, timings: Sequence[Timings]) -> dict[str, Any]:
        """Write the usage chunk, which has no choices."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(timings)}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.reply_id,
            "object": kind if self.chat else "text_completion",
            "created": self.created_s,
            "model": self.model,
        }


def usage(timings: Sequence[Timings]) -> dict[str, int]:
    """Count the tokens read and written."""
    prompt, completion = sum(t.prompt_n for t in timings), sum(t.predicted_n for t in timings)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def timed(timings: Sequence[Timings]) -> dict[str, float]:
    """Write the timings as llama.cpp's server does; `cache_n` is 0 because every prompt is read whole."""
    prompt_n, predicted_n = sum(t.prompt_n for t in timings), sum(t.predicted_n for t in timings)
    prompt_ms, predicted_ms = sum(t.prompt_ms for t in timings), sum(t.predicted_ms for t in timings)
    return {
        "cache_n": 0,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_second": prompt_n * 1000 / prompt_ms if prompt_ms else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_second": predicted_n * 1000 / predicted_ms if predicted_ms else 0.0,
    }


def embeddings(vectors: Sequence[Sequence[float]], *, model: str, prompt_tokens: int, as_base64: bool) -> dict[str, Any]:
    """Write vectors, as numbers or as base64 of little-endian 32-bit floats."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else list(vector)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
