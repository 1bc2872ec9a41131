"""
How many bytes llama.cpp's server takes, on processors and on GPUs.

On processors the weights stay mapped: their pages belong to the page cache and are shared. On a GPU they are copied, so all of
it is private: on a card beside the box's memory, on a Jetson as part of it. The figures for GPUs rest on the server's own code
and on nobody's measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.device import Device
from controller.engines import gpus
from controller.engines.base import WeightsHeader
from controller.spec import Footprint, FootprintSource, Spread
from controller.units import MIB

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

FUSED_HEAD_LENGTHS: Final = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
"""Heads that its CUDA kernels attend to without writing the scores down; for others there is a matrix of them."""
STAGING_BYTES: Final[Mapping[str, int]] = {"direct": 4 * 64 * MIB, "cached": 4 * MIB}
"""Pinned buffers that weights pass on their way to the GPU, while they are loaded and no longer."""
PIPELINE_COPIES: Final = 4
"""Over several cards the inputs of so many passes are under way at once."""
_BETTER_STORED: Final = 1.4
"""The quantiser stores the embedding with more bits than the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    What a model is run with, as far as its bytes depend on it.

    Attributes:
        context_tokens: for one caller.
        parallel: callers.
        ubatch: tokens computed at once.
        kv_type: how keys and values are kept.
        repack: the weights are copied into another layout.
        gpu_layers: how many layers are computed on a GPU.
        gpu_load: how weights get there: `direct` or `cached`.

    """

    context_tokens: int
    parallel: int
    ubatch: int
    kv_type: str
    repack: bool
    gpu_layers: int
    gpu_load: str

    @property
    def tokens(self) -> int:
        """Of all callers together, as the server rounds them."""
        return self.parallel * aligned(self.context_tokens)


def aligned(context_tokens: int) -> int:
    """Round up as the server does."""
    return -(-context_tokens // KV_ALIGN_TOKENS) * KV_ALIGN_TOKENS


def on_processors(header: WeightsHeader, load: Load) -> Footprint:
    """
    Add up what the server holds without a GPU.

    - weights: the file, mapped;
    - KV cache: 2 x layers x KV heads x head length x bytes a value x tokens of all callers, touched whole at the start;
    - one micro-batch: its activations and its attention mask (the server reserves logits for all of it, too, and touches
      those of each caller's last token alone);
    - what is drawn from, for each caller: vocabulary x 32 bytes;
    - the process and its tokenizer;
    - 10 % of all of that but the weights, and 24 MiB.

    Measured against it (private bytes, 2048 tokens, one caller): 0.5B at 16 bit 90 MB of 146, 1.5B at 16 bit 133 MB of 198.
    """
    computed_bytes = _kv_bytes(header, load) + _compute_bytes(header, load) + _output_bytes(header, load) + _process_bytes(header)
    private_bytes = int(computed_bytes * (1 + MARGIN) + SLACK_BYTES + header.weights_bytes * PAGE_TABLE_SHARE)
    if load.repack:
        private_bytes += header.weights_bytes
    return Footprint(
        total_bytes=header.weights_bytes + private_bytes,
        weights_bytes=header.weights_bytes,
        private_bytes=private_bytes,
        source=FootprintSource.ESTIMATE,
    )


def on_gpu(header: WeightsHeader, load: Load, device: Device) -> Footprint:
    """
    Add up what the server holds with a GPU.

    The layers that are computed there take their weights and their KV cache there. The table of token embeddings stays with the
    processors; where it is the output matrix as well, the GPU has a copy of it. While weights are loaded there is no KV cache
    yet, and afterwards no staging buffer, so the larger of the two counts.
    """
    share = min(1.0, load.gpu_layers / (header.layers + 1))
    weights_bytes, kv_bytes = share * header.weights_bytes, share * _kv_bytes(header, load) * (1 + MARGIN)
    each_bytes = int(_gpu_compute_bytes(header, load) * (1 + MARGIN))
    here = _process_bytes(header) + _output_bytes(header, load) + (1 - share) * _kv_bytes(header, load)
    here += _compute_bytes(header, load) if share < 1 else 0
    left_bytes = header.weights_bytes - weights_bytes
    here_bytes = int(here * (1 + MARGIN) + SLACK_BYTES + gpus.HOST_BYTES + left_bytes + _embedding_bytes(header))
    staging_bytes = STAGING_BYTES[load.gpu_load]
    if device.unified:
        there_bytes = int(weights_bytes + max(kv_bytes + each_bytes, staging_bytes))
    else:
        here_bytes, there_bytes = here_bytes + staging_bytes, int(weights_bytes + kv_bytes) + each_bytes
    spread = Spread(counts=tuple(range(2, gpus.MOST_CARDS + 1)))
    found = gpus.footprint(device, here_bytes=here_bytes, there_bytes=there_bytes, each_bytes=each_bytes, spread=spread)
    # What comes through the page cache is charged to the worker, and must have room there, or it is read twice.
    mapped_bytes = header.weights_bytes if load.gpu_load == "cached" else 0
    return replace(found, total_bytes=found.total_bytes + mapped_bytes, weights_bytes=mapped_bytes)


def _kv_bytes(header: WeightsHeader, load: Load) -> float:
    return 2 * header.layers * header.kv_heads * header.head_length * KV_BYTES_PER_VALUE[load.kv_type] * load.tokens


def _compute_bytes(header: WeightsHeader, load: Load) -> int:
    widest = ACTIVATION_WIDTHS * header.embedding_length + FEED_FORWARD_WIDTHS * header.feed_forward_length
    return 4 * load.ubatch * (widest + load.tokens)


def _gpu_compute_bytes(header: WeightsHeader, load: Load) -> int:
    """Count what one GPU reserves, all of it at once: what is not touched is taken all the same."""
    logits_bytes = 0 if header.embeddings else 4 * load.parallel * header.vocabulary
    masks_bytes = (PIPELINE_COPIES - 1) * 4 * load.ubatch * load.tokens
    scores_bytes = 0 if header.head_length in FUSED_HEAD_LENGTHS else 4 * load.ubatch * load.tokens * header.heads
    return _compute_bytes(header, load) + logits_bytes + masks_bytes + scores_bytes


def _output_bytes(header: WeightsHeader, load: Load) -> int:
    return 0 if header.embeddings else header.vocabulary * OUTPUT_ENTRY_BYTES * load.parallel


def _process_bytes(header: WeightsHeader) -> int:
    return header.vocabulary * VOCABULARY_ENTRY_BYTES + PROCESS_BYTES


def _embedding_bytes(header: WeightsHeader) -> int:
    """Count the table of token embeddings, which only the processors read; the header says how weights are stored on average."""
    value_bytes = header.weights_bytes / header.parameters
    if value_bytes < 2:
        value_bytes = min(2.0, _BETTER_STORED * value_bytes)
    return int(header.vocabulary * header.embedding_length * value_bytes)
