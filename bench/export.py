"""
Writes a trained model for both worlds: a safetensors checkpoint for transformers and a GGUF for llama.cpp.

Tensor names, metadata keys and the reordering of query and key rows follow the GGUF specification and what llama.cpp's `llama`
architecture expects (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import json
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from bench.mini import Shape
from bench.vocabulary import Vocabulary

NAME: Final = "windlass-mini"
_FILE: Final = f"{NAME}.gguf"
_LAYER_NAMES: Final = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(tensors: dict[str, Tensor], shape: Shape, vocabulary: Vocabulary, out: Path) -> None:
    """Write `out/safetensors/` and `out/gguf/`, each file under a temporary name first."""
    # Both files get the same rounded values, so that both engines run the same model.
    rounded = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    write_safetensors(rounded, shape, vocabulary, out / "safetensors")
    write_gguf(rounded, shape, vocabulary, out / "gguf" / _FILE)


def write_safetensors(tensors: dict[str, Tensor], shape: Shape, vocabulary: Vocabulary, folder: Path) -> None:
    """Write a checkpoint that `AutoModelForCausalLM` and `AutoTokenizer` load."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocab,
            "hidden_size": shape.width,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_width,
            "hidden_act": "silu",
            "max_position_embeddings": shape.context,
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_theta,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "float16",
            **vocabulary.ids(),
        },
    )
    _write_json(folder / "generation_config.json", {"do_sample": False, **vocabulary.ids()})
    vocabulary.write_for_transformers(folder, shape.context)


def write_gguf(tensors: dict[str, Tensor], shape: Shape, vocabulary: Vocabulary, path: Path) -> None:
    """Write a GGUF that llama.cpp serves as it is: matrices in float16, norms in float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_size_label("3.8M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    vocabulary.add_to(writer)
    for name, tensor in tensors.items():
        values = tensor.numpy()
        if name.endswith("q_proj.weight"):
            values = interleave(values, shape.heads)
        if name.endswith("k_proj.weight"):
            values = interleave(values, shape.kv_heads)
        writer.add_tensor(gguf_name(name), values.astype(np.float32) if values.ndim == 1 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def gguf_name(name: str) -> str:
    """Translate a tensor's name from transformers to GGUF."""
    stem = name.removeprefix("model.").removesuffix(".weight")
    if stem == "embed_tokens":
        return "token_embd.weight"
    if stem == "norm":
        return "output_norm.weight"
    _, layer, rest = stem.split(".", 2)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def interleave(rows: NDArray[np.float16], heads: int) -> NDArray[np.float16]:
    """Reorder the rows of each head from halves to pairs: llama.cpp rotates neighbours, transformers rotates halves."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
