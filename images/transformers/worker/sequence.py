"""
One answer, as a chain of small steps.

`generate` is a generator: every `next` is one piece of work for the processor (a chunk of the prompt or one token), so several
answers can take turns and one whose caller has gone can be closed between two tokens. It knows neither torch nor HTTP.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from worker.detokenizer import Detokenizer
from worker.stops import StopFinder

PREFILL_CHUNK_TOKENS: Final = 512
"""How much of a prompt is read at once: others wait this long at most for their next token."""

FinishReason = Literal["stop", "length"]
Scores: TypeAlias = Any
"""What a model says about the next token: a torch tensor, which this module never looks into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """
    How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token, always.
        top_p: choose among the most likely tokens that together have this probability.
        top_k: choose among this many; 0 for all.
        presence_penalty: taken off every token the answer has already.
        frequency_penalty: taken off once for each time it has it.
        seed: the same seed gives the same answer; None draws one.

    """

    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one answer is to be."""

    prompt: tuple[int, ...]
    max_tokens: int
    stops: tuple[str, ...]
    sampling: Sampling
    ignore_eos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long an answer took, counted from its first step; the names are those of llama.cpp's server."""

    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer is complete."""

    reason: FinishReason
    timings: Timings


class Context(Protocol):
    """What the model has read so far, for one answer."""

    def feed(self, tokens: Sequence[int]) -> Scores:
        """Read more tokens and return the scores of what may come next."""
        ...


class Model(Protocol):
    """A model that continues text."""

    @property
    def eos_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        ...

    def begin(self) -> Context:
        """Start with nothing read."""
        ...

    def chooser(self, sampling: Sampling) -> Callable[[Scores], int]:
        """Return what chooses the next token from scores."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, without special tokens."""
        ...


def generate(model: Model, job: Job, emit: Callable[[Piece | Finished], None]) -> Generator[None, None, None]:
    """Answer *job*: one chunk of the prompt or one token a step, text to *emit* as it comes, `Finished` last."""
    begun_s = time.monotonic()
    context, choose = model.begin(), model.chooser(job.sampling)
    scores: Scores = None
    for start in range(0, len(job.prompt), PREFILL_CHUNK_TOKENS):
        scores = context.feed(job.prompt[start : start + PREFILL_CHUNK_TOKENS])
        yield
    prefilled_s = time.monotonic()
    text, stops = Detokenizer(model.decode, job.prompt), StopFinder(job.stops)
    reason: FinishReason = "length"
    produced = 0
    while produced < job.max_tokens:
        token = choose(scores)
        produced += 1
        if token in model.eos_tokens and not job.ignore_eos:
            reason = "stop"
            break
        _show(emit, stops.push(text.push(token)))
        if stops.found:
            reason = "stop"
            break
        if produced < job.max_tokens:
            yield
            scores = context.feed((token,))
    _show(emit, stops.push(text.flush()) + stops.flush())
    now_s = time.monotonic()
    emit(
        Finished(
            reason="stop" if stops.found else reason,
            timings=Timings(
                prompt_n=len(job.prompt),
                prompt_ms=(prefilled_s - begun_s) * 1000,
                predicted_n=produced,
                predicted_ms=(now_s - prefilled_s) * 1000,
            ),
        )
    )


def _show(emit: Callable[[Piece | Finished], None], text: str) -> None:
    if text:
        emit(Piece(text=text))
