"""
How the weights of a GGUF can be stored, and how many bytes that takes, computed from the header of any source of the same model.

The rules are those of llama.cpp's quantiser: which matrices get how many bits, and what happens to a matrix whose rows are no
multiple of a block.
"""

import enum
from dataclasses import dataclass
from typing import Final

from controller.engines.base import WeightsHeader


class Quantization(enum.StrEnum):
    """How matrices are stored; norms and biases always keep 32 bits."""

    BF16 = "bf16"
    """Sixteen bits a weight, as most checkpoints have them: nothing is lost from those."""
    F16 = "f16"
    """Sixteen bits a weight, three more of them for precision and fewer for range: as older checkpoints have them."""
    Q8_0 = "q8_0"
    """8.5 bits a weight: hard to tell from the original."""
    Q4_K_M = "q4_k_m"
    """4.5 bits a weight, and 6.6 for those that matter most: the usual choice where memory is short."""
    Q4_0 = "q4_0"
    """4.5 bits a weight in the plainest layout: the smallest and the fastest, and the one that loses most."""


_BITS: Final = {"f32": 32.0, "bf16": 16.0, "f16": 16.0, "q8_0": 8.5, "q6_k": 6.5625, "q5_0": 5.5, "q4_k": 4.5, "q4_0": 4.5}
_SMALLER_BLOCKS: Final = {"q4_k": "q5_0", "q6_k": "q8_0"}
"""What a matrix gets instead whose rows are no multiple of the 256 weights of a K-block."""
_PRECISE: Final = ("f16", "f32")
"""Sources with more bits of precision than bfloat16 keeps."""
_K_BLOCK: Final = 256
_BLOCK: Final = 32
_TOKENIZER_ENTRY_BYTES: Final = 40
"""Each entry of the tokenizer in a GGUF's header: text, type and merge rule. Measured 39 for 152,000 of them."""
_TENSOR_INFO_BYTES: Final = 76
_TENSORS_A_LAYER: Final = 12
_METADATA_BYTES: Final = 6144
_VECTORS_A_LAYER: Final = 4
"""Rows of the model's width a layer that stay at 32 bits: two norms, and biases where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrices:
    """How many weights of each kind a model has, and how long their rows are."""

    output: int
    other_embedding: int
    attention_value: int
    feed_forward_down: int
    rest: int
    vectors: int
    width: int
    feed_forward: int

    @property
    def total(self) -> int:
        """All weights that can be stored in fewer bits."""
        return self.output + self.other_embedding + self.attention_value + self.feed_forward_down + self.rest


def sixteen_bits(header: WeightsHeader) -> Quantization:
    """Return the one of sixteen bits that loses nothing, or least, of the source."""
    return Quantization.F16 if header.stored in _PRECISE else Quantization.BF16


def best_first(header: WeightsHeader) -> tuple[Quantization, ...]:
    """Return the choices for a source, from the one that loses nothing to the one that takes least memory."""
    return (sixteen_bits(header), Quantization.Q8_0, Quantization.Q4_K_M, Quantization.Q4_0)


def estimate_bytes(header: WeightsHeader, quantization: Quantization) -> int:
    """Compute how large the GGUF of a model will be; within 3 % for the usual dense families."""
    matrices = _count(header)
    bits = _BITS["f32"] * matrices.vectors
    match quantization:
        case Quantization.BF16 | Quantization.F16 | Quantization.Q8_0:
            bits += matrices.total * _bits(quantization.value, matrices.width)
        case Quantization.Q4_0 | Quantization.Q4_K_M:
            bits += _four_bit_bits(header, matrices, quantization)
    return int(bits / 8) + _overhead_bytes(header)


def _four_bit_bits(header: WeightsHeader, matrices: _Matrices, quantization: Quantization) -> float:
    usual = "q4_0" if quantization is Quantization.Q4_0 else "q4_k"
    better = "q6_k" if quantization is Quantization.Q4_K_M else usual
    share = _better_layers(header.layers) / header.layers if header.layers else 0.0
    total = matrices.output * _bits("q6_k", matrices.width)
    total += (matrices.other_embedding + matrices.rest) * _bits(usual, matrices.width)
    for count, columns in ((matrices.attention_value, matrices.width), (matrices.feed_forward_down, matrices.feed_forward)):
        total += count * (share * _bits(better, columns) + (1 - share) * _bits(usual, columns))
    return total


def _bits(kind: str, columns: int) -> float:
    """Return the bits a weight takes in rows of this length; rows that fit no block stay at sixteen."""
    if kind in _SMALLER_BLOCKS and columns % _K_BLOCK:
        kind = _SMALLER_BLOCKS[kind]
    return _BITS[kind] if columns % _BLOCK == 0 else _BITS["bf16"]


def _better_layers(layers: int) -> int:
    """Count the layers whose values and down projections get more bits: the first and last eighth, and every third between."""
    eighth = layers // 8
    return sum(layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2 for layer in range(layers))


def shares_embedding(header: WeightsHeader) -> bool:
    """Say whether input and output are one matrix: it follows from what is left when the layers are subtracted."""
    width = header.embedding_length
    attention = 2 * width * header.head_length * (header.heads + header.kv_heads)
    vectors = width * (1 + _VECTORS_A_LAYER * header.layers)
    layers = header.layers * (attention + 3 * width * header.feed_forward_length)
    return header.parameters - layers - vectors < 1.5 * width * header.vocabulary


def _count(header: WeightsHeader) -> _Matrices:
    """
    Split the number of weights among the kinds of matrices.

    The header says how many there are in all. What attention does not take of the layers is feed-forward, a third of it the way
    down.
    """
    width, feed_forward = header.embedding_length, header.feed_forward_length
    query = width * header.heads * header.head_length
    key = width * header.kv_heads * header.head_length
    embedding = width * header.vocabulary
    attention = header.layers * (2 * query + 2 * key)
    vectors = width * (1 + _VECTORS_A_LAYER * header.layers)
    embeddings = embedding if shares_embedding(header) else 2 * embedding
    matrices = max(0, header.parameters - vectors - embeddings)
    down = max(0, matrices - attention) // 3
    value = min(matrices - down, header.layers * key)
    return _Matrices(
        output=embedding,
        other_embedding=embeddings - embedding,
        attention_value=value,
        feed_forward_down=down,
        rest=matrices - down - value,
        vectors=vectors,
        width=width,
        feed_forward=feed_forward,
    )


def _overhead_bytes(header: WeightsHeader) -> int:
    tensors = header.layers * _TENSORS_A_LAYER + 3
    return header.vocabulary * _TOKENIZER_ENTRY_BYTES + tensors * _TENSOR_INFO_BYTES + _METADATA_BYTES
