"""A checkpoint in memory, as the routes see it: torch is behind it and not in sight."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.prompts import Prompts
from worker.sequence import Finished, Job, Piece

Vectors = list[list[float]]
Continues = Callable[[Job, Callable[[Piece | Finished], None]], Generator[None, None, None]]
"""Answers a job in small steps, text to whoever listens as it comes, `Finished` last."""


class Embedding(Protocol):
    """A model that turns text into vectors."""

    def embed(self, inputs: Sequence[Sequence[int]], emit: Callable[[Vectors], None]) -> Generator[None, None, None]:
        """Turn each input into a vector, an input a step; all of them to *emit* at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    A checkpoint in memory.

    Attributes:
        prompts: turns what callers send into tokens.
        causal: continues text, if it can.
        embedder: makes vectors, if it was asked for.
        context_tokens: prompt and answer together, for one caller.
        defaults: the sampling its makers recommend: temperature, top_p, top_k.
        device: `cpu` or `cuda`.

    """

    prompts: Prompts
    causal: Continues | None
    embedder: Embedding | None
    context_tokens: int
    defaults: Mapping[str, float]
    device: str
