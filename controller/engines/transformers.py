"""
Hugging Face checkpoints by our own small server on torch: what nothing else runs, embeddings, and models without a GGUF.

Only safetensors are read: a pickle runs code when it is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.device import NO_GPU, Device, Family
from controller.engines import gpus
from controller.engines import options as option
from controller.engines.base import (
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
from controller.engines.options import Option
from controller.spec import ApiPath, Footprint, FootprintSource, ModelSpec, WorkerSpec
from controller.units import MIB

OPTIONS: Final[Mapping[str, Option]] = {
    "interop_threads": Option(default=1, smallest=1, text="threads torch uses to run independent operations side by side"),
}
"""What `[engines.transformers.options]` may set."""

FOREIGN: Final = frozenset(
    {
        "aqlm",
        "auto-round",
        "awq",
        "bitsandbytes",
        "compressed-tensors",
        "eetq",
        "gptq",
        "higgs",
        "hqq",
        "modelopt",
        "quant_algo",
        "quanto",
        "vptq",
    }
)
"""Ways to quantise a checkpoint that transformers leaves to packages of their own."""
RUNTIME_BYTES: Final = 450 * MIB
"""Python, torch and transformers before there is a model: 280 MB private, and the pages of the libraries they map."""
CUDA_RUNTIME_BYTES: Final = 600 * MIB
"""What torch's libraries for CUDA take of the box's memory beside that."""
VOCABULARY_ENTRY_BYTES: Final = 450
"""Each entry of the tokenizer, in the tokenizer library's maps. Measured 360."""
KV_GROWTH: Final = 1.5
"""A cache that grows is copied into a longer one, and the allocator does not give the freed blocks back at once."""
ACTIVATION_WIDTHS: Final = 8
FEED_FORWARD_WIDTHS: Final = 3
"""How many rows of the model's and of the hidden layer's width live at once while an input passes a layer."""
ATTENTION_COPIES: Final = 4
"""Keys and values of one layer, repeated for every attention head, and once more while they are."""
MARGIN: Final = 0.10
"""Added to everything that is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformers:
    """Our server on torch and transformers."""

    name: str = "transformers"
    formats: frozenset[str] = frozenset({"safetensors"})
    only_built: bool = False
    saves_kv: bool = False
    can_be_held: bool = True
    reads_directly: bool = False
    says_ready: bool = True
    refused_fields: frozenset[str] = frozenset(
        {"logprobs", "top_logprobs", "logit_bias", "response_format", "tools", "tool_choice", "functions", "function_call"}
    )
    ignored_fields: frozenset[str] = frozenset()
    taken_fields: frozenset[str] | None = None
    start_timeout_s: float = 120.0

    def api_paths(self, header: WeightsHeader) -> frozenset[ApiPath]:
        """Every checkpoint embeds; a generator completes as well, and chats if it has a template."""
        embeds = frozenset({ApiPath.EMBEDDINGS})
        return embeds if header.embeddings else embeds | generates(header)

    def refusal(self, device: Device, header: WeightsHeader | None = None) -> str:  # noqa: ARG002
        """It runs everywhere, but for weights in a form that needs a package which our image does not hold."""
        said = header.quantization if header else ""
        if FOREIGN.isdisjoint(said.split()):
            return ""
        return f"its weights are quantised ({said}), and our image of transformers holds no package that reads those"

    def check_options(self, options: Options) -> tuple[str, ...]:
        """Say what is wrong with the options."""
        return option.problems(self.name, OPTIONS, options)

    def estimate(
        self,
        header: WeightsHeader,
        *,
        context_tokens: int,
        parallel: int,
        options: Options = NO_OPTIONS,  # noqa: ARG002
        device: Device = NO_GPU,
    ) -> Footprint:
        """
        Add up what the server will hold.

        - weights: the files, mapped;
        - KV cache: 2 x layers x KV heads x head length x bytes a value x tokens of all callers, half as much again as it grows;
        - one input's activations: an embedding reads the whole context at once;
        - one layer's keys and values, repeated for every head, and the scores of the last token in 32 bits;
        - Python with torch, and the tokenizer;
        - 10 % of all of that but the weights.

        On a GPU the weights are a copy of the file, whose pages are let go, and CUDA's libraries come with torch's: what those
        take is assumed, and nobody has measured it here.

        Values are as wide as the checkpoint's, and at least 16 bits. Measured against it: 0.5B at 16 bit, 4096 tokens, one
        caller: 454 MB private and up to 190 MB of library pages, of 890 MB.
        """
        computed = _compute(header, context_tokens=context_tokens, parallel=parallel)
        tokenizer_bytes = header.vocabulary * VOCABULARY_ENTRY_BYTES
        if _on_gpu(device):
            process_bytes = RUNTIME_BYTES + CUDA_RUNTIME_BYTES + tokenizer_bytes
            there_bytes = header.weights_bytes + int(computed * (1 + MARGIN))
            return gpus.footprint(device, here_bytes=int(process_bytes * (1 + MARGIN)), there_bytes=there_bytes)
        private_bytes = int((computed + tokenizer_bytes + RUNTIME_BYTES) * (1 + MARGIN))
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
            argv=(
                *("--socket", str(RUN_MOUNT / SOCKET_NAME)),
                *("--model", str(MODEL_MOUNT)),
                *("--model-name", model.served_name),
                *("--context-tokens", str(model.context_tokens)),
                *("--parallel", str(model.parallel)),
                *("--threads", str(site.threads)),
                *("--api", ",".join(word for path, word in _API_WORDS.items() if path in model.api_paths)),
                *(("--device", "cuda") if _on_gpu(site.device) else ()),
            ),
            env={
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": str(site.threads),
                "WINDLASS_INTEROP_THREADS": str(option.whole(OPTIONS, site.options, "interop_threads")),
                # One malloc arena a thread would keep freed memory of every thread for itself.
                "MALLOC_ARENA_MAX": "2",
                **start_environment(),
                **(gpus.ENVIRONMENT if _on_gpu(site.device) else {}),
            },
            mounts=worker_mounts(model, site),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
            devices=gpu_request(model, site) if _on_gpu(site.device) else (),
            groups=site.device.gpu_groups if _on_gpu(site.device) else (),
        )


def _on_gpu(device: Device) -> bool:
    """
    Whether the worker computes on the GPU: on cards and on Thor, and not on an Orin.

    torch's wheels for ARM hold no code for an Orin (SM 87), and nobody has tried whether that for another GPU runs there; so
    the image for an Orin has torch without CUDA.
    """
    return gpus.computes(device) and device.family is not Family.ORIN


_API_WORDS: Final[Mapping[ApiPath, str]] = {
    ApiPath.CHAT: "chat",
    ApiPath.COMPLETIONS: "completions",
    ApiPath.EMBEDDINGS: "embeddings",
}


def _compute(header: WeightsHeader, *, context_tokens: int, parallel: int) -> float:
    """Add up what computing takes: KV caches, activations, keys and values for every head, scores."""
    value_bytes = min(4, max(2, header.weights_bytes / header.parameters))
    generates = not header.embeddings
    kv_bytes = 2 * header.layers * header.kv_heads * header.head_length * value_bytes * parallel * context_tokens
    widths = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
    attention = ATTENTION_COPIES * header.heads * header.head_length
    compute_bytes = context_tokens * (widths + attention) * value_bytes
    scores_bytes = 3 * 4 * parallel * header.vocabulary
    return generates * (KV_GROWTH * kv_bytes + scores_bytes) + compute_bytes
