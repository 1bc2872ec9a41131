"""What happened lately: requests answered and loads done, for `/performance`. Kept in memory, bounded."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.spec import ModelName

MAX_SAMPLES: Final = 20_000
"""Requests remembered, all models together; the oldest are forgotten first."""
MAX_LOADS: Final = 1_000
SHOWN: Final = 50
"""Loads and unloads told one by one, the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    One request that got a lease.

    Attributes:
        model: which model served it.
        at_s: when it ended, on the core's clock.
        outcome: `ok`, `error` or `cancelled`.
        waited_s: from the request to the lease.
        first_token_s: from the lease to the first byte of the answer, where it streamed.
        total_s: from the lease to its end.
        prompt_tokens: of the prompt.
        completion_tokens: of the answer.

    """

    model: ModelName
    at_s: float
    outcome: str
    waited_s: float
    first_token_s: float | None
    total_s: float
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    One model that became ready, with where the time went.

    Attributes:
        model: which model.
        at_s: when it was ready, on the core's clock.
        weights_bytes: how much there was to read.
        room_s: from the moment its victims could go until their memory was back and its engine could begin.
        start_s: what of the container's start came after that.
        ready_s: the worker's part: from its start until it answered.
        evicted: who left for it.
        held: its container was started, and its weights were read, before there was room for it.
        mode: how its weights came into memory.
        cached_bytes: how much of them was in the page cache when its container was about to start.
        read_bytes: what the start read from disks, where the worker says.
        parts: every part that is known, in seconds, by name; what ran beside others is among them.
        first_token_s: from its first lease to the first byte of that answer, once there is one.

    """

    model: ModelName
    at_s: float
    weights_bytes: int
    room_s: float
    start_s: float
    ready_s: float
    evicted: tuple[ModelName, ...] = ()
    held: bool = False
    mode: str = ""
    cached_bytes: int | None = None
    read_bytes: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    first_token_s: float | None = None

    @property
    def total_s(self) -> float:
        """From the decision to ready."""
        return self.room_s + self.start_s + self.ready_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Unload:
    """
    One model that left memory.

    Attributes:
        model: which model.
        at_s: when it was gone, on the core's clock.
        seconds: from the word that it is to end until the engine no longer showed it and its memory was back.
        memory_bytes: its limit.
        parts: what that time was made of, by name.
        returned_bytes: by how much the memory that can be had has risen meanwhile, for whatever reason.

    """

    model: ModelName
    at_s: float
    seconds: float
    memory_bytes: int
    parts: Mapping[str, float] = field(default_factory=dict)
    returned_bytes: int | None = None


class Journal:
    """Remembers; answers for a window of time."""

    def __init__(self) -> None:
        """Start empty."""
        self._served: deque[Served] = deque(maxlen=MAX_SAMPLES)
        self._loads: deque[Load] = deque(maxlen=MAX_LOADS)
        self._unloads: deque[Unload] = deque(maxlen=MAX_LOADS)
        self.totals: dict[str, int] = {"requests": 0, "errors": 0, "cancelled": 0, "loads": 0, "unloads": 0, "failures": 0}

    def add(self, event: Served | Load | Unload) -> None:
        """Remember one event."""
        match event:
            case Served():
                self._served.append(event)
                self.totals["requests"] += 1
                self.totals["errors"] += event.outcome == "error"
                self.totals["cancelled"] += event.outcome == "cancelled"
            case Load():
                self._loads.append(event)
                self.totals["loads"] += 1
            case Unload():
                self._unloads.append(event)
                self.totals["unloads"] += 1

    def first_token(self, model: ModelName, seconds: float) -> None:
        """Note how long the first answer after a model's last load took to begin."""
        for number in range(len(self._loads) - 1, -1, -1):
            load = self._loads[number]
            if load.model == model:
                if load.first_token_s is None:
                    self._loads[number] = replace(load, first_token_s=seconds)
                return

    def failed(self) -> None:
        """Count a worker that ended without being asked to."""
        self.totals["failures"] += 1

    def performance(self, now: float, *, window_s: float) -> dict[str, Any]:
        """Return figures for everything that ended within the last *window_s*, as `GET /performance` shows them."""
        since_s = now - window_s
        served = [s for s in self._served if s.at_s >= since_s]
        loads = [load for load in self._loads if load.at_s >= since_s]
        unloads = [u for u in self._unloads if u.at_s >= since_s]
        models = sorted({s.model for s in served} | {load.model for load in loads} | {u.model for u in unloads})
        return {
            "window_s": window_s,
            "totals": {**self.totals, **_requests(served), **_swaps(loads, unloads)},
            "models": [
                {
                    "model": model,
                    **_requests([s for s in served if s.model == model]),
                    **_swaps([load for load in loads if load.model == model], [u for u in unloads if u.model == model]),
                }
                for model in models
            ],
            "recent_loads": [_load_row(load, now) for load in loads[-SHOWN:]],
            "recent_unloads": [_unload_row(unload, now) for unload in unloads[-SHOWN:]],
        }


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank percentile (0.5 is the median), or nothing of nothing."""
    ranked = sorted(values)
    if not ranked:
        return None
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _requests(served: Sequence[Served]) -> dict[str, Any]:
    answered = [s for s in served if s.outcome == "ok"]
    decoding_s = sum(max(0.0, s.total_s - (s.first_token_s or 0.0)) for s in answered if s.completion_tokens)
    tokens = sum(s.completion_tokens for s in answered)
    return {
        "window_requests": len(served),
        "window_errors": sum(s.outcome == "error" for s in served),
        "window_cancelled": sum(s.outcome == "cancelled" for s in served),
        "prompt_tokens": sum(s.prompt_tokens for s in served),
        "completion_tokens": tokens,
        "tokens_per_s": round(tokens / decoding_s, 2) if decoding_s > 0 else None,
        "wait_s": _spread([s.waited_s for s in served]),
        "latency_s": _spread([s.total_s for s in answered]),
        "first_token_s": _spread([s.first_token_s for s in answered if s.first_token_s is not None]),
    }


def _swaps(loads: Sequence[Load], unloads: Sequence[Unload]) -> dict[str, Any]:
    return {
        "window_loads": len(loads),
        "window_unloads": len(unloads),
        "load_s": _spread([load.total_s for load in loads]),
        "unload_s": _spread([u.seconds for u in unloads]),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    spread = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "p99": percentile(values, 0.99)}
    spread["max"] = max(values, default=None)
    return {key: None if value is None else round(value, 4) for key, value in spread.items()}


def _load_row(load: Load, now: float) -> dict[str, Any]:
    return {
        "model": load.model,
        "ago_s": round(now - load.at_s, 1),
        "weights_bytes": load.weights_bytes,
        "total_s": round(load.total_s, 4),
        "room_s": round(load.room_s, 4),
        "start_s": round(load.start_s, 4),
        "ready_s": round(load.ready_s, 4),
        "evicted": list(load.evicted),
        "mode": load.mode,
        "held": load.held,
        "cached_bytes": load.cached_bytes,
        "read_bytes": load.read_bytes,
        "read_bytes_per_s": _rate(load.read_bytes, load.parts.get("read_s")),
        "parts": {name: round(seconds, 4) for name, seconds in load.parts.items()},
        "first_token_s": None if load.first_token_s is None else round(load.first_token_s, 4),
    }


def _unload_row(unload: Unload, now: float) -> dict[str, Any]:
    return {
        "model": unload.model,
        "ago_s": round(now - unload.at_s, 1),
        "memory_bytes": unload.memory_bytes,
        "returned_bytes": unload.returned_bytes,
        "total_s": round(unload.seconds, 4),
        "parts": {name: round(seconds, 4) for name, seconds in unload.parts.items()},
    }


def _rate(size_bytes: int | None, seconds: float | None) -> int | None:
    return round(size_bytes / seconds) if size_bytes and seconds else None
