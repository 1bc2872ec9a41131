"""
Hugging Face checkpoints by NVIDIA's TensorRT Edge-LLM, on a Jetson Orin or Thor with JetPack 7.2.

What is built on the device is a TensorRT engine with next to no weights in it: those are read from the checkpoint at every start,
changed into the GPU's layout as they come, and their pages let go. So a worker needs both, the engine file and the checkpoint.

The package chooses its native code by exact facts (the release of Jetson Linux, the GPU's architecture), takes a closed list of
model families, and of request fields. All three are repeated here, so that a refusal comes before a build and not after it; the
tests hold them against the package itself.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from controller.device import NO_GPU, Device, Family
from controller.engines import options as option
from controller.engines.base import (
    NO_OPTIONS,
    SOURCE_MOUNT,
    Options,
    Site,
    WeightsHeader,
    first_fault,
    gpu_request,
    start_environment,
    worker_mounts,
    worker_socket,
)
from controller.engines.builds.quantization import shares_embedding
from controller.engines.options import Option
from controller.spec import ApiPath, Footprint, FootprintSource, ModelSpec, Mount, WorkerSpec
from controller.units import MIB

NAME: Final = "tensorrt-edge-llm"
VERSION: Final = "0.11.0"
"""Of the package in the image; what follows here is true of this one."""
PORT: Final = 8000
"""What its server listens on inside its container, for the forwarder alone."""
RELEASE_FILE: Final = PurePosixPath("/etc/nv_tegra_release")
"""By which the package tells the release of Jetson Linux; the container runtime does not bring it along."""

PAYLOADS: Final[Mapping[Family, str]] = MappingProxyType(
    {Family.ORIN: "jetson-orin-jp72-cu13-sm87", Family.THOR: "jetson-thor-jp72-cu13-sm110"}
)
"""The native code of the package that our image keeps, by the device it is for."""
_RELEASE: Final = "39.2"
_SM: Final[Mapping[Family, str]] = MappingProxyType({Family.ORIN: "87", Family.THOR: "110"})
_OTHER_PAYLOAD: Final = "igx thor"
"""A board whose model says so gets another payload of the package, which our image has not."""

FAMILIES: Final = frozenset(
    {
        "gemma4_text",
        "hunyuan_v1_dense",
        "llama",
        "mistral",
        "muse_glimmer_text",
        "nemotron_h",
        "qwen2",
        "qwen3",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_moe",
    }
)
"""The families of the package that are text and nothing else."""

TAKEN_FIELDS: Final = frozenset(
    {
        "add_generation_prompt",
        "apply_chat_template",
        "cache_generated_tokens",
        "chat_template_kwargs",
        "disable_spec_decode",
        "enable_thinking",
        "guided_decoding",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "reuse_context",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)
"""What its server takes and heeds; any other field is an error there, whatever its value."""
IGNORED_FIELDS: Final = frozenset(
    {
        "cache_prompt",
        "id_slot",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "return_progress",
        "safety_identifier",
        "service_tier",
        "store",
        "timings_per_token",
        "user",
    }
)

OPTIONS: Final[Mapping[str, Option]] = {
    "max_input_tokens": Option(default=0, text="the longest prompt; 0 is the whole context, and less saves memory"),
    "context_reuse": Option(
        default=False, text="compute the beginning that a prompt shares with an earlier one once, whoever sent that"
    ),
    "max_queued_requests": Option(default=16, text="requests that may wait in the worker behind those it answers"),
    "reasoning_parser": Option(
        default="auto",
        choices=("auto", "none", "qwen3", "deepseek_r1", "muse_glimmer", "nemotron"),
        text="how thoughts are told from the answer",
    ),
    "tool_call_parser": Option(
        default="auto",
        choices=("auto", "generic", "hermes", "qwen3_xml", "nemotron", "openai"),
        text="how calls of tools are told from text",
    ),
    "log_level": Option(default="warning", choices=("debug", "info", "warning", "error"), text="what the server writes"),
}
"""What `[engines.tensorrt-edge-llm.options]` may set."""

KV_PAGE_TOKENS: Final = 128
"""The cache is made of pages of so many tokens."""
VALUE_BYTES: Final = 2
"""Keys, values and activations are kept at sixteen bits."""
ACTIVATION_WIDTHS: Final = 24
FEED_FORWARD_WIDTHS: Final = 6
"""How many rows of the model's and of the hidden layer's width an input takes while it passes a layer."""
RUNTIME_BYTES: Final = 900 * MIB
"""CUDA's context, TensorRT, its plugins and work space, the captured graphs, Python: what is left of NVIDIA's own figures."""


class Precision(enum.StrEnum):
    """How weights are stored, as far as a GPU must be able to compute with it."""

    SIXTEEN = "16 bit"
    """Half precision; bfloat16 is read as that."""
    INT8 = "INT8"
    """SmoothQuant."""
    INT4 = "INT4"
    """AWQ or GPTQ."""
    FP8 = "FP8"
    """Eight bits of floating point, MXFP8 included."""
    NVFP4 = "NVFP4"
    """Four bits of floating point, in NVIDIA's own layout."""


_ON_ORIN: Final = frozenset({Precision.SIXTEEN, Precision.INT8, Precision.INT4})
_WORDS: Final = (
    # In the name of an algorithm, the first that occurs decides.
    ("nvfp4", Precision.NVFP4),
    ("fp8", Precision.FP8),
    ("awq", Precision.INT4),
    ("gptq", Precision.INT4),
    ("w8a8", Precision.INT8),
    ("int8", Precision.INT8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtEdgeLlm:
    """NVIDIA's server for Jetsons."""

    name: str = NAME
    formats: frozenset[str] = frozenset({"safetensors"})
    only_built: bool = True
    saves_kv: bool = False
    can_be_held: bool = True
    # Its loader maps the checkpoint and lets pages go as it is done with them. What is read ahead fills memory that is free, and
    # that is what the GPU's allocator looks for on a Jetson, not for what could be freed.
    reads_directly: bool = True
    says_ready: bool = True
    refused_fields: frozenset[str] = frozenset()
    ignored_fields: frozenset[str] = IGNORED_FIELDS
    taken_fields: frozenset[str] | None = TAKEN_FIELDS
    start_timeout_s: float = 300.0

    def api_paths(self, header: WeightsHeader) -> frozenset[ApiPath]:
        """It chats, and nothing else."""
        return frozenset({ApiPath.CHAT} if header.chat and not header.embeddings else ())

    def refusal(self, device: Device, header: WeightsHeader | None = None) -> str:
        """Say why not: the device first, then the model."""
        return first_fault(_device_faults(device), _model_faults(device, header) if header else ())

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

        - weights, once, in the GPU's layout; an embedding that is the output matrix, too, twice;
        - the KV cache of all callers, made whole at the start, in pages of 128 tokens;
        - the activations of the longest input;
        - logits and what is drawn from;
        - CUDA, TensorRT and Python.

        Against NVIDIA's own figures for Qwen3 at INT4 (0.6B and 1.7B on an Orin Nano, 4B and 8B on an NX) it is 3 to 18 % more.
        Not yet measured on hardware by us.
        """
        tokens = parallel * -(-context_tokens // KV_PAGE_TOKENS) * KV_PAGE_TOKENS
        kv_bytes = 2 * header.layers * header.kv_heads * header.head_length * VALUE_BYTES * tokens
        twice_bytes = VALUE_BYTES * header.vocabulary * header.embedding_length if shares_embedding(header) else 0
        widths = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
        compute_bytes = parallel * max_input_tokens(context_tokens, options) * widths * VALUE_BYTES
        logits_bytes = 3 * 4 * parallel * header.vocabulary
        total_bytes = header.weights_bytes + twice_bytes + kv_bytes + compute_bytes + logits_bytes + RUNTIME_BYTES
        # Nothing of it is mapped: what the GPU has of the weights cannot be dropped and read again.
        return Footprint(total_bytes=total_bytes, weights_bytes=0, private_bytes=total_bytes, source=FootprintSource.ESTIMATE)

    def worker(self, model: ModelSpec, site: Site) -> WorkerSpec:
        """Describe the container that serves *model*: the engine file and the checkpoint it was made of."""
        return WorkerSpec(
            model=model.name,
            image=site.image,
            argv=serve_argv(model, site),
            env={**ENVIRONMENT, **start_environment()},
            mounts=(
                *worker_mounts(model, site),
                Mount(source=model.weights_folder, target=SOURCE_MOUNT, read_only=True),
                Mount(source=RELEASE_FILE, target=RELEASE_FILE, read_only=True),
            ),
            memory_bytes=model.footprint.total_bytes,
            socket=worker_socket(model, site),
            devices=gpu_request(model, site),
            groups=site.device.gpu_groups,
        )


ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CUDA_CACHE_DISABLE": "1",  # there is no home to keep it in, and nothing is compiled at run time
        "HF_HUB_OFFLINE": "1",
        "HOME": "/tmp",  # noqa: S108 -- the container's own
        "MALLOC_ARENA_MAX": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
)


def max_input_tokens(context_tokens: int, options: Options) -> int:
    """Return the longest prompt that is compiled for."""
    wanted = option.whole(OPTIONS, options, "max_input_tokens")
    return min(wanted or context_tokens, context_tokens)


def shape_argv(*, context_tokens: int, parallel: int, options: Options) -> tuple[str, ...]:
    """Return the arguments that server and builder must agree in, since they name what was built."""
    return (
        *("--max-input-len", str(max_input_tokens(context_tokens, options))),
        *("--max-batch-size", str(parallel)),
        *("--max-kv-cache-capacity", str(context_tokens)),
    )


def serve_argv(model: ModelSpec, site: Site) -> tuple[str, ...]:
    """Return the arguments of its server, which its own parser reads."""
    options = site.options
    return (
        str(SOURCE_MOUNT),
        *("--cache-dir", str(cache_folder(site.device))),
        *("--host", "127.0.0.1"),
        *("--port", str(PORT)),
        *("--served-model-name", model.served_name),
        *shape_argv(context_tokens=model.context_tokens, parallel=model.parallel, options=options),
        *(("--enable-in-flight-batching",) if model.parallel > 1 else ()),
        *("--max-queued-requests", str(option.whole(OPTIONS, options, "max_queued_requests"))),
        *("--reasoning-parser", option.text(OPTIONS, options, "reasoning_parser")),
        *("--tool-call-parser", option.text(OPTIONS, options, "tool_call_parser")),
        *(("--enable-auto-tool-choice",) if model.tools else ()),
        *(("--enable-context-reuse",) if option.switch(OPTIONS, options, "context_reuse") else ()),
        *("--log-level", option.text(OPTIONS, options, "log_level")),
    )


def build_argv(*, context_tokens: int, parallel: int, options: Options, out: PurePosixPath) -> tuple[str, ...]:
    """Return the command that builds for exactly what the server will ask for, as the server itself would build it."""
    return (
        *("/opt/venv/bin/tensorrt-edgellm-build", "--model-dir", str(SOURCE_MOUNT)),
        *("--engine-dir", str(out)),
        *("--components", "all"),
        *shape_argv(context_tokens=context_tokens, parallel=parallel, options=options),
    )


def cache_folder(device: Device) -> PurePosixPath:
    """
    Return where its server looks for what was built.

    The name it gives an engine says nothing of TensorRT, Jetson Linux or the board, and an engine runs with exactly these: so
    they are in the folder's name, and an engine built for others cannot be found.
    """
    return PurePosixPath("/tmp/edge-llm") / f"{device.fingerprint}_edgellm{VERSION}"  # noqa: S108 -- the container's own


def precisions(quantization: str) -> frozenset[Precision]:
    """Return what a GPU must compute with for weights that are quantised so; nothing if the package does not read them."""
    kind, _, text = quantization.partition(" ")
    match kind:
        case "":
            return frozenset({Precision.SIXTEEN})
        case "quant_method":
            found = [_by_method(text)]
        case _:
            found = [_by_algorithm(part) for part in text.removeprefix("mixed_precision ").split(",")]
    return frozenset() if None in found else frozenset(one for one in found if one is not None)


def _by_method(text: str) -> Precision | None:
    method, _, layout = text.partition(" ")
    if method == "compressed-tensors":
        return Precision.NVFP4 if "nvfp4" in layout else None
    return Precision.INT4 if method in ("awq", "gptq") else None


def _by_algorithm(text: str) -> Precision | None:
    return None if "mxfp4" in text else next((precision for word, precision in _WORDS if word in text), None)


def _device_faults(device: Device) -> Iterator[str]:
    """Say what is wrong with the device, the gravest first."""
    wanted = "it runs on a Jetson Orin or Thor with JetPack 7.2"
    if device.family not in PAYLOADS:
        yield f"{wanted}, and this box is none"
        return
    if not device.has_gpu:
        yield f"{wanted}, and no container of this box can use the GPU; `windlass check` says how to change that"
    if device.l4t != _RELEASE and not device.l4t.startswith(f"{_RELEASE}."):
        yield f"{wanted} (Jetson Linux {_RELEASE}), and this box has Jetson Linux {device.l4t or 'of an unknown release'}"
    if device.sm != _SM[device.family]:
        yield f"{wanted}: SM {_SM[device.family]} on {device.family}, and this GPU has SM {device.sm or 'unknown'}"
    if _OTHER_PAYLOAD in device.board.lower():
        yield f"{wanted}, and for the board {device.board} the package has other code, which our image does not hold"


def _model_faults(device: Device, header: WeightsHeader) -> Iterator[str]:
    """Say what is wrong with the model, the gravest first."""
    package = f"TensorRT Edge-LLM {VERSION}"
    if header.format != "safetensors":
        yield f"it builds from safetensors, and these weights are {header.format}"
    if header.embeddings:
        yield "it chats and does nothing else, and this is no text generator"
    if header.architecture not in FAMILIES:
        yield f"{package} does not know the family {header.architecture}; it knows {', '.join(sorted(FAMILIES))}"
    if not header.chat:
        yield "it chats and does nothing else, and this model has no chat template"
    needed = precisions(header.quantization)
    if not needed:
        yield f"{package} does not read weights with the {header.quantization}; AWQ and GPTQ it does"
    if device.family is Family.ORIN and not needed <= _ON_ORIN:
        yield f"Orin computes with 16 bit, INT8 and INT4, and these weights are {', '.join(sorted(needed - _ON_ORIN))}"
