"""What operators see, as plain JSON values: status, models, plans. Pure: values in, values out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

from controller import planner
from controller.card_reports import parts
from controller.device import Device
from controller.drift import Drift
from controller.drivers.base import Usage
from controller.footprint import Measured
from controller.pace import Pace
from controller.power import PowerReading
from controller.probes.host import DiskReading
from controller.probes.memory import MemoryReading
from controller.probes.thermal import ThermalReading
from controller.scheduler import Notice, Record, Waiter
from controller.spec import ModelName, ModelSpec
from controller.state import Status, Worker
from controller.units import MIB, format_bytes, format_seconds
from controller.yardstick import HomeDisk

STUCK_S: Final = 120.0
"""A container action that takes longer is stuck."""
FULL_DISK_BYTES: Final = 64 * MIB
"""With less left on the home's disk, conversations, measurements and API keys are about to be lost."""

_STATES: Final = {
    Status.HELD: "loading",
    Status.STARTING: "loading",
    Status.READY: "resident",
    Status.STOPPING: "stopping",
    Status.STOPPED: "stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One container action under way."""

    model: ModelName
    action: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the probes say about the box."""

    memory: MemoryReading
    thermal: ThermalReading
    disk: DiskReading


def health(
    *,
    queue: Sequence[Waiter],
    transitions: Sequence[Transition],
    engine_away: str | None,
    problems: Sequence[str],
    resting: Collection[ModelName],
    now: float,
) -> tuple[str, list[str]]:
    """
    Say `ok`, `degraded` or `failing`, and why.

    It fails when nobody can be served: the engine is away, a caller waits past the bound it was told, an action hangs. It is
    degraded when something an operator should know of is wrong, and everything else is served.
    """
    failing: list[str] = []
    if engine_away is not None:
        failing.append(f"the container engine does not answer: {engine_away}")
    for waiter in queue:
        if now - waiter.since_s > waiter.bound_s:
            failing.append(
                f"a caller of {waiter.model} has waited {format_seconds(now - waiter.since_s)}, longer than was promised"
            )
            break
    for transition in transitions:
        if transition.seconds > STUCK_S:
            failing.append(
                f"{transition.action} of {transition.model} has been under way for {format_seconds(transition.seconds)}"
            )
    degraded = [*problems, *(f"{model} keeps failing and rests; see `windlass logs {model}`" for model in sorted(resting))]
    state = "failing" if failing else "degraded" if degraded else "ok"
    return state, [*failing, *degraded]


def disk_complaints(disk: DiskReading, home: PurePath) -> list[str]:
    """Say so if the disk that holds the home directory is all but full."""
    if disk.free_bytes >= FULL_DISK_BYTES:
        return []
    return [f"the disk that holds {home} has {format_bytes(disk.free_bytes)} left; remove a model, or make room beside it"]


def pace_row(pace: Pace, reading: PowerReading) -> dict[str, Any]:
    """Describe how fast the box is, and why not faster, for `/status`."""
    now, strongest = reading.modes.now, reading.modes.strongest
    return {
        "factor": round(pace.factor, 3),
        "throttled": pace.throttled,
        "reasons": list(pace.reasons),
        "mode": now.name if now else None,
        "strongest_mode": strongest.name if strongest else None,
    }


def device_row(device: Device) -> dict[str, Any]:
    """Describe the box for `/status`."""
    return {
        "architecture": device.architecture,
        "family": device.family.value,
        "board": device.board,
        "module": device.module,
        "l4t": device.l4t,
        "jetpack": device.jetpack,
        "driver": device.driver,
        "cuda": device.cuda,
        "tensorrt": device.tensorrt,
        "gpus": [
            {"index": gpu.index, "name": gpu.name, "sm": gpu.sm, "memory_bytes": gpu.memory_bytes or None} for gpu in device.gpus
        ],
        "access": device.access.value,
        "gpu_memory_charged": device.gpu_memory_charged,
        "fingerprint": device.fingerprint,
    }


def disk_row(reading: DiskReading, home: HomeDisk) -> dict[str, Any]:
    """Describe the home's disk for `/status`."""
    link, measured_at_s = home.link, home.measured_at_s
    return {
        "home_total_bytes": reading.total_bytes,
        "home_free_bytes": reading.free_bytes,
        "block": home.block or None,
        "link": None
        if link is None
        else {"width": link.width, "most_width": link.most_width, "speed": link.speed, "most_speed": link.most_speed},
        "read_bytes_per_s": None if home.read_bytes_per_s is None else round(home.read_bytes_per_s),
        "measured_at": None
        if measured_at_s is None
        else datetime.fromtimestamp(measured_at_s, UTC).isoformat(timespec="seconds"),
    }


def worker_row(worker: Worker, *, leases: int, usage: Usage | None, now: float) -> dict[str, Any]:
    """Describe one worker for `/status`."""
    return {
        "model": worker.model,
        "status": worker.status.value,
        "memory_bytes": worker.memory_bytes,
        "gpus": parts(worker.cards),
        "leases": leases,
        "run_s": None if worker.ready_since_s is None else round(now - worker.ready_since_s, 1),
        "anon_bytes": usage.anon_bytes if usage else None,
        "file_bytes": usage.file_bytes if usage else None,
        "gpu_bytes": None if usage is None or usage.gpu_unseen else usage.unified_bytes + usage.gpu_bytes,
        "exit": None
        if worker.exit is None
        else {"cause": worker.exit.cause.value, "code": worker.exit.code, "detail": worker.exit.detail},
    }


def queue_row(waiter: Waiter, notice: Notice, *, now: float) -> dict[str, Any]:
    """Describe one waiting caller for `/status`."""
    return {
        "id": waiter.lease,
        "model": waiter.model,
        "position": notice.position,
        "eta_s": round(notice.eta_s, 2),
        "bound_s": round(notice.bound_s, 2),
        "waiting_s": round(now - waiter.since_s, 2),
        "priority": "batch" if waiter.batch else "interactive",
        "loading": notice.loading,
    }


def model_row(
    spec: ModelSpec,
    *,
    worker: Worker | None,
    record: Record | None,
    measured: Measured | None,
    now: float,
    drift: Drift | None = None,
    ready: int = 0,
    pace: float = 1.0,
) -> dict[str, Any]:
    """Describe one registered model, `ready` workers of which answer, for `/models`; its speed is that at this pace."""
    resting = record is not None and record.resting and now < record.retry_at_s
    ended = record.last_exit if record else None
    return {
        "name": spec.name,
        "state": "failed" if resting else _STATES[worker.status] if worker else "on_disk",
        "engine": spec.engine,
        "engine_choice": choice_row(spec),
        "tier": spec.tier.value,
        "tags": sorted(spec.tags),
        "pinned": spec.pinned,
        "priority": spec.priority,
        "footprint_bytes": spec.footprint.total_bytes,
        "footprint_source": spec.footprint.source.value,
        "weights_bytes": spec.weights_bytes,
        "private_bytes": spec.footprint.private_bytes,
        "gpu_bytes": spec.footprint.gpu_bytes,
        "gpus": parts(worker.cards) if worker and worker.holds else [],
        "measured_private_bytes": measured.anon_bytes or None if measured else None,
        "measured_mapped_bytes": measured.mapped_bytes or None if measured else None,
        "drift": asdict(drift) if drift else None,
        "context_tokens": spec.context_tokens,
        "parallel": spec.parallel,
        "replicas": spec.replicas,
        "replicas_ready": ready,
        "parameters": spec.parameters,
        "load_s": round(record.load_s if record else spec.load_s, 3),
        "load_worst_s": round(measured.load_worst_s, 3) if measured and measured.load_worst_s else None,
        "tokens_per_s": round(measured.tokens_per_s * pace, 2) if measured and measured.tokens_per_s else None,
        "requests": record.served if record else 0,
        "failures": record.failures if record else 0,
        "api_paths": sorted(path.value for path in spec.api_paths),
        "reason": None
        if ended is None or not (record and record.failures)
        else f"{ended.cause.value}: {ended.detail}".rstrip(": "),
    }


def choice_row(spec: ModelSpec) -> dict[str, Any] | None:
    """Describe why a model has the engine it has; `None` if that follows from its folder."""
    choice = spec.choice
    if choice is None:
        return None
    return {
        "reason": choice.reason,
        "fell_back": choice.fell_back,
        "successor": choice.successor or None,
        "others": [{"engine": engine, "reason": reason} for engine, reason in choice.others],
    }


def plan_row(
    spec: ModelSpec,
    answer: planner.Plan,
    *,
    resident: bool,
    held: Mapping[ModelName, int],
    values: Mapping[ModelName, float],
    budget_bytes: int,
    load_s: float,
) -> dict[str, Any]:
    """Describe what loading a model would do, for `/plan`."""
    leaving: tuple[ModelName, ...] = ()
    word, reason = "start", "it is resident" if resident else "it fits beside what is resident"
    match answer:
        case planner.Start(evict=evict) if evict:
            leaving, reason = evict, "it fits once the idle models named are gone"
        case planner.Wait(drain=drain):
            leaving, word, reason = drain, "wait", "it fits once the models named, which are busy, have been drained"
        case planner.Refuse(short_bytes=short_bytes):
            word, reason = "refuse", f"it can never fit: {short_bytes} bytes too many beside what is pinned"
        case _:
            pass
    return {
        "model": spec.name,
        "fits": word != "refuse",
        "resident": resident,
        "footprint_bytes": spec.footprint.total_bytes,
        "footprint_source": spec.footprint.source.value,
        "budget_bytes": budget_bytes,
        "free_bytes": budget_bytes - sum(held.values()),
        "evict": [
            {"model": m, "bytes": held.get(m, 0), "why": f"value {values.get(m, 0.0):.3g}, the lowest of what may go"}
            for m in leaving
        ],
        "answer": word,
        "reason": reason,
        "load_s": round(load_s, 3),
        "engine": spec.engine,
        "engine_choice": choice_row(spec),
    }
