"""What was asked for: models as their folders describe them, and the containers that would serve them. Immutable values."""

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Final, NewType

from controller.charges import UNSHARED, Cards, Charge, OnCard, WeightsId

ModelName = NewType("ModelName", str)

WORKER_UID: Final = 64001
GROUP_GID: Final = 64000
"""The group that gateway, controller and workers share; a worker's socket is open to it and to nobody else."""

LABEL_OWNER: Final = "windlass.owner"
LABEL_MODEL: Final = "windlass.model"
LABEL_SPEC: Final = "windlass.spec"
LABEL_MEMORY: Final = "windlass.memory"
LABEL_CARDS: Final = "windlass.gpu-memory"
"""Where a worker or a build lies on the cards of the box, such as `0:8000000000,1:4000000000`; no such label if it is on none."""
LABEL_BUILD: Final = "windlass.build"
LABEL_STEP: Final = "windlass.step"


class Tier(enum.StrEnum):
    """How a model is kept when nobody asks for it."""

    SMALL = "small"
    """Loaded at start where it fits, and kept as long as nobody needs its memory."""
    MEDIUM = "medium"
    """Loaded on request, kept until somebody needs its memory."""
    LARGE = "large"
    """Loaded on request, unloaded when idle."""


class ApiPath(enum.StrEnum):
    """The things a worker can be asked to do, by the path it serves."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"


class FootprintSource(enum.StrEnum):
    """Where a footprint came from, the most trusted first."""

    OVERRIDE = "override"
    """The operator wrote `memory` into `model.toml`."""
    MEASURED = "measured"
    """The ledger has seen exactly this model run exactly like this."""
    ESTIMATE = "estimate"
    """Computed from the header of the weights file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """
    Over how many cards a model may be split that fits on none of them whole.

    Attributes:
        counts: of cards, each of them possible, such as 2 and 4; empty if it cannot be split.
        even: each of its cards takes the same; otherwise each takes as much as it has room for.

    """

    counts: tuple[int, ...] = ()
    even: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """
    The memory a resident model needs.

    Attributes:
        total_bytes: what the budget is charged and the container is limited to.
        weights_bytes: the part that is mapped from the weights file and could be dropped and read again.
        private_bytes: KV cache, compute buffers and the process itself.
        source: where the figures came from.
        gpu_bytes: what it takes of the memory of cards, all of its cards together, beside the total; 0 where GPU and processors
            share one memory, since it is part of the total there.
        gpu_each_bytes: how much of that is there once more on every further card that it is split over: the context of the
            driver, buffers.
        spread: over how many cards it may be split.

    """

    total_bytes: int
    weights_bytes: int
    private_bytes: int
    source: FootprintSource
    gpu_bytes: int = 0
    gpu_each_bytes: int = 0
    spread: Spread = Spread()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """
    Why a model whose engine was left to us runs by the one it has.

    Attributes:
        reason: a sentence to be put behind the engine's name.
        key: what a failure of this engine with this model is remembered under.
        successor: the engine that takes its place if it fails before it has answered once; empty if it stays.
        others: every other engine, and why it is not that one.
        fell_back: an engine that came before it has failed here.

    """

    reason: str
    key: str
    successor: str = ""
    others: tuple[tuple[str, str], ...] = ()
    fell_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """
    One servable model, as its folder and the configuration describe it.

    Attributes:
        name: the folder's name and the name callers use.
        engine: the name of the engine that runs it.
        folder: the model's folder, the same path inside and outside the controller's container.
        weights: the weights file, relative to the folder; for safetensors the folder itself is what the engine reads.
        weights_bytes: the size of all weights files together.
        digest: identifies the weights without reading them whole: sizes, times of change and headers.
        context_tokens: prompt and answer together, for one caller.
        parallel: how many callers it serves at once.
        footprint: the memory it needs, and where that figure came from.
        load_s: seconds from the decision to ready, measured or estimated.
        api_paths: what it can be asked.
        pinned: it is never evicted.
        priority: each step doubles what keeping it in memory is worth.
        chat: it has a chat template.
        lora: adapters applied to the weights, relative to the folder.
        options: the engine's options for this model alone, by name.
        replicas: how many workers it may have at once.
        replica_of: whose further worker this describes; `None` for a model.
        description: a sentence for people, from `model.toml`.
        source: the folder of the source, for an engine file that is served beside it; `None` if it is not needed.
        choice: why it is this engine, where that was left to us.
        cards: where it is to lie on the cards of the box, once that is decided; empty on a box without cards.

    """

    name: ModelName
    engine: str
    folder: PurePosixPath
    weights: PurePosixPath
    weights_bytes: int
    digest: str
    context_tokens: int
    parallel: int
    footprint: Footprint
    load_s: float
    api_paths: frozenset[ApiPath]
    tier: Tier = Tier.MEDIUM
    tags: frozenset[str] = frozenset()
    pinned: bool = False
    priority: int = 0
    chat: bool = True
    tools: bool = False
    parameters: int = 0
    lora: tuple[PurePosixPath, ...] = ()
    options: tuple[tuple[str, str | int | bool], ...] = ()
    replicas: int = 1
    replica_of: ModelName | None = None
    description: str = ""
    source: PurePosixPath | None = None
    choice: EngineChoice | None = None
    cards: Cards = ()

    @property
    def gpus(self) -> tuple[int, ...]:
        """The indices of the cards it is to lie on."""
        return tuple(part.card for part in self.cards)

    @property
    def served_name(self) -> ModelName:
        """The name callers use, which replicas share."""
        return self.replica_of or self.name

    @property
    def weights_folder(self) -> PurePosixPath:
        """Where its weights are: beside an engine file that has none, they stay in the source."""
        return self.source or self.folder

    @property
    def charge(self) -> Charge:
        """What its worker takes from the budget; whoever maps the same weights shares them."""
        weights = WeightsId(f"{self.folder}:{self.digest}") if self.footprint.weights_bytes else UNSHARED
        mapped_bytes = min(self.footprint.weights_bytes, self.footprint.total_bytes)
        return Charge(total_bytes=self.footprint.total_bytes, weights=weights, weights_bytes=mapped_bytes, cards=self.cards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path made visible inside a worker."""

    source: PurePosixPath
    target: PurePosixPath
    read_only: bool


_NOT_HASHED: Final = ("memory_bytes", "cards", "weights", "weights_bytes", "spec_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """
    One sealed container: everything the engine needs to know to make it. What is not here is the same for all of them.

    Attributes:
        model: whose worker it is.
        image: the image, by tag.
        argv: arguments for the image's entry point.
        env: environment variables.
        mounts: the model read-only, the run directory and the KV directory read-write.
        memory_bytes: the limit of the container, swap included, and what the budget is charged.
        socket: where its HTTP socket appears on the host.
        weights: which weights it maps, for those who share them; like the memory, for the budget alone.
        weights_bytes: how much of the memory those are.
        cards: what it takes of which cards; like the memory, for the budget and for a label.
        devices: GPU request, empty for none.
        groups: further groups its user belongs to, by id: those that may open the device nodes.
        pids_limit: processes and threads it may have.
        shm_bytes: memory that its processes share, a part of its own; those that compute on several GPUs together need more than
            the usual, which 0 means.

    """

    model: ModelName
    image: str
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...]
    memory_bytes: int
    socket: PurePosixPath
    weights: WeightsId = UNSHARED
    weights_bytes: int = 0
    cards: Cards = ()
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    pids_limit: int = 256
    shm_bytes: int = 0

    spec_hash: str = field(default="", init=False, repr=False, compare=False)
    """
    Twelve hex digits that change when anything above does, but for the memory of box and cards, which have labels of their own,
    and what is shared.

    A running worker with another hash is replaced; one that only has another limit keeps it until it stops. Every turn of the
    controller compares it, so it is computed once.
    """

    def __post_init__(self) -> None:
        """Compute the hash."""
        parts = {key: value for key, value in asdict(self).items() if key not in _NOT_HASHED}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        object.__setattr__(self, "spec_hash", digest[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """
    One step of a build: a container as sealed as a worker's, which ends by itself and runs once.

    Attributes:
        build: what is built; one container of it exists at a time.
        step: which of its steps this is, counted from 0.
        image: the image, by tag.
        argv: the program and its arguments; the image's entry point is not used.
        mounts: the source read-only, the folder of the build read-write.
        memory_bytes: the limit of the container, swap included.
        cards: what is set aside of cards for it.
        pids_limit: processes and threads it may have.
        cpus: cores it may use; 0 is all of them, whenever no worker wants them.
        env: environment variables.
        devices: GPU request, empty for none.
        groups: further groups its user belongs to, by id.

    """

    build: str
    step: int
    image: str
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...]
    memory_bytes: int
    cards: Cards = ()
    pids_limit: int = 256
    cpus: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()


def write_cards(cards: Cards) -> str:
    """Write down for a label where something lies on the cards."""
    return ",".join(f"{part.card}:{part.size_bytes}" for part in cards)


def read_cards(text: str) -> Cards:
    """Read such a label; of one that nobody of ours has written, nothing."""
    try:
        pairs = [part.split(":") for part in text.split(",") if part]
        return tuple(OnCard(int(card), int(size)) for card, size in pairs)
    except ValueError:
        return ()
