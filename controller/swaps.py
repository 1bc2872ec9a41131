"""The times of loads and unloads under way: from what the pool and the crew note, the rows that journal and log get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from controller.journal import Load, Unload
from controller.probes.notices import Notices
from controller.readahead import LoadPlan
from controller.spec import ModelName, ModelSpec
from controller.state import Worker

log: Final = structlog.get_logger()

PARTS: Final[Mapping[str, str]] = {"main": "process_s", "tensors": "map_s"}
"""What the time up to a worker's mark is called, where it is not the mark's own name."""


@dataclass(slots=True, kw_only=True)
class Arrival:
    """
    A load under way: when what was done.

    Attributes:
        asked_s: when its oldest caller came.
        claimed_s: when the decision fell that it is to come.
        wanted_s: when its victims could go, and it was wanted.
        begun_s: when its container was told to start.
        started_s: when the engine said that it had.
        let_go_s: when there was room, and its engine could begin.
        held: the container was started before there was room.
        evicted: who left for it.
        plan: how its weights come into memory.

    """

    asked_s: float
    claimed_s: float
    wanted_s: float | None = None
    begun_s: float | None = None
    started_s: float | None = None
    let_go_s: float | None = None
    held: bool = False
    evicted: tuple[ModelName, ...] = ()
    plan: LoadPlan | None = None


@dataclass(slots=True, kw_only=True)
class Departure:
    """An unload under way: when it was told, and what the crew knows of its parts."""

    told_s: float
    parts: Mapping[str, float] = field(default_factory=dict)
    returned_bytes: int | None = None


class Swaps:
    """Remembers what is under way and puts it together when it is over."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with nothing under way."""
        self._clock = clock
        self._arrivals: dict[ModelName, Arrival] = {}
        self._departures: dict[ModelName, Departure] = {}

    # A load.

    def is_known(self, model: ModelName) -> bool:
        """Say whether a load of this model is under way."""
        return model in self._arrivals

    def claimed(self, model: ModelName, *, asked_s: float | None) -> None:
        """Note that a model is to come, maybe after others have gone."""
        now = self._clock()
        self._arrivals[model] = Arrival(asked_s=now if asked_s is None else asked_s, claimed_s=now)

    def wanted(self, model: ModelName, evicted: tuple[ModelName, ...]) -> None:
        """Note that a model is wanted, and who leaves for it."""
        now = self._clock()
        arrival = self._arrivals.setdefault(model, Arrival(asked_s=now, claimed_s=now))
        arrival.wanted_s, arrival.evicted = now, evicted
        log.info("model.wanted", model=model, evicting=list(evicted))

    def keep(self, models: frozenset[ModelName]) -> None:
        """Forget the loads of all but these."""
        for model in self._arrivals.keys() - models:
            del self._arrivals[model]

    def told_to_start(self, model: ModelName, *, held: bool) -> None:
        """Note that a container is told to start."""
        if arrival := self._arrivals.get(model):
            arrival.begun_s, arrival.started_s, arrival.held = self._clock(), None, held
            arrival.let_go_s = None if held else arrival.begun_s

    def told_to_begin(self, model: ModelName) -> None:
        """Note that there is room, and a held container is let go."""
        if arrival := self._arrivals.get(model):
            arrival.let_go_s = self._clock()

    def planned(self, model: ModelName, plan: LoadPlan) -> None:
        """Note how a model's weights come into memory."""
        if arrival := self._arrivals.get(model):
            arrival.plan = plan

    def started(self, model: ModelName) -> None:
        """Note that the engine has started a container."""
        if arrival := self._arrivals.get(model):
            arrival.started_s = self._clock()

    def arrived(self, spec: ModelSpec, notices: Notices | None) -> Load | None:
        """Note that a worker answers, and return its load, if it was one."""
        now, arrival = self._clock(), self._arrivals.pop(spec.name, None)
        if arrival is None or arrival.let_go_s is None or arrival.wanted_s is None:
            log.info("worker.ready", model=spec.name)
            return None
        load = _load(spec, arrival, notices or Notices(), now)
        log.info(
            "worker.ready",
            model=spec.name,
            took_s=round(load.total_s, 3),
            mode=load.mode,
            held=load.held,
            read_bytes=load.read_bytes,
            **{name: round(seconds, 3) for name, seconds in load.parts.items()},
        )
        return load

    # An unload.

    def told_to_stop(self, model: ModelName) -> None:
        """Note that a container is told to stop."""
        self._departures[model] = Departure(told_s=self._clock())

    def ended(self, model: ModelName, parts: Mapping[str, float], *, returned_bytes: int | None) -> None:
        """Note what ending a container was made of."""
        if departure := self._departures.get(model):
            departure.parts, departure.returned_bytes = parts, returned_bytes

    def departed(self, worker: Worker) -> Unload | None:
        """Note that a worker is not running, and return its unload, if that is news and was asked for."""
        departure = self._departures.pop(worker.model, None)
        if departure is None:
            return None
        now = self._clock()
        unload = Unload(
            model=worker.model,
            at_s=now,
            seconds=now - departure.told_s,
            memory_bytes=worker.memory_bytes,
            parts=departure.parts,
            returned_bytes=departure.returned_bytes,
        )
        rounded = {name: round(seconds, 3) for name, seconds in unload.parts.items()}
        log.info("worker.stopped", model=worker.model, took_s=round(unload.seconds, 3), **rounded)
        return unload


def _load(spec: ModelSpec, arrival: Arrival, notices: Notices, now: float) -> Load:
    assert arrival.wanted_s is not None, "who was not wanted has not come"
    assert arrival.let_go_s is not None, "who was not let go has not come"
    began_s = max(arrival.let_go_s, arrival.started_s or arrival.let_go_s)
    reading, plan = notices.reading, arrival.plan
    return Load(
        model=spec.name,
        at_s=now,
        weights_bytes=spec.weights_bytes,
        room_s=arrival.let_go_s - arrival.wanted_s,
        start_s=began_s - arrival.let_go_s,
        ready_s=now - began_s,
        evicted=arrival.evicted,
        held=arrival.held,
        mode=plan.mode.value if plan else "",
        cached_bytes=plan.cached_bytes if plan else None,
        read_bytes=_read_bytes(notices),
        parts={
            "decide_s": max(0.0, arrival.claimed_s - arrival.asked_s),
            "drain_s": arrival.wanted_s - arrival.claimed_s,
            "kill_s": arrival.let_go_s - arrival.wanted_s,
            **({"container_s": arrival.started_s - arrival.begun_s} if arrival.started_s and arrival.begun_s else {}),
            **({"read_s": reading.ended_s - reading.began_s} if reading else {}),
            **_worker_parts(notices.marks, began_s=began_s, now=now),
        },
    )


def _read_bytes(notices: Notices) -> int | None:
    """Add up what the start has read from disks, as far as the worker says."""
    told = [notices.reading.read_bytes if notices.reading else None, notices.read_bytes]
    known = [count for count in told if count is not None and count >= 0]
    return sum(known) if known else None


def _worker_parts(marks: Mapping[str, float], *, began_s: float, now: float) -> dict[str, float]:
    """Turn moments into durations, in the order they came; what is before the start or after now is not believed."""
    parts: dict[str, float] = {}
    before_s = began_s
    for name, at_s in marks.items():
        if before_s <= at_s <= now:
            parts[PARTS.get(name, f"{name}_s")] = at_s - before_s
            before_s = at_s
    if parts:
        parts["notice_s"] = now - before_s
    return parts
