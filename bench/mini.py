"""
The built-in model's network: a Llama of 3.8 million parameters, small enough to be trained on two CPU cores.

It is written out here, instead of taken from a library, because fused projections and bfloat16 weights that are cast once a step
make it about twice as fast on a CPU. `state()` gives the tensors the names and shapes a `LlamaForCausalLM` has.
"""

import dataclasses
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the network is; every row is a multiple of 32, so that each GGUF quantisation of that block size fits."""

    vocab: int = 4096
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    feed_forward: int = 640
    layers: int = 4
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


SHAPE: Final = Shape()


class Norm(nn.Module):
    """Root mean square norm with a learned gain."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.eps = shape.norm_eps
        self.gain = nn.Parameter(torch.ones(shape.width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each row to length one, times the gain."""
        return F.rms_norm(x, (x.shape[-1],), self.gain.to(x.dtype), self.eps)


class Block(nn.Module):
    """One layer: attention, then a gated feed-forward net, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        out_std = 0.02 / (2 * shape.layers) ** 0.5
        self.attention_norm = Norm(shape)
        self.feed_norm = Norm(shape)
        self.qkv = _matrix(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_width, std=0.02)
        self.out = _matrix(shape.heads * shape.head_width, shape.width, std=out_std)
        self.gate_up = _matrix(shape.width, 2 * shape.feed_forward, std=0.02)
        self.down = _matrix(shape.feed_forward, shape.width, std=out_std)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Run the layer over a batch of sequences."""
        shape, (batch, length, width) = self.shape, x.shape
        heads = F.linear(self.attention_norm(x), self.qkv.to(x.dtype))
        heads = heads.view(batch, length, -1, shape.head_width).transpose(1, 2)
        query, key, value = heads.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=1)
        copies = shape.heads // shape.kv_heads
        mixed = F.scaled_dot_product_attention(
            _rotate(query, cos, sin),
            _rotate(key, cos, sin).repeat_interleave(copies, dim=1),
            value.repeat_interleave(copies, dim=1),
            is_causal=True,
        )
        x = x + F.linear(mixed.transpose(1, 2).reshape(batch, length, width), self.out.to(x.dtype))
        gate, up = F.linear(self.feed_norm(x), self.gate_up.to(x.dtype)).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down.to(x.dtype))


class Mini(nn.Module):
    """The whole network; input and output share one embedding."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = _matrix(shape.width, shape.vocab, std=0.02)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape)
        steps = torch.arange(0, shape.head_width, 2) / shape.head_width
        angles = torch.outer(torch.arange(shape.context), shape.rope_theta**-steps)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of predicting `targets` from `tokens`; a target of -100 does not count."""
        embedding = self.embedding.bfloat16()
        x = F.embedding(tokens, embedding)
        cos, sin = (table[: tokens.shape[1]].bfloat16() for table in (self.cos, self.sin))
        for block in self.blocks:
            x = block(x, cos, sin)
        logits = F.linear(self.norm(x), embedding)
        return F.cross_entropy(logits.view(-1, self.shape.vocab), targets.reshape(-1))

    def state(self) -> dict[str, Tensor]:
        """Return the tensors under the names of a `LlamaForCausalLM` with tied embeddings, in float32."""
        shape = self.shape
        query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        tensors = {"model.embed_tokens.weight": self.embedding, "model.norm.weight": self.norm.gain}
        for index, block in enumerate(self.blocks):
            layer = f"model.layers.{index}"
            q, k, v = block.qkv.split((query, key, key))
            gate, up = block.gate_up.chunk(2)
            tensors |= {
                f"{layer}.input_layernorm.weight": block.attention_norm.gain,
                f"{layer}.post_attention_layernorm.weight": block.feed_norm.gain,
                f"{layer}.self_attn.q_proj.weight": q,
                f"{layer}.self_attn.k_proj.weight": k,
                f"{layer}.self_attn.v_proj.weight": v,
                f"{layer}.self_attn.o_proj.weight": block.out,
                f"{layer}.mlp.gate_proj.weight": gate,
                f"{layer}.mlp.up_proj.weight": up,
                f"{layer}.mlp.down_proj.weight": block.down,
            }
        return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def _matrix(columns: int, rows: int, *, std: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * std)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
