"""
What an engine is: how to run one kind of model, as data.

An engine neither reads files nor talks to anyone. It gets the header of a weights file that somebody else has read, and answers
with numbers and with the container to make.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final, Protocol

from controller.device import NO_GPU, Device
from controller.spec import ApiPath, Footprint, ModelSpec, Mount, WorkerSpec

Options = Mapping[str, str | int | bool]
"""What `[engines.<name>.options]` sets."""

NO_OPTIONS: Final[Options] = MappingProxyType({})

MODEL_MOUNT: Final = PurePosixPath("/model")
"""Where a worker sees its model's folder, or the engine file that takes its place."""
SOURCE_MOUNT: Final = PurePosixPath("/source")
"""Where a build sees the source, and a worker that needs it beside its engine file: engine files name what they were made of."""
RUN_MOUNT: Final = PurePosixPath("/run/worker")
KV_MOUNT: Final = PurePosixPath("/kv")
SOCKET_NAME: Final = "worker.sock"
"""What a worker listens on, in its run directory."""
NOTIFY_NAME: Final = "notify"
"""What it says there when it answers: a datagram socket of ours in its run directory."""
HOLD_NAME: Final = "hold"
"""While this FIFO is in its run directory, its engine does not begin."""
READ_AHEAD_NAME: Final = "read_ahead"
"""While this file is there, its entry point reads the weights ahead."""
READ_AHEAD_VARIABLE: Final = "WINDLASS_READ_AHEAD"
"""Names the weights files for that, separated by colons, as the worker sees them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsHeader:
    """
    What the header of a weights file says about the model in it.

    Attributes:
        format: `gguf` or `safetensors`.
        architecture: the family, such as `qwen2` or `llama`.
        weights_bytes: all tensors together.
        parameters: how many numbers those are.
        layers: transformer blocks.
        embedding_length: the width of the model.
        feed_forward_length: the width of its hidden layer.
        heads: attention heads.
        kv_heads: heads of keys and values.
        head_length: the width of one head.
        vocabulary: entries of the tokenizer.
        context_tokens: the longest context it was trained for.
        chat: it carries a chat template.
        tools: the chat template speaks of tools.
        embeddings: it is an embedding model (pooling is declared), not a generator.
        stored: how most of its weights are stored, such as `bf16`, `f32` or `q4_0`; empty if that has no name here.
        quantization: how a checkpoint says that it was quantised, in its own words, such as `quant_method awq`,
            `quant_method compressed-tensors nvfp4-pack-quantized` or `quant_algo mixed_precision fp8,nvfp4`; empty if not.

    """

    format: str
    architecture: str
    weights_bytes: int
    parameters: int
    layers: int
    embedding_length: int
    feed_forward_length: int
    heads: int
    kv_heads: int
    head_length: int
    vocabulary: int
    context_tokens: int
    chat: bool
    tools: bool
    embeddings: bool
    stored: str = ""
    quantization: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """
    The box a worker is made on, as far as an engine must know it.

    Attributes:
        image: the image's tag for this engine.
        run_root: the folder that holds one run directory a worker, on the host.
        kv_root: the folder that holds one KV directory a model, on the host.
        threads: threads a worker computes with.
        options: what `[engines.<name>.options]` sets, engine by engine.
        device: what the box is.

    """

    image: str
    run_root: PurePosixPath
    kv_root: PurePosixPath
    threads: int
    options: Options = field(default_factory=dict)
    device: Device = NO_GPU


def worker_mounts(model: ModelSpec, site: Site) -> tuple[Mount, ...]:
    """Return what every worker sees of the host: its model, and two directories of its own to write to."""
    return (
        Mount(source=model.folder, target=MODEL_MOUNT, read_only=True),
        Mount(source=site.run_root / model.name, target=RUN_MOUNT, read_only=False),
        Mount(source=site.kv_root / model.served_name, target=KV_MOUNT, read_only=False),
    )


def gpu_request(model: ModelSpec, site: Site) -> tuple[str, ...]:
    """Return `WorkerSpec.devices` for a worker that computes on the GPU: its cards, or the one GPU of a Jetson."""
    return site.device.requests(model.gpus) if site.device.unified or model.gpus else ()


def worker_socket(model: ModelSpec, site: Site) -> PurePosixPath:
    """Return where the host finds a worker's socket."""
    return site.run_root / model.name / SOCKET_NAME


def start_environment(*weights: PurePosixPath) -> dict[str, str]:
    """Return what a worker's entry point and engine must know of a start."""
    return {
        "NOTIFY_SOCKET": str(RUN_MOUNT / NOTIFY_NAME),
        READ_AHEAD_VARIABLE: ":".join(str(MODEL_MOUNT / path) for path in weights),
    }


def generates(header: WeightsHeader) -> frozenset[ApiPath]:
    """Say what a generator can be asked: it completes, and chats if it has a template."""
    return frozenset({ApiPath.COMPLETIONS, ApiPath.CHAT} if header.chat else {ApiPath.COMPLETIONS})


def first_fault(*faults: Iterable[str]) -> str:
    """Return the first thing that speaks against an engine; empty if nothing does."""
    return next(chain.from_iterable(faults), "")


class Takes(Protocol):
    """Whoever is sent a request's fields."""

    @property
    def refused_fields(self) -> frozenset[str]:
        """Fields it does not take."""
        ...

    @property
    def ignored_fields(self) -> frozenset[str]:
        """Fields it does not take either, and that are left out for it."""
        ...

    @property
    def taken_fields(self) -> frozenset[str] | None:
        """All fields it takes; `None` if it takes any."""
        ...


def untaken(one: Takes, fields: Iterable[str]) -> frozenset[str]:
    """Return which of a request's fields keep it from being sent there."""
    asked = frozenset(fields)
    refused = asked & one.refused_fields
    return refused if one.taken_fields is None else refused | (asked - one.taken_fields - one.ignored_fields)


class Engine(Protocol):
    """How to run one kind of model. One file each; the registry in `engines/__init__.py` lists them."""

    @property
    def name(self) -> str:
        """The name used in `model.toml`."""
        ...

    @property
    def formats(self) -> frozenset[str]:
        """The weights formats it reads."""
        ...

    @property
    def only_built(self) -> bool:
        """Whether it serves engine files alone, and never a source as it is."""
        ...

    @property
    def saves_kv(self) -> bool:
        """Whether a conversation can be saved and restored."""
        ...

    @property
    def can_be_held(self) -> bool:
        """Whether its image's entry point waits for our word where it is to, and reads the weights ahead."""
        ...

    @property
    def reads_directly(self) -> bool:
        """Whether it reads past the page cache, so that nothing should be read ahead."""
        ...

    @property
    def says_ready(self) -> bool:
        """Whether its server says by a datagram when it answers, so that it need hardly be asked."""
        ...

    @property
    def refused_fields(self) -> frozenset[str]:
        """Request fields its server does not take; the gateway refuses a request that sets one."""
        ...

    @property
    def ignored_fields(self) -> frozenset[str]:
        """Request fields its server does not take, and that change no answer: the gateway leaves them out."""
        ...

    @property
    def taken_fields(self) -> frozenset[str] | None:
        """All request fields its server takes; `None` if it takes any. What is in none of the three sets is refused."""
        ...

    @property
    def start_timeout_s(self) -> float:
        """How long a worker may take from start to ready, apart from reading its weights."""
        ...

    def api_paths(self, header: WeightsHeader) -> frozenset[ApiPath]:
        """Say what a model with this header can be asked."""
        ...

    def refusal(self, device: Device, header: WeightsHeader | None = None) -> str:
        """Say why it cannot run on this device at all, or, given a header, this model there; empty if it can."""
        ...

    def check_options(self, options: Options) -> tuple[str, ...]:
        """Say what is wrong with `[engines.<name>.options]`, one sentence each."""
        ...

    def estimate(
        self,
        header: WeightsHeader,
        *,
        context_tokens: int,
        parallel: int,
        options: Options = NO_OPTIONS,
        device: Device = NO_GPU,
    ) -> Footprint:
        """Compute the memory it will need on this device."""
        ...

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*."""
        ...
