"""
The bodies of the native API and of the key verbs, as the command line reads them.

Bytes are integers, durations are float seconds, and what is not known is null. Errors of every path are
`ErrorBody`. The paths:

    GET  /health                      Health             503 when failing
    GET  /status                      Status
    GET  /models                      Models
    GET  /plan/{model}                Plan
    GET  /models/{model}/logs?tail=n  Logs
    POST /load_model                  Changed            {"model": ..., "wait": true}
    POST /unload_model                Changed            {"model": ..., "force": false}

On the controller's socket, as `wire.Call` and the body of `wire.Result`:

    keys.create  {"scopes": [...], "name": str, "rate_limit_per_min": int | null}   CreatedKey
    keys.list    {}                                                                        Keys
    keys.revoke  {"id": ...}                                                               KeyRow
"""

from typing import Literal, NotRequired, TypedDict

State = Literal["ok", "degraded", "failing"]
ModelState = Literal["resident", "loading", "stopping", "stopped", "on_disk", "building", "failed"]


class ErrorDetail(TypedDict):
    """The inside of an error, as OpenAI's clients expect it, with numbers beside the text where there are some."""

    message: str
    type: str
    param: str | None
    code: str | None
    details: dict[str, object]


class ErrorBody(TypedDict):
    """What every path answers with a status of 400 or more."""

    error: ErrorDetail


class Health(TypedDict):
    """`GET /health`. `reasons` says what is wrong, and is empty when `status` is ok, or for callers who may not know."""

    status: State
    reasons: list[str]


class MemoryStatus(TypedDict):
    """
    Memory of the box.

    `committed_bytes` is promised of the budget, `held_bytes` is held by workers, stopping ones included. `budget_bytes` is what
    models may take now: `configured_budget_bytes`, less what other programs and builds hold of it.
    """

    total_bytes: int
    available_bytes: int
    floor_bytes: int
    configured_budget_bytes: int
    budget_bytes: int
    committed_bytes: int
    held_bytes: int
    pressure_some_avg10: float | None
    pressure_full_avg10: float | None


class GuardStatus(TypedDict):
    """How the guard sees the memory, why, and how many workers it has stopped when idle and ended when busy."""

    level: Literal["calm", "short", "critical"]
    reason: str
    stopped: int
    ended: int


class ZoneStatus(TypedDict):
    """One thermal zone of the kernel."""

    name: str
    celsius: float


class ThermalStatus(TypedDict):
    """All thermal zones of the box."""

    zones: list[ZoneStatus]


class RailStatus(TypedDict):
    """One measured supply of the board."""

    name: str
    watts: float


class PowerStatus(TypedDict):
    """All measured supplies; empty where there are no sensors."""

    rails: list[RailStatus]


class PaceStatus(TypedDict):
    """
    How fast the box is allowed to be.

    `factor` is the share of full speed, `reasons` say why it is not 1, and `throttled` that heat or the supply is among them. The
    modes are a Jetson's; null elsewhere.
    """

    factor: float
    throttled: bool
    reasons: list[str]
    mode: str | None
    strongest_mode: str | None


class GpuStatus(TypedDict):
    """One GPU; `memory_bytes` is null where it shares the box's memory."""

    index: int
    name: str
    sm: str
    memory_bytes: int | None


class DeviceStatus(TypedDict):
    """
    What the box is; texts are empty where they do not apply.

    `access` is how a container gets at the GPUs. `gpu_memory_charged` says whether a container's limit covers what it takes on a
    GPU, null if nobody has tried. `fingerprint` is what measurements and engine files hold for.
    """

    architecture: str
    family: Literal["none", "orin", "thor", "discrete"]
    board: str
    module: str
    l4t: str
    jetpack: str
    driver: str
    cuda: str
    tensorrt: str
    gpus: list[GpuStatus]
    access: Literal["none", "runtime", "cdi", "request"]
    gpu_memory_charged: bool | None
    fingerprint: str


class LinkStatus(TypedDict):
    """How an NVMe disk is connected: lanes, and the speed of each, in use and at most."""

    width: int
    most_width: int
    speed: str
    most_speed: str


class DiskStatus(TypedDict):
    """
    The disk that holds the home directory.

    `read_bytes_per_s` was measured at `measured_at`, past the page cache; both are null until then. `link` is an NVMe disk's.
    """

    home_total_bytes: int
    home_free_bytes: int
    block: str | None
    link: LinkStatus | None
    read_bytes_per_s: int | None
    measured_at: str | None


class CardPart(TypedDict):
    """What a worker takes of one graphics card's memory."""

    index: int
    bytes: int


class CardWorker(TypedDict):
    """One worker on a card."""

    model: str
    bytes: int


class CardStatus(TypedDict):
    """
    Memory of one graphics card; a GPU that shares the box's memory is none.

    `budget_bytes` is what models may take now: `configured_budget_bytes`, less what other programs and builds hold of it.
    `committed_bytes` is promised of it, `held_bytes` is charged to workers that run, stopping ones included.
    """

    index: int
    name: str
    total_bytes: int
    configured_budget_bytes: int
    budget_bytes: int
    committed_bytes: int
    held_bytes: int
    free_bytes: int
    workers: list[CardWorker]


class CardPlace(TypedDict):
    """A card that a model lies on or would lie on, and what is free there now."""

    index: int
    bytes: int
    budget_bytes: int
    free_bytes: int


class ExitStatus(TypedDict):
    """How a container's last run ended: an `ExitCause`, the status, and what else is known."""

    cause: str
    code: int
    detail: str


class WorkerStatus(TypedDict):
    """
    One container. `exit` is null while it runs and when it never ran.

    `gpu_bytes` is what it holds on GPUs, which on a Jetson is the box's memory; null where nobody can tell.
    """

    model: str
    status: Literal["stopped", "starting", "ready", "stopping"]
    memory_bytes: int
    gpus: list[CardPart]
    leases: int
    run_s: float | None
    anon_bytes: int | None
    file_bytes: int | None
    gpu_bytes: int | None
    exit: ExitStatus | None


class WaiterStatus(TypedDict):
    """One caller that waits."""

    id: str
    model: str
    position: int
    eta_s: float
    bound_s: float
    waiting_s: float
    priority: Literal["interactive", "batch"]
    loading: bool


class Transition(TypedDict):
    """One action on a container that is under way: create, start, kill or remove."""

    model: str
    action: str
    seconds: float


class Status(TypedDict):
    """`GET /status`."""

    version: str
    uptime_s: float
    state: State
    reasons: list[str]
    memory: MemoryStatus
    guard: GuardStatus
    thermal: ThermalStatus
    power: PowerStatus
    pace: PaceStatus
    device: DeviceStatus
    disk: DiskStatus
    cards: list[CardStatus]
    workers: list[WorkerStatus]
    queue: list[WaiterStatus]
    transitions: list[Transition]
    leases: int


class DriftStatus(TypedDict):
    """How a worker has outgrown its figure: in a sentence, what it holds privately and what is allowed for that."""

    why: str
    private_bytes: int
    allowed_bytes: int
    thrashes: bool


class BuildRow(TypedDict):
    """
    One engine file that a model wants, or that somebody has asked for.

    `why` says why it is this one, `problem` why it waits, failed or was stopped, `serving` what is served until it is built. What
    is under way has a step, seconds and an estimate of what is left; else these are null.
    """

    model: str
    state: Literal["queued", "waiting", "building", "finishing", "verifying", "failed", "cancelled", "built"]
    engine: str
    quantization: str | None
    why: str
    fingerprint: str
    progress: float
    done_bytes: int
    total_bytes: int
    step: str | None
    step_number: int | None
    steps: int
    seconds: float | None
    eta_s: float | None
    failures: int
    problem: str | None
    serving: str | None
    log: list[str]


class OtherEngine(TypedDict):
    """One engine that a model does not have, and why."""

    engine: str
    reason: str


class ChoiceRow(TypedDict):
    """
    Why a model with `engine = "auto"` has the engine it has.

    `fell_back` says that one before it has failed; `successor` is who takes its place if it fails before it has answered once.
    """

    reason: str
    fell_back: bool
    successor: str | None
    others: list[OtherEngine]


class ModelRow(TypedDict):
    """
    One registered model. `reason` says why it is failed or cannot be served; else null.

    What begins with `measured_` is the most that was ever seen of it; null if it never ran as it would run now.
    """

    name: str
    state: ModelState
    engine: str
    engine_choice: ChoiceRow | None
    tier: Literal["small", "medium", "large"]
    tags: list[str]
    pinned: bool
    priority: int
    footprint_bytes: int
    footprint_source: Literal["override", "measured", "estimate"]
    weights_bytes: int
    private_bytes: int
    gpu_bytes: int
    gpus: list[CardPart]
    measured_private_bytes: int | None
    measured_mapped_bytes: int | None
    drift: DriftStatus | None
    context_tokens: int
    parallel: int
    replicas: int
    replicas_ready: int
    parameters: int
    load_s: float
    load_worst_s: float | None
    tokens_per_s: float | None
    requests: int
    failures: int
    api_paths: list[str]
    reason: str | None
    build: NotRequired[BuildRow | None]


class ProblemRow(TypedDict):
    """One folder that cannot be served, and why."""

    folder: str
    text: str


class Models(TypedDict):
    """`GET /models`."""

    models: list[ModelRow]
    problems: list[ProblemRow]


class Eviction(TypedDict):
    """One model that would leave."""

    model: str
    bytes: int
    why: str


class Plan(TypedDict):
    """`GET /plan/{model}`: what a request for it would do now. `free_bytes` is the budget less what is committed."""

    model: str
    fits: bool
    resident: bool
    footprint_bytes: int
    footprint_source: Literal["override", "measured", "estimate"]
    budget_bytes: int
    free_bytes: int
    evict: list[Eviction]
    answer: Literal["start", "wait", "refuse"]
    reason: str
    load_s: float
    engine: str
    engine_choice: ChoiceRow | None
    gpus: list[CardPlace]


class Logs(TypedDict):
    """`GET /models/{model}/logs`: the last lines the worker wrote, as they are."""

    model: str
    lines: list[str]


class Builds(TypedDict):
    """`GET /builds`."""

    builds: list[BuildRow]


class Changed(TypedDict):
    """What loading or unloading did: the state now, the time it took, and the bytes held or given back, if it was waited for."""

    model: str
    state: ModelState
    seconds: float
    bytes: NotRequired[int]


class KeyRow(TypedDict):
    """An API key without its secret, which nobody keeps. Times are UTC, ISO 8601; `revoked_at` is null while it is good."""

    id: str
    name: str
    scopes: list[str]
    rate_limit_per_min: int | None
    created_at: str
    revoked_at: str | None


class Keys(TypedDict):
    """`keys.list`."""

    keys: list[KeyRow]


class CreatedKey(KeyRow):
    """`keys.create`: the one time that the secret is shown."""

    secret: str
