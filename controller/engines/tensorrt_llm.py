"""
Hugging Face checkpoints by NVIDIA's TensorRT-LLM 1.2 on cards: its own server and PyTorch backend, so that nothing is built.

- Its server listens on TCP alone, so a forwarder in the container carries the worker's socket to it.
- By itself it takes nine tenths of the card for keys and values. How many tokens they are for is told by a file that its launcher
  writes into the container: there is no option for it.
- It calls a model by the last part of its folder's path, so the folder is mounted a second time under the name callers use.
- It takes a closed list of request fields, and answers any other with an error.

Its versions exclude each other: this one wants CUDA 13 and Ampere or later, and knows no Jetson; the branch 0.12, which does,
wants JetPack 6.1 on an AGX Orin, and is the engine `tensorrt-llm-jetson`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from controller.device import NO_GPU, Device, Family
from controller.engines import gpus
from controller.engines import options as option
from controller.engines.base import (
    KV_MOUNT,
    NO_OPTIONS,
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
from controller.spec import ApiPath, Footprint, ModelSpec, Mount, Spread, WorkerSpec
from controller.units import GIB, MIB

NAME: Final = "tensorrt-llm"
VERSION: Final = "1.2.1"
"""Of the package in the image; what follows here is true of this one."""
PORT: Final = 8000
"""What its server listens on inside its container, for the forwarder alone."""
SERVED: Final = PurePosixPath("/served")
"""Where the model's folder is seen under the name callers use."""
ARGUMENTS_FILE: Final = PurePosixPath("/tmp/llm-args.yaml")  # noqa: S108 -- the container's own
ARGUMENTS_VARIABLE: Final = "WINDLASS_LLM_ARGS"
"""What the launcher writes into that file: settings that the command line has no option for. JSON is YAML, too."""
LEAST_SM: Final = 80
LEAST_CUDA: Final = (13, 0)
"""Its wheel is built against this; the driver must know it, which is version 580 and later."""

TAKEN_FIELDS: Final = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "best_of",
        "chat_template_kwargs",
        "detokenize",
        "documents",
        "early_stopping",
        "echo",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "length_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "min_p",
        "min_tokens",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
        "top_p_min",
        "truncate_prompt_tokens",
        "use_beam_search",
        "user",
    }
)
"""What its server takes on one of its two paths and heeds; any other field is an error there."""
REFUSED_FIELDS: Final = frozenset({"function_call", "functions", "suffix", "tool_choice", "tools"})
"""Tools: without a parser for the model's family it would answer with their calls as plain text."""
IGNORED_FIELDS: Final = frozenset(
    {
        "cache_prompt",
        "id_slot",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "return_progress",
        "safety_identifier",
        "service_tier",
        "store",
        "timings_per_token",
    }
)

OPTIONS: Final[Mapping[str, Option]] = {
    "block_reuse": Option(
        default=False, text="compute the beginning that a prompt shares with an earlier one once, whoever sent that"
    ),
    "cuda_graphs": Option(
        default=True, text="record what decoding does and play it back: faster tokens, slower starts, more memory"
    ),
    "kv_type": Option(
        default="auto", choices=("auto", "fp8"), text="how keys and values are kept: as the model says, or in 8 bits"
    ),
    "log_level": Option(
        default="warning", choices=("error", "warning", "info", "verbose", "debug"), text="what the server writes"
    ),
}
"""What `[engines.tensorrt-llm.options]` may set."""

KV_BLOCK_TOKENS: Final = 32
"""The cache is made of blocks of so many tokens."""
ACTIVATION_WIDTHS: Final = 16
FEED_FORWARD_WIDTHS: Final = 4
"""How many rows of the model's and of the hidden layer's width an input takes while it passes a layer."""
RUNTIME_BYTES: Final = 1536 * MIB
"""What torch, its kernels' work space and the recorded graphs take of a card beside the driver's part. Assumed, not measured."""
HOST_BYTES: Final = 5 * GIB
"""Python with torch and TensorRT-LLM, once for each card, with the memory that they share. Assumed, not measured."""
SHARED_BYTES: Final = GIB
"""Memory that the processes of several cards share."""
PIDS: Final = 2048
MARGIN: Final = 0.10
SPREAD: Final = (2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtLlm:
    """NVIDIA's server for cards."""

    name: str = NAME
    formats: frozenset[str] = frozenset({"safetensors"})
    only_built: bool = False
    saves_kv: bool = False
    can_be_held: bool = True
    # Its loader reads the checkpoint in parallel and in order, and what is read ahead would not fit into the worker's limit.
    reads_directly: bool = True
    says_ready: bool = True
    refused_fields: frozenset[str] = REFUSED_FIELDS
    ignored_fields: frozenset[str] = IGNORED_FIELDS
    taken_fields: frozenset[str] | None = TAKEN_FIELDS
    start_timeout_s: float = 600.0

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
        device: Device = NO_GPU,
    ) -> Footprint:
        """
        Add up what the server will hold.

        - weights, on the card;
        - the KV cache of all callers, made whole at the start, in blocks;
        - the activations of one pass, which a whole prompt takes;
        - logits and what is drawn from;
        - torch with TensorRT-LLM, there and in the box's memory.

        Nobody has measured against it.
        """
        compute_bytes = int(_compute_bytes(header, context_tokens=context_tokens, parallel=parallel) * (1 + MARGIN))
        kv_bytes = _kv_bytes(header, context_tokens=context_tokens, parallel=parallel, options=options)
        each_bytes = compute_bytes + RUNTIME_BYTES
        return gpus.footprint(
            device,
            here_bytes=HOST_BYTES,
            there_bytes=header.weights_bytes + kv_bytes + each_bytes,
            each_bytes=each_bytes,
            spread=Spread(counts=tuple(count for count in SPREAD if _divides(header, count)), even=True),
        )

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*."""
        served = SERVED / model.served_name
        return WorkerSpec(
            model=model.name,
            image=site.image,
            argv=serve_argv(model, site),
            env={
                **ENVIRONMENT,
                **start_environment(),
                **gpus.ENVIRONMENT,
                ARGUMENTS_VARIABLE: json.dumps(llm_arguments(model, site.options), sort_keys=True),
                # With one card its executor needs no MPI, and so no process beside the server's.
                **({"TLLM_WORKER_USE_SINGLE_PROCESS": "1"} if len(model.cards) <= 1 else {}),
            },
            mounts=(*worker_mounts(model, site), Mount(source=model.folder, target=served, read_only=True)),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
            devices=gpu_request(model, site),
            groups=site.device.gpu_groups,
            pids_limit=PIDS,
            shm_bytes=SHARED_BYTES if len(model.cards) > 1 else 0,
        )


_CACHE: Final = KV_MOUNT / "cache"
ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "HF_HUB_OFFLINE": "1",
        "HOME": "/tmp",  # noqa: S108 -- the container's own
        "MALLOC_ARENA_MAX": "2",
        # Compiled code is loaded from where it is kept, which /tmp forbids; and it is kept from one start to the next.
        "TORCHINDUCTOR_CACHE_DIR": str(_CACHE / "inductor"),
        "TRITON_CACHE_DIR": str(_CACHE / "triton"),
        "FLASHINFER_WORKSPACE_BASE": str(_CACHE),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
)


def serve_argv(model: ModelSpec, site: Site) -> tuple[str, ...]:
    """Return the arguments of its launcher, which are those of `trtllm-serve`."""
    return (
        *("serve", str(SERVED / model.served_name)),
        *("--host", "127.0.0.1"),
        *("--port", str(PORT)),
        *("--backend", "pytorch"),
        *("--max_batch_size", str(model.parallel)),
        *("--max_seq_len", str(model.context_tokens)),
        # A prompt that does not pass at once is an error, so the longest must.
        *("--max_num_tokens", str(max(model.context_tokens, model.parallel))),
        *("--tp_size", str(max(1, len(model.cards)))),
        *("--log_level", option.text(OPTIONS, site.options, "log_level")),
        *("--extra_llm_api_options", str(ARGUMENTS_FILE)),
    )


def llm_arguments(model: ModelSpec, options: Options) -> Mapping[str, object]:
    """Return the settings that the command line has no option for."""
    return {
        "kv_cache_config": {
            "dtype": option.text(OPTIONS, options, "kv_type"),
            "enable_block_reuse": option.switch(OPTIONS, options, "block_reuse"),
            "max_tokens": kv_tokens(context_tokens=model.context_tokens, parallel=model.parallel),
        },
        **({} if option.switch(OPTIONS, options, "cuda_graphs") else {"cuda_graph_config": None}),
    }


def kv_tokens(*, context_tokens: int, parallel: int) -> int:
    """Return how many tokens the KV cache is for: every caller's whole context, in blocks."""
    return parallel * -(-context_tokens // KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS


def _kv_bytes(header: WeightsHeader, *, context_tokens: int, parallel: int, options: Options) -> int:
    value_bytes = 1 if option.text(OPTIONS, options, "kv_type") == "fp8" else 2
    tokens = kv_tokens(context_tokens=context_tokens, parallel=parallel)
    return 2 * header.layers * header.kv_heads * header.head_length * value_bytes * tokens


def _compute_bytes(header: WeightsHeader, *, context_tokens: int, parallel: int) -> int:
    widths = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
    return 2 * max(context_tokens, parallel) * widths + 3 * 4 * parallel * header.vocabulary


def _divides(header: WeightsHeader, cards: int) -> bool:
    return header.heads % cards == 0 and header.kv_heads % cards == 0


def _device_faults(device: Device) -> Iterator[str]:
    """Say what is wrong with the device, the gravest first."""
    wanted = f"TensorRT-LLM {VERSION} runs on NVIDIA's cards"
    match device.family:
        case Family.NONE:
            yield f"{wanted}, and this box has none"
        case Family.ORIN | Family.THOR:
            yield f"{wanted}, and this box is a Jetson"
        case Family.DISCRETE:
            yield from _card_faults(device, wanted)


def _card_faults(device: Device, wanted: str) -> Iterator[str]:
    if not device.has_gpu:
        yield f"{wanted}, and no container of this box can use one; `windlass check` says how to change that"
    if old := gpus.too_old(device, LEAST_SM):
        names = ", ".join(f"{gpu.name} (SM {gpu.sm or 'unknown'})" for gpu in old)
        yield f"{wanted} of SM {LEAST_SM} and later (Ampere), and here is {names}"
    if not device.cuda or _version(device.cuda) < LEAST_CUDA:
        least = ".".join(map(str, LEAST_CUDA))
        yield (
            f"{wanted} with a driver for CUDA {least} (580 or later), and here is driver {device.driver or 'unknown'} "
            f"for CUDA {device.cuda or 'unknown'}"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _model_faults(header: WeightsHeader) -> Iterator[str]:
    if header.format != "safetensors":
        yield f"it reads safetensors, and these weights are {header.format}"
    if header.embeddings:
        yield "it generates text and does nothing else, and this is no text generator"
