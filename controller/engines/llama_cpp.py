"""
GGUF models by llama.cpp's own server: the choice on CPUs and on boards of 8 GB or less.

The weights are mapped, never copied: their pages belong to the page cache, cost nothing when the worker is gone, and make the
next start warm. The rest keeps to that: no repacking into private memory, no prompt cache beside the KV cache, no later growth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.device import NO_GPU, Device
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
    start_environment,
    worker_mounts,
    worker_socket,
)
from controller.engines.options import Option
from controller.spec import ApiPath, Footprint, FootprintSource, ModelSpec, WorkerSpec
from controller.units import MIB

ENVIRONMENT: Final = {
    # One malloc arena a thread would keep freed memory of every HTTP thread for itself.
    "MALLOC_ARENA_MAX": "2",
    # Threads sleep at a barrier at once. Where others compute on the same cores, threads that spin there wait whole time slices
    # for one that is not running: beside two busy processes on two cores, a model of 0.5B decoded 1.1 tokens a second, and 10
    # like this.
    "OMP_WAIT_POLICY": "passive",
}

OPTIONS: Final[Mapping[str, Option]] = {
    "ubatch_size": Option(
        default=128,
        smallest=1,
        text="tokens computed at once: more is a faster prompt and larger buffers",
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
    "log_verbosity": Option(default=2, smallest=0, text="what the server writes: 1 errors, 2 warnings, 3 one line a request"),
}
"""What `[engines.llama-cpp.options]` may set."""

KV_BYTES_PER_VALUE: Final[Mapping[str, float]] = {"f16": 2.0, "q8_0": 34 / 32}
KV_ALIGN_TOKENS: Final = 256
"""The server rounds the context of each caller up to this."""
PROCESS_BYTES: Final = 12 * MIB
"""The process before it knows its model: code, heap, threads, HTTP. Measured 6.3 MB."""
VOCABULARY_ENTRY_BYTES: Final = 340
"""Each entry of the tokenizer: its text twice, two hash tables, its merge rule. Measured 290 with short texts."""
OUTPUT_ENTRY_BYTES: Final = 32
"""Each entry of the vocabulary for each caller: its logit, the sampler's candidate, and a copy for probabilities."""
ACTIVATION_WIDTHS: Final = 12
FEED_FORWARD_WIDTHS: Final = 3
"""How many rows of the model's and of the hidden layer's width live at once while one micro-batch passes a layer."""
MARGIN: Final = 0.10
"""Added to everything that is computed, since the graph allocator's packing is not."""
SLACK_BYTES: Final = 24 * MIB
"""Left for request bodies and for the pages of a conversation being written, so that they do not push out weights."""
PAGE_TABLE_SHARE: Final = 8 / 4096
"""Eight bytes of page table for each mapped page of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCpp:
    """llama.cpp's server."""

    name: str = "llama-cpp"
    formats: frozenset[str] = frozenset({"gguf"})
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
        if header.embeddings:
            return frozenset({ApiPath.EMBEDDINGS})
        return frozenset({ApiPath.COMPLETIONS, ApiPath.CHAT} if header.chat else {ApiPath.COMPLETIONS})

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
        device: Device = NO_GPU,  # noqa: ARG002
    ) -> Footprint:
        """
        Add up what the server will hold.

        - weights: the file, mapped;
        - KV cache: 2 x layers x KV heads x head length x bytes a value x tokens of all callers, touched whole at the start;
        - one micro-batch: its activations and its attention mask (the server reserves logits for all of it, too, and touches
          those of each caller's last token alone);
        - what is drawn from, for each caller: vocabulary x 32 bytes;
        - the process and its tokenizer;
        - 10 % of all of that but the weights, and 24 MiB.

        Measured against it (private bytes, 2048 tokens, one caller): 0.5B at 16 bit 90 MB of 146, 1.5B at 16 bit 133 MB of 198.
        """
        tokens = parallel * _aligned(context_tokens)
        value_bytes = KV_BYTES_PER_VALUE[option.text(OPTIONS, options, "kv_type")]
        kv_bytes = 2 * header.layers * header.kv_heads * header.head_length * value_bytes * tokens
        ubatch = _ubatch(options, context_tokens=context_tokens, embeddings=header.embeddings)
        widest = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
        compute_bytes = 4 * ubatch * (widest + tokens)
        output_bytes = 0 if header.embeddings else header.vocabulary * OUTPUT_ENTRY_BYTES * parallel
        tokenizer_bytes = header.vocabulary * VOCABULARY_ENTRY_BYTES
        computed_bytes = kv_bytes + compute_bytes + output_bytes + tokenizer_bytes + PROCESS_BYTES
        private_bytes = int(computed_bytes * (1 + MARGIN) + SLACK_BYTES + header.weights_bytes * PAGE_TABLE_SHARE)
        if option.switch(OPTIONS, options, "repack"):
            private_bytes += header.weights_bytes
        return Footprint(
            total_bytes=header.weights_bytes + private_bytes,
            weights_bytes=header.weights_bytes,
            private_bytes=private_bytes,
            source=FootprintSource.ESTIMATE,
        )

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*."""
        return WorkerSpec(
            model=model.name,
            image=site.image,
            argv=_argv(model, site),
            env={**ENVIRONMENT, **start_environment(model.weights, *model.lora)},
            mounts=worker_mounts(model, site),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
        )


def _aligned(context_tokens: int) -> int:
    return -(-context_tokens // KV_ALIGN_TOKENS) * KV_ALIGN_TOKENS


def _ubatch(options: Options, *, context_tokens: int, embeddings: bool) -> int:
    # An embedding looks at its whole input at once, so the input must fit into one micro-batch.
    return context_tokens if embeddings else min(option.whole(OPTIONS, options, "ubatch_size"), context_tokens)


def _argv(model: ModelSpec, site: Site) -> tuple[str, ...]:
    embeddings = ApiPath.EMBEDDINGS in model.api_paths
    ubatch = _ubatch(site.options, context_tokens=model.context_tokens, embeddings=embeddings)
    batch = max(ubatch, min(option.whole(OPTIONS, site.options, "batch_size"), model.context_tokens))
    kv_type = option.text(OPTIONS, site.options, "kv_type")
    repack = option.switch(OPTIONS, site.options, "repack")
    warmup = option.switch(OPTIONS, site.options, "warmup")
    return (
        *("--host", str(RUN_MOUNT / SOCKET_NAME)),
        *("--model", str(MODEL_MOUNT / model.weights)),
        *("--alias", model.served_name),
        *(("--lora", ",".join(str(MODEL_MOUNT / adapter) for adapter in model.lora)) if model.lora else ()),
        *("--ctx-size", str(_aligned(model.context_tokens) * model.parallel)),
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
    )
