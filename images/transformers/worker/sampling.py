"""Choosing the next token from a model's scores."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import torch

from worker.sequence import Sampling

_COLDEST: Final = 1e-4
"""Below this, dividing by the temperature would leave the range of a float; the result is the most likely token anyhow."""


def chooser(sampling: Sampling) -> Callable[[torch.Tensor], int]:
    """
    Return what chooses the next token of one answer.

    Penalties first, then temperature, top-k and top-p, as the models' makers assume. Drawn on the CPU whatever the device, so
    a seed means the same on every box.
    """
    seen: Counter[int] = Counter()
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**64)
    penalised = bool(sampling.presence_penalty or sampling.frequency_penalty)

    def choose(scores: torch.Tensor) -> int:
        if penalised:
            scores = _penalise(scores, seen, sampling)
        token = int(scores.argmax()) if sampling.temperature < _COLDEST else _draw(scores, sampling, generator)
        if penalised:
            seen[token] += 1
        return token

    return choose


def _penalise(scores: torch.Tensor, seen: Counter[int], sampling: Sampling) -> torch.Tensor:
    if not seen:
        return scores
    tokens = torch.tensor(list(seen), device=scores.device)
    counts = torch.tensor(list(seen.values()), device=scores.device, dtype=scores.dtype)
    scores = scores.clone()
    scores[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return scores


def _draw(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    scores = scores.cpu() / sampling.temperature
    tokens = None
    if 0 < sampling.top_k < scores.numel():
        scores, tokens = scores.topk(sampling.top_k)
    if sampling.top_p < 1:
        scores, order = scores.sort(descending=True)
        tokens = order if tokens is None else tokens[order]
        chances = scores.softmax(-1)
        # A token stays if what is before it has not reached top_p yet: the most likely one always does.
        kept = max(1, int((chances.cumsum(-1) - chances < sampling.top_p).sum()))
        scores, tokens = scores[:kept], tokens[:kept]
    drawn = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
    return drawn if tokens is None else int(tokens[drawn])
