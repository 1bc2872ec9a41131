"""What is asked of the simulated box: twelve models of unequal size and popularity, and chats that come by chance."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from controller.spec import ModelName

MODELS: Final = 12
SMALLEST_BYTES: Final = 400_000_000
LARGEST_BYTES: Final = 2_900_000_000
ZIPF_EXPONENT: Final = 1.0
SERVICE_MEDIAN_S: Final = 1.4
SERVICE_SIGMA: Final = 0.5
"""
A chat's time on the accelerator is lognormal, 1.6 s in the mean: most answers are a few sentences, some are long. With it one
request after the other is just too much for FIFO + LRU at 0.42 requests per second, and 0.47 keep the accelerator at work for
three quarters of the time.
"""
SERVICE_MAX_S: Final = 10.0
"""Where `max_tokens` ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model, and the share of all requests that it gets."""

    name: ModelName
    memory_bytes: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request: when it comes, for which model, and how long the accelerator works on it."""

    number: int
    at_s: float
    model: ModelName
    service_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One run's worth of requests."""

    models: Sequence[Model]
    jobs: Sequence[Job]


def make(*, rate_per_s: float, duration_s: float, seed: int) -> Workload:
    """
    Make the requests of one run.

    Sizes go evenly from the smallest to the largest; which size is how popular is drawn anew for each seed. Popularity falls by
    Zipf's law, arrivals are a Poisson process.
    """
    dice = random.Random(seed)  # noqa: S311  # chance that can be repeated
    step_bytes = (LARGEST_BYTES - SMALLEST_BYTES) // (MODELS - 1)
    sizes = [SMALLEST_BYTES + step_bytes * i for i in range(MODELS)]
    dice.shuffle(sizes)
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, MODELS + 1)]
    models = [
        Model(name=ModelName(f"m{rank:02}"), memory_bytes=size, share=weight / sum(weights))
        for rank, (size, weight) in enumerate(zip(sizes, weights, strict=True), start=1)
    ]
    gaps = (dice.expovariate(rate_per_s) for _ in range(int(duration_s * rate_per_s * 2)))
    times = [at_s for at_s in accumulate(gaps) if at_s < duration_s]
    wanted = dice.choices([m.name for m in models], weights, k=len(times))
    jobs = [
        Job(number=number, at_s=at_s, model=name, service_s=_service_s(dice))
        for number, (at_s, name) in enumerate(zip(times, wanted, strict=True))
    ]
    return Workload(models=models, jobs=jobs)


def _service_s(dice: random.Random) -> float:
    return min(SERVICE_MAX_S, SERVICE_MEDIAN_S * dice.lognormvariate(0.0, SERVICE_SIGMA))
