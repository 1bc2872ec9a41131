"""Desired minus observed is what has to be done. The only producer of container actions; pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from controller.spec import ModelName, WorkerSpec
from controller.state import Status, Worker

MAX_CONTAINERS: Final = 64
"""Containers that exist at once, running or not; further models are rows until they are asked for."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make this model's container."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Start:
    """Start this model's container."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Stop:
    """End this model's container; what it held is free when the engine no longer shows it running."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete this model's container, which is not running."""

    model: ModelName


Action = Create | Start | Stop | Remove


def diff(
    desired: Set[ModelName],
    workers: Mapping[ModelName, Worker],
    specs: Mapping[ModelName, WorkerSpec],
    budget_bytes: int,
) -> tuple[Action, ...]:
    """
    Return what must go, then what may come and fits beside everything observed.

    Stopping workers count: their memory is ours again only when the engine no longer shows them running. A running worker whose
    description has changed is left alone while it is desired; its container is made anew once it has stopped.
    """
    actions: list[Action] = [Stop(m) for m, w in sorted(workers.items()) if _must_stop(m, w, desired)]
    outdated = {m for m, w in workers.items() if w.status is Status.STOPPED and _is_outdated(m, w, specs)}
    actions += [Remove(m) for m in sorted(outdated)]
    missing = [m for m in sorted(desired) if m not in workers and m in specs]
    spare = [m for m, w in sorted(workers.items()) if w.status is Status.STOPPED and m not in desired and m not in outdated]
    surplus = max(0, len(workers) - len(outdated) + len(missing) - MAX_CONTAINERS)
    actions += [Remove(m) for m in spare[:surplus]]
    actions += [Create(m) for m in missing[: len(missing) - max(0, surplus - len(spare))]]
    held_bytes = sum(w.held_bytes for w in workers.values())
    for model in sorted(desired):
        worker = workers.get(model)
        if worker is None or worker.status is not Status.STOPPED or model in outdated:
            continue
        if held_bytes + worker.memory_bytes <= budget_bytes:
            held_bytes += worker.memory_bytes
            actions.append(Start(model))
    return tuple(actions)


def prepare(
    workers: Mapping[ModelName, Worker], specs: Mapping[ModelName, WorkerSpec], *, without: Set[ModelName] = frozenset()
) -> Create | None:
    """
    Return the next container worth making ahead of its first request, one at a time so that it delays nothing.

    *without* are models whose container could not be made lately.
    """
    if len(workers) >= MAX_CONTAINERS:
        return None
    return next((Create(m) for m in specs if m not in workers and m not in without), None)


def _must_stop(model: ModelName, worker: Worker, desired: Set[ModelName]) -> bool:
    return model not in desired and worker.status in (Status.STARTING, Status.READY)


def _is_outdated(model: ModelName, worker: Worker, specs: Mapping[ModelName, WorkerSpec]) -> bool:
    spec = specs.get(model)
    return spec is None or spec.spec_hash != worker.spec_hash or spec.memory_bytes != worker.memory_bytes
