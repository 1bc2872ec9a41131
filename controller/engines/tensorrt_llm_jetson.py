"""
Hugging Face checkpoints by TensorRT-LLM 0.12, the branch for Jetsons: an AGX Orin with JetPack 6.1.

- Beside `tensorrt-llm` it is an engine of its own: another program with other options, which serves only what was built.
- The branch has no server for a Jetson. Ours is the HTTP side of the transformers worker, on the branch's executor.
- The engine file holds the weights, and is mapped when it is loaded; tokenizer and template stay in the checkpoint beside it.
- What it holds for keys and values is told to it in tokens: by itself it takes nine tenths of what is free.

NVIDIA names JetPack 6.1 and the AGX Orin for this branch, and no other; it has not yet been run there by us.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from controller.device import NO_GPU, Device, Family
from controller.engines import options as option
from controller.engines.base import (
    NO_OPTIONS,
    RUN_MOUNT,
    SOCKET_NAME,
    SOURCE_MOUNT,
    Options,
    Site,
    WeightsHeader,
    first_fault,
    generates,
    gpu_request,
    start_environment,
    worker_mounts,
    worker_socket,
)
from controller.engines.options import Option
from controller.spec import ApiPath, Footprint, FootprintSource, ModelSpec, Mount, WorkerSpec
from controller.units import GIB

NAME: Final = "tensorrt-llm-jetson"
VERSION: Final = "0.12.0-jetson"
"""Of the branch; what follows here is true of this one."""

FAMILIES: Final[Mapping[str, str]] = MappingProxyType({"llama": "llama", "qwen2": "qwen"})
"""The families we build, and the folder of the branch's examples that has the converter of each."""
_MODULE: Final = "p3701-"
"""What the modules of an AGX Orin are called."""
_RELEASES: Final = frozenset({"36.4", "36.4.0"})
_GPTQ: Final = "gptq"

REFUSED_FIELDS: Final = frozenset(
    {"logprobs", "top_logprobs", "logit_bias", "response_format", "tools", "tool_choice", "functions", "function_call"}
)

OPTIONS: Final[Mapping[str, Option]] = {
    "weights": Option(
        default="float16", choices=("float16", "int8", "int4"), text="how weights are stored in the engine file; GPTQ stays GPTQ"
    ),
}
"""What `[engines.tensorrt-llm-jetson.options]` may set."""

KV_BLOCK_TOKENS: Final = 64
"""The cache is made of blocks of so many tokens."""
ACTIVATION_WIDTHS: Final = 16
FEED_FORWARD_WIDTHS: Final = 4
"""How many rows of the model's and of the hidden layer's width an input takes while it passes a layer."""
RUNTIME_BYTES: Final = 3 * GIB
"""CUDA's context and code, TensorRT's work space, Python with torch and TensorRT-LLM. Assumed, not measured."""
_BITS: Final[Mapping[str, float]] = MappingProxyType({"float16": 16, "int8": 8, "int4": 4.5})
"""A weight of a layer with its share of the scales; embedding and output matrix keep sixteen."""
_API_WORDS: Final[Mapping[ApiPath, str]] = {ApiPath.CHAT: "chat", ApiPath.COMPLETIONS: "completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtLlmJetson:
    """Our server on NVIDIA's branch for Jetsons."""

    name: str = NAME
    formats: frozenset[str] = frozenset({"safetensors"})
    only_built: bool = True
    saves_kv: bool = False
    can_be_held: bool = True
    # The engine file is mapped and copied for the GPU; what is read ahead of it would be memory that the GPU cannot get.
    reads_directly: bool = True
    says_ready: bool = True
    refused_fields: frozenset[str] = REFUSED_FIELDS
    ignored_fields: frozenset[str] = frozenset()
    taken_fields: frozenset[str] | None = None
    start_timeout_s: float = 300.0

    def api_paths(self, header: WeightsHeader) -> frozenset[ApiPath]:
        """It completes, and chats if there is a template."""
        return frozenset() if header.embeddings else generates(header)

    def refusal(self, device: Device, header: WeightsHeader | None = None) -> str:
        """Say why not: the device first, then the model."""
        return first_fault(_device_faults(device), _model_faults(header) if header else ())

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
        Add up what the server will hold, all of it in the memory that the GPU shares with everything else.

        - weights, once: the file is mapped, and its pages can go when the GPU has them;
        - the KV cache of all callers, made whole at the start, in blocks of 64 tokens;
        - the activations of one pass, which a whole prompt takes;
        - logits and what is drawn from;
        - CUDA, TensorRT and Python with torch.

        NVIDIA's own figure for Llama 3 8B with INT4 and a mapped file is 7.3 GB. Not yet measured on hardware by us.
        """
        tokens = parallel * -(-context_tokens // KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS
        kv_bytes = 2 * header.layers * header.kv_heads * header.head_length * 2 * tokens
        widths = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
        compute_bytes = 2 * max(context_tokens, parallel) * widths
        logits_bytes = 3 * 4 * parallel * header.vocabulary
        total_bytes = engine_bytes(header, options) + kv_bytes + compute_bytes + logits_bytes + RUNTIME_BYTES
        return Footprint(total_bytes=total_bytes, weights_bytes=0, private_bytes=total_bytes, source=FootprintSource.ESTIMATE)

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*: the engine file and the checkpoint it was made of."""
        return WorkerSpec(
            model=model.name,
            image=site.image,
            argv=(
                *("--socket", str(RUN_MOUNT / SOCKET_NAME)),
                *("--model", str(SOURCE_MOUNT)),
                *("--model-name", model.served_name),
                *("--context-tokens", str(model.context_tokens)),
                *("--parallel", str(model.parallel)),
                *("--threads", str(site.threads)),
                *("--api", ",".join(word for path, word in _API_WORDS.items() if path in model.api_paths)),
                *("--device", "cuda"),
            ),
            env={**ENVIRONMENT, **start_environment()},
            mounts=(*worker_mounts(model, site), Mount(source=model.weights_folder, target=SOURCE_MOUNT, read_only=True)),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
            devices=gpu_request(model, site),
            groups=site.device.gpu_groups,
            pids_limit=1024,
        )


ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CUDA_CACHE_DISABLE": "1",
        "CUDA_MODULE_LOADING": "LAZY",  # by NVIDIA's figures for this branch it saves a GB of the GPU's memory
        "HF_HUB_OFFLINE": "1",
        "HOME": "/tmp",  # noqa: S108 -- the container's own
        "MALLOC_ARENA_MAX": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
)


def is_gptq(header: WeightsHeader) -> bool:
    """Whether the checkpoint is quantised with GPTQ, which its converter takes as it is."""
    return _GPTQ in header.quantization.split()


def engine_bytes(header: WeightsHeader, options: Options) -> int:
    """Return about how large the engine file is, which is its weights."""
    bits = 4.5 if is_gptq(header) else _BITS[option.text(OPTIONS, options, "weights")]
    ends = min(header.parameters, 2 * header.vocabulary * header.embedding_length)
    # Of a checkpoint that is quantised the header counts packed numbers, so the shapes say how many there are.
    layer = header.embedding_length * (
        2 * header.heads * header.head_length + 2 * header.kv_heads * header.head_length + 3 * header.feed_forward_length
    )
    return int(2 * ends + header.layers * layer * bits / 8)


def convert_argv(header: WeightsHeader, *, source: PurePosixPath, out: PurePosixPath, options: Options) -> tuple[str, ...]:
    """Return the arguments of the branch's converter."""
    weights = option.text(OPTIONS, options, "weights")
    stored: tuple[str, ...] = () if weights == "float16" else ("--use_weight_only", "--weight_only_precision", weights)
    if is_gptq(header):
        stored = ("--use_weight_only", "--weight_only_precision", "int4_gptq", "--per_group")
    return ("--model_dir", str(source), "--output_dir", str(out), "--dtype", "float16", *stored)


def build_argv(*, checkpoint: PurePosixPath, out: PurePosixPath, context_tokens: int, parallel: int) -> tuple[str, ...]:
    """Return the arguments of the branch's `trtllm-build`, for exactly what the server will ask for."""
    return (
        *("--checkpoint_dir", str(checkpoint)),
        *("--output_dir", str(out)),
        *("--gpt_attention_plugin", "float16"),
        *("--gemm_plugin", "float16"),
        *("--max_batch_size", str(parallel)),
        *("--max_input_len", str(context_tokens)),
        *("--max_seq_len", str(context_tokens)),
        # A prompt that does not pass at once is an error, so the longest must.
        *("--max_num_tokens", str(max(context_tokens, parallel))),
    )


def _device_faults(device: Device) -> Iterator[str]:
    """Say what is wrong with the device, the gravest first."""
    wanted = "TensorRT-LLM 0.12 runs on a Jetson AGX Orin with JetPack 6.1"
    if device.family is not Family.ORIN:
        yield f"{wanted}, and this box is none"
        return
    if not device.module.startswith(_MODULE):
        yield f"{wanted}, and this board is another one ({device.module or 'unknown'})"
    if device.l4t not in _RELEASES:
        yield f"{wanted} (Jetson Linux 36.4.0), and this box has Jetson Linux {device.l4t or 'of an unknown release'}"
    if not device.has_gpu:
        yield f"{wanted}, and no container of this box can use the GPU; `windlass check` says how to change that"


def _model_faults(header: WeightsHeader) -> Iterator[str]:
    """Say what is wrong with the model, the gravest first."""
    if header.format != "safetensors":
        yield f"it builds from safetensors, and these weights are {header.format}"
    if header.embeddings:
        yield "it generates text and does nothing else, and this is no text generator"
    if header.architecture not in FAMILIES:
        yield f"TensorRT-LLM 0.12 is built here for {' and '.join(sorted(FAMILIES))}, and this is {header.architecture}"
    if header.quantization and not (is_gptq(header) and header.architecture == "llama"):
        yield f"its converter is told here of GPTQ for llama and of no other quantisation, and this has {header.quantization}"
