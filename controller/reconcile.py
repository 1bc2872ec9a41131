"""Desired minus observed is what has to be done. The only producer of container actions; pure."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from controller.charges import Account, Capacity, Charge
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
class Hold:
    """Start this model's container, and let its engine wait until it is let go: there is no room for it yet."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class LetGo:
    """Let the engine of a held container begin."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Stop:
    """End this model's container; what it held is free when the engine no longer shows it running."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete this model's container, which is not running."""

    model: ModelName


Action = Create | Start | Hold | LetGo | Stop | Remove


def diff(
    desired: Set[ModelName],
    workers: Mapping[ModelName, Worker],
    specs: Mapping[ModelName, WorkerSpec],
    capacity: Capacity,
    *,
    arriving: Sequence[ModelName] = (),
    may_hold: Callable[[ModelName], bool] = lambda _: False,
) -> tuple[Action, ...]:
    """
    Return what must go, then what may come and fits beside everything observed.

    What is to come and finds no room yet is held where *may_hold* says so: those desired, and those *arriving*, who are not
    desired before their victims can go. A container whose model is neither any more is ended, held or not.

    Stopping workers count: their memory is ours again only when the engine no longer shows them running. A running worker whose
    description has changed is left alone while it is desired; its container is made anew once it has stopped.
    """
    expected = {*desired, *arriving}
    actions: list[Action] = [Stop(m) for m, w in sorted(workers.items()) if _must_stop(m, w, desired, expected, specs)]
    outdated = {m for m, w in workers.items() if w.status is Status.STOPPED and _is_outdated(m, w, specs)}
    actions += [Remove(m) for m in sorted(outdated)]
    missing = [m for m in sorted(expected) if m not in workers and m in specs]
    spare = [m for m, w in sorted(workers.items()) if w.status is Status.STOPPED and m not in expected and m not in outdated]
    surplus = max(0, len(workers) - len(outdated) + len(missing) - MAX_CONTAINERS)
    actions += [Remove(m) for m in spare[:surplus]]
    actions += [Create(m) for m in missing[: len(missing) - max(0, surplus - len(spare))]]
    held = Account(_charge(w, specs) for w in workers.values() if w.holds)
    for model in sorted(desired):
        worker = workers.get(model)
        if worker is None or worker.status not in (Status.STOPPED, Status.HELD) or _is_outdated(model, worker, specs):
            continue
        charge = _charge(worker, specs)
        if held.fits(capacity, charge):
            held.add(charge)
            actions.append(Start(model) if worker.status is Status.STOPPED else LetGo(model))
    coming = {action.model for action in actions if isinstance(action, Start | LetGo)}
    for model in dict.fromkeys((*sorted(desired), *arriving)):
        stopped = model in workers and workers[model].status is Status.STOPPED
        if stopped and model not in outdated and model not in coming and may_hold(model):
            actions.append(Hold(model))
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


def _charge(worker: Worker, specs: Mapping[ModelName, WorkerSpec]) -> Charge:
    """Return what a worker takes; it shares its weights only if it is known to be made from today's description."""
    spec = specs.get(worker.model)
    if spec is None or spec.spec_hash != worker.spec_hash:
        return Charge(total_bytes=worker.memory_bytes, cards=worker.cards)
    shared_bytes = min(spec.weights_bytes, worker.memory_bytes)
    return Charge(total_bytes=worker.memory_bytes, weights=spec.weights, weights_bytes=shared_bytes, cards=worker.cards)


def _must_stop(
    model: ModelName,
    worker: Worker,
    desired: Set[ModelName],
    expected: Set[ModelName],
    specs: Mapping[ModelName, WorkerSpec],
) -> bool:
    if worker.status is Status.HELD:
        return model not in expected or _is_outdated(model, worker, specs)
    return model not in desired and worker.status in (Status.STARTING, Status.READY)


def _is_outdated(model: ModelName, worker: Worker, specs: Mapping[ModelName, WorkerSpec]) -> bool:
    spec = specs.get(model)
    described = None if spec is None else (spec.spec_hash, spec.memory_bytes, spec.cards)
    return described != (worker.spec_hash, worker.memory_bytes, worker.cards)
