"""
Several workers of one model: how they are told apart, and which of them a caller is sent to. Pure.

A replica is a worker with a name of its own, `model~2`, `model~3`, made from the same description. Callers ask for the model,
never for a replica. The first of a model's workers that is in memory is its *principal*, which
waiting callers keep in memory. The others come when callers wait and memory is free, take nobody's place, and go like any idle
worker.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.spec import ModelName, ModelSpec, Tier

SEPARATOR: Final = "~"
"""No model's name has it."""


def replica_name(model: ModelName, number: int) -> ModelName:
    """Return the name of a model's worker, counted from 1; the first has the model's own."""
    return model if number == 1 else ModelName(f"{model}{SEPARATOR}{number}")


def model_of(worker: ModelName) -> ModelName:
    """Return whose replica a worker is."""
    return ModelName(worker.partition(SEPARATOR)[0])


def names(model: ModelName, specs: Mapping[ModelName, ModelSpec]) -> tuple[ModelName, ...]:
    """Return the names of all workers that a model may have, its own first."""
    count = specs[model].replicas if model in specs else 1
    return tuple(replica_name(model, number) for number in range(1, count + 1))


def expand(models: Mapping[ModelName, ModelSpec]) -> Mapping[ModelName, ModelSpec]:
    """
    Return what the workers of these models are made from, by the name of the worker.

    A replica is not wished for, as its model may be, and leaves when it has been idle for long, whatever its model's tier.
    """
    extra = {
        name: replace(spec, name=name, replica_of=spec.name, replicas=1, pinned=False, tier=Tier.LARGE)
        for spec in models.values()
        if spec.replicas > 1
        for name in names(spec.name, models)[1:]
    }
    return {**models, **extra} if extra else models
