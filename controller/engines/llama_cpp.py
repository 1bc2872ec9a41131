"""
GGUF models by llama.cpp's own server: the choice on CPUs and on boards of 8 GB or less.

Without a GPU the weights are mapped, never copied: their pages belong to the page cache, cost nothing when the worker is gone,
and make the next start warm. The rest keeps to that: no repacking into private memory, no prompt cache beside the KV cache.

A GPU has a copy of them of its own, and pages of the file beside it are of no use to it. On a Jetson both are one memory, and
CUDA is said to be refused what the kernel could have freed of those pages. Beside a card a worker's limit is smaller than its
file, and reading ahead would push out what it had just read. So weights are read past the page cache, in large requests into
pinned memory, and from there to the GPU. `gpu_load = "cached"` takes them through it, for a box with memory to spare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.charges import Cards
from controller.device import NO_GPU, Device
from controller.engines import gpus
from controller.engines import options as option
from controller.engines.base import (
    KV_MOUNT,
    MODEL_MOUNT,
    NO_OPTIONS,
    RUN_MOUNT,
    SOCKET_NAME,
    Options,
    Site,
    WeightsHeader,
    generates,
    gpu_request,
    start_environment,
    worker_mounts,
    worker_socket,
)
from controller.engines.llama_sizes import Load, aligned, on_gpu, on_processors
from controller.engines.options import Option
from controller.spec import ApiPath, Footprint, ModelSpec, WorkerSpec

ENVIRONMENT: Final = {
    # One malloc arena a thread would keep freed memory of every HTTP thread for itself.
    "MALLOC_ARENA_MAX": "2",
    # Threads sleep at a barrier at once. Where others compute on the same cores, threads that spin there wait whole time slices
    # for one that is not running: beside two busy processes on two cores, a model of 0.5B decoded 1.1 tokens a second, and 10
    # like this.
    "OMP_WAIT_POLICY": "passive",
}

LOAD_MODES: Final[Mapping[str, str]] = {"direct": "dio", "cached": "none"}
"""How the server is told to load what goes to a GPU."""
CARD_UBATCH: Final = 512
UNIFIED_UBATCH: Final = 256
"""Tokens computed at once by a GPU, where nothing is set; on a Jetson the buffers are the box's memory."""

OPTIONS: Final[Mapping[str, Option]] = {
    "ubatch_size": Option(
        default=128,
        smallest=1,
        text="tokens computed at once: more is a faster prompt and larger buffers; not set, it is 256 on a Jetson, 512 on cards",
    ),
    "batch_size": Option(default=512, smallest=1, text="tokens of all callers together that one pass takes from the queue"),
    "repack": Option(
        default=False,
        text="copy quantised weights into a faster layout at every load: faster prompts, slower swaps, and private memory",
    ),
    "warmup": Option(default=False, text="compute one empty pass before the worker says it is ready"),
    "kv_type": Option(
        default="f16", choices=("f16", "q8_0"), text="how keys and values are kept; `q8_0` takes about half the bytes"
    ),
    "gpu_layers": Option(
        default=999,
        smallest=0,
        text="where there is a GPU: how many layers it computes, with their part of the KV cache; 0 for none",
    ),
    "gpu_load": Option(
        default="direct",
        choices=tuple(LOAD_MODES),
        text="how weights get to the GPU: `direct` past the page cache, `cached` through it, where they count as memory and stay",
    ),
    "log_verbosity": Option(default=2, smallest=0, text="what the server writes: 1 errors, 2 warnings, 3 one line a request"),
}
"""What `[engines.llama-cpp.options]` may set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCpp:
    """llama.cpp's server."""

    name: str = "llama-cpp"
    formats: frozenset[str] = frozenset({"gguf"})
    only_built: bool = False
    saves_kv: bool = True
    can_be_held: bool = True
    reads_directly: bool = False
    says_ready: bool = True
    refused_fields: frozenset[str] = frozenset()
    ignored_fields: frozenset[str] = frozenset()
    taken_fields: frozenset[str] | None = None
    start_timeout_s: float = 60.0

    def api_paths(self, header: WeightsHeader) -> frozenset[ApiPath]:
        """An embedding model embeds and does nothing else; a generator completes, and chats if it has a template."""
        return frozenset({ApiPath.EMBEDDINGS}) if header.embeddings else generates(header)

    def refusal(self, device: Device, header: WeightsHeader | None = None) -> str:  # noqa: ARG002
        """It runs everywhere."""
        return ""

    def check_options(self, options: Options) -> tuple[str, ...]:
        """Say what is wrong with the options."""
        return option.problems(self.name, OPTIONS, options)

    def estimate(
        self,
        header: WeightsHeader,
        *,
        context_tokens: int,
        parallel: int,
        options: Options = NO_OPTIONS,
        device: Device = NO_GPU,
    ) -> Footprint:
        """Add up what the server will hold; `llama_sizes` says what that is."""
        load = _load(options, context_tokens=context_tokens, parallel=parallel, embeddings=header.embeddings, device=device)
        return on_gpu(header, load, device) if _on_gpu(options, device) else on_processors(header, load)

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*."""
        computes_there = _on_gpu(site.options, site.device)
        return WorkerSpec(
            model=model.name,
            image=site.image,
            argv=_argv(model, site),
            env={**ENVIRONMENT, **start_environment(model.weights, *model.lora), **(gpus.ENVIRONMENT if computes_there else {})},
            mounts=worker_mounts(model, site),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
            devices=gpu_request(model, site) if computes_there else (),
            groups=site.device.gpu_groups if computes_there else (),
        )


def _on_gpu(options: Options, device: Device) -> bool:
    return gpus.computes(device) and option.whole(OPTIONS, options, "gpu_layers") > 0


def _load(options: Options, *, context_tokens: int, parallel: int, embeddings: bool, device: Device) -> Load:
    return Load(
        context_tokens=context_tokens,
        parallel=parallel,
        ubatch=_ubatch(options, context_tokens=context_tokens, embeddings=embeddings, device=device),
        kv_type=option.text(OPTIONS, options, "kv_type"),
        repack=option.switch(OPTIONS, options, "repack"),
        gpu_layers=option.whole(OPTIONS, options, "gpu_layers"),
        gpu_load=option.text(OPTIONS, options, "gpu_load"),
    )


def _ubatch(options: Options, *, context_tokens: int, embeddings: bool, device: Device) -> int:
    # An embedding looks at its whole input at once, so the input must fit into one micro-batch.
    if embeddings:
        return context_tokens
    if _on_gpu(options, device) and "ubatch_size" not in options:
        return min(UNIFIED_UBATCH if device.unified else CARD_UBATCH, context_tokens)
    return min(option.whole(OPTIONS, options, "ubatch_size"), context_tokens)


def _argv(model: ModelSpec, site: Site) -> tuple[str, ...]:
    embeddings = ApiPath.EMBEDDINGS in model.api_paths
    ubatch = _ubatch(site.options, context_tokens=model.context_tokens, embeddings=embeddings, device=site.device)
    batch = max(ubatch, min(option.whole(OPTIONS, site.options, "batch_size"), model.context_tokens))
    kv_type = option.text(OPTIONS, site.options, "kv_type")
    repack = option.switch(OPTIONS, site.options, "repack")
    warmup = option.switch(OPTIONS, site.options, "warmup")
    return (
        *("--host", str(RUN_MOUNT / SOCKET_NAME)),
        *("--model", str(MODEL_MOUNT / model.weights)),
        *("--alias", model.served_name),
        *(("--lora", ",".join(str(MODEL_MOUNT / adapter) for adapter in model.lora)) if model.lora else ()),
        *("--ctx-size", str(aligned(model.context_tokens) * model.parallel)),
        *("--parallel", str(model.parallel)),
        # Every caller has its own share of the context; in one shared pool the first could take it all.
        "--no-kv-unified",
        *("--threads", str(site.threads)),
        # An idle HTTP connection occupies a thread until it closes.
        *("--threads-http", str(2 * model.parallel + 6)),
        *("--batch-size", str(batch)),
        *("--ubatch-size", str(ubatch)),
        *("--cache-type-k", kv_type),
        *("--cache-type-v", kv_type),
        # What is asked for is what is used: a footprint that the server shrinks or grows by itself is none.
        *("--fit", "off"),
        *("--cache-ram", "0"),
        "--no-cache-idle-slots",
        *("--ctx-checkpoints", "0"),
        "--repack" if repack else "--no-repack",
        "--warmup" if warmup else "--no-warmup",
        # A prompt beyond the context is an error for its caller, never silently cut.
        "--no-context-shift",
        *("--slot-save-path", str(KV_MOUNT)),
        "--jinja",
        "--metrics",
        "--no-webui",
        "--offline",
        *("--log-verbosity", str(option.whole(OPTIONS, site.options, "log_verbosity"))),
        *(("--embeddings",) if embeddings else ()),
        *_gpu_argv(model, site),
    )


def _gpu_argv(model: ModelSpec, site: Site) -> tuple[str, ...]:
    if not site.device.has_gpu:
        return ()
    if not _on_gpu(site.options, site.device):
        return ("--device", "none")
    cards = max(1, len(model.cards))
    return (
        # By name: a GPU that is not there is an error then, and no reason to compute on the processors and say nothing. Inside a
        # container there are the cards that it was given, counted from 0.
        *("--device", ",".join(f"CUDA{index}" for index in range(cards))),
        *("--n-gpu-layers", str(option.whole(OPTIONS, site.options, "gpu_layers"))),
        *("--load-mode", LOAD_MODES[option.text(OPTIONS, site.options, "gpu_load")]),
        *(_split_argv(model.cards) if cards > 1 else ("--split-mode", "none")),
    )


def _split_argv(cards: Cards) -> tuple[str, ...]:
    parts = gpus.shares(tuple(part.size_bytes for part in cards))
    return ("--split-mode", "layer", "--tensor-split", ",".join(map(str, parts)))
