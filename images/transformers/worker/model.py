"""A loaded checkpoint: what continues text, and what turns text into vectors."""

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

import torch

from worker import sampling
from worker.prompts import Tokenizer
from worker.sequence import Sampling

Pooling = Literal["mean", "cls", "last"]


class TorchContext:
    """What the model has read for one answer: its keys and values, or the tokens themselves where it keeps none that we know."""

    def __init__(self, model: torch.nn.Module, *, last_only: bool) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._options = {"logits_to_keep": 1} if last_only else {}
        self._cache: Any = None
        self._tokens: list[int] = []
        self._cached = True

    def feed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read more tokens and return the scores of what may come next."""
        if not self._cached:
            self._tokens += tokens
            tokens = self._tokens
        ids = torch.tensor([list(tokens)], device=self._device)
        result = self._model(
            input_ids=ids, past_key_values=self._cache, use_cache=self._cached, return_dict=True, **self._options
        )
        if self._cached:
            self._cache = getattr(result, "past_key_values", None)
            if self._cache is None:
                # A recurrent model, for example: right, if slow, to read everything again for each token.
                self._cached, self._tokens = False, list(tokens)
        scores: torch.Tensor = result.logits[0, -1].float()
        return scores


class TorchModel:
    """A causal language model with its tokenizer."""

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer, *, eos_tokens: frozenset[int]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.eos_tokens = eos_tokens

    def begin(self) -> TorchContext:
        """Start with nothing read."""
        return TorchContext(self._model, last_only=self._last_only)

    def chooser(self, how: Sampling) -> Callable[[torch.Tensor], int]:
        """Return what chooses the next token from scores."""
        return sampling.chooser(how)

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, without special tokens."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class Embedder:
    """The part of a model below its head, pooled to one vector of length 1."""

    def __init__(self, body: torch.nn.Module, *, pooling: Pooling) -> None:
        self._body = body
        self._device = next(body.parameters()).device
        self._pooling = pooling
        self._options = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}

    def embed(self, inputs: Sequence[Sequence[int]], emit: Callable[[list[list[float]]], None]) -> Generator[None, None, None]:
        """Turn each input into a vector, an input a step; all of them to *emit* at the end."""
        vectors = []
        for tokens in inputs:
            vectors.append(self._vector(tokens))
            yield
        emit(vectors)

    def _vector(self, tokens: Sequence[int]) -> list[float]:
        ids = torch.tensor([list(tokens)], device=self._device)
        hidden = self._body(input_ids=ids, return_dict=True, **self._options).last_hidden_state[0].float()
        match self._pooling:
            case "mean":
                pooled = hidden.mean(0)
            case "cls":
                pooled = hidden[0]
            case "last":
                pooled = hidden[-1]
        vector: list[float] = torch.nn.functional.normalize(pooled, dim=0).tolist()
        return vector
