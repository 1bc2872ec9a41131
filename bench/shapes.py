"""
The shapes of models that are made to measure with: which tensors they have, how large each is, and in which type it is stored.

Pure. The numbers are those of the published Qwen2 models of the same names; `tiny` is for tests.
"""

import dataclasses
import enum
from collections.abc import Iterator
from typing import Final


class Dtype(enum.StrEnum):
    """How the matrices are stored; norms and biases are float32 in every GGUF."""

    BF16 = "bf16"
    """Two bytes a value."""
    Q8_0 = "q8_0"
    """Blocks of 32 values in 34 bytes: a float16 scale, then 32 signed bytes."""
    Q4_0 = "q4_0"
    """Blocks of 32 values in 18 bytes: a float16 scale, then 16 bytes with two values each."""


BLOCK_VALUES: Final = 32
BLOCK_BYTES: Final = {Dtype.BF16: 64, Dtype.Q8_0: 34, Dtype.Q4_0: 18}
"""Bytes of 32 values, as the block structures in ggml's `ggml-common.h` lay them out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """
    One tensor of a model.

    Attributes:
        name: as a GGUF has it.
        twin: as a transformers checkpoint has it.
        rows: how many rows; 1 for a vector.
        columns: values in a row.

    """

    name: str
    twin: str
    rows: int
    columns: int

    @property
    def is_vector(self) -> bool:
        """Whether this is a norm or a bias, which is never quantised."""
        return self.rows == 1

    def count_bytes(self, dtype: Dtype) -> int:
        """Return what the tensor takes in a file, padding not counted."""
        return self.rows * self.columns // BLOCK_VALUES * BLOCK_BYTES[dtype]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers that make up a Qwen2 model with tied embeddings."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab: int
    context: int
    rope_theta: float = 1e6
    norm_eps: float = 1e-6

    @property
    def head_width(self) -> int:
        """Return the width of one attention head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Return how many weights there are."""
        return sum(tensor.rows * tensor.columns for tensor in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor, in the order of the file."""
        width, kv_width = self.width, self.kv_heads * self.head_width
        yield Tensor(name="token_embd.weight", twin="model.embed_tokens.weight", rows=self.vocab, columns=width)
        yield Tensor(name="output_norm.weight", twin="model.norm.weight", rows=1, columns=width)
        parts = (
            ("attn_norm.weight", "input_layernorm.weight", 1, width),
            ("attn_q.weight", "self_attn.q_proj.weight", width, width),
            ("attn_q.bias", "self_attn.q_proj.bias", 1, width),
            ("attn_k.weight", "self_attn.k_proj.weight", kv_width, width),
            ("attn_k.bias", "self_attn.k_proj.bias", 1, kv_width),
            ("attn_v.weight", "self_attn.v_proj.weight", kv_width, width),
            ("attn_v.bias", "self_attn.v_proj.bias", 1, kv_width),
            ("attn_output.weight", "self_attn.o_proj.weight", width, width),
            ("ffn_norm.weight", "post_attention_layernorm.weight", 1, width),
            ("ffn_gate.weight", "mlp.gate_proj.weight", self.feed_forward, width),
            ("ffn_up.weight", "mlp.up_proj.weight", self.feed_forward, width),
            ("ffn_down.weight", "mlp.down_proj.weight", width, self.feed_forward),
        )
        for layer in range(self.layers):
            for name, twin, rows, columns in parts:
                yield Tensor(name=f"blk.{layer}.{name}", twin=f"model.layers.{layer}.{twin}", rows=rows, columns=columns)


def stored_as(tensor: Tensor, dtype: Dtype) -> Dtype:
    """
    Return the type a matrix is stored in.

    With tied embeddings the embedding is the output matrix too; quantisers keep it at 8 bits in a 4-bit file, and so do we.
    """
    return Dtype.Q8_0 if dtype is Dtype.Q4_0 and tensor.name == "token_embd.weight" else dtype


SHAPES: Final = {
    "tiny": Shape(layers=2, width=64, heads=2, kv_heads=1, feed_forward=128, vocab=4352, context=2048),
    "qwen2-0.5b": Shape(layers=24, width=896, heads=14, kv_heads=2, feed_forward=4864, vocab=151936, context=32768),
    "qwen2-1.5b": Shape(layers=28, width=1536, heads=12, kv_heads=2, feed_forward=8960, vocab=151936, context=32768),
}
