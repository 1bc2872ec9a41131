"""
A PEFT adapter becomes a GGUF for a model whose own GGUF is all there is.

The converter wants the model's `config.json`; what it reads of it is in the GGUF's header. And it knows one scale for the whole
adapter, so the scale of each pair goes into its B first.
"""

import json
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from safetensors.torch import save_file

from builder import converter, lora
from builder.errors import BuildError

_USUAL: Final = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gemma": "GemmaForCausalLM"}
"""Families that share one GGUF architecture, and the one whose matrices the others have."""
_FIGURES: Final = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "num_experts": "expert_count",
}
"""The figures of `config.json`, by the keys of a GGUF."""


def convert(path: Path, *, base: Path, out: Path) -> None:
    """
    Convert the adapter in a folder for the model in the GGUF *base*.

    Raises:
        BuildError: it cannot be converted, with the cause.

    """
    pairs = lora.read(path)
    conversion = converter.prepare()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        model, adapter = Path(scratch, "model"), Path(scratch, "adapter")
        model.mkdir()
        adapter.mkdir()
        (model / "config.json").write_text(json.dumps(_config(conversion, base)))
        (adapter / lora.CONFIG).write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 0}))
        save_file(_scaled(pairs), adapter / lora.WEIGHTS)
        argv = [str(adapter), "--base", str(model), "--outtype", "f32", "--outfile", str(out)]
        converter.run("convert_lora_to_gguf.py", argv)


def _scaled(pairs: dict[str, lora.Pair]) -> dict[str, torch.Tensor]:
    """Return the pairs with an alpha of 0, which means that nothing is multiplied: each B holds its scale."""
    tensors: dict[str, torch.Tensor] = {}
    for pair in pairs.values():
        if pair.transposed and "embedding_" not in pair.key_a:
            raise BuildError(f"the adapter changes {pair.target}, which is stored in columns; merge it where it was trained")
        tensors[pair.key_a] = pair.a.float().contiguous()
        tensors[pair.key_b] = (pair.b.float() * pair.scale).contiguous()
    return tensors


def _config(conversion: ModuleType, base: Path) -> dict[str, Any]:
    """Write down what the header of a GGUF says as `config.json` would."""
    import gguf  # noqa: PLC0415 - the converter's own, on the path only now

    fields = gguf.GGUFReader(base).fields
    family = str(fields["general.architecture"].contents())
    figures = {name: fields[f"{family}.{key}"].contents() for name, key in _FIGURES.items() if f"{family}.{key}" in fields}
    return {"architectures": [_architecture(conversion, family)], "model_type": family, **figures}


def _architecture(conversion: ModuleType, family: str) -> str:
    """Name a Hugging Face class whose checkpoints become GGUFs of this architecture."""
    import gguf  # noqa: PLC0415 - the converter's own, on the path only now

    if family in _USUAL:
        return _USUAL[family]
    conversion.load_all_models()
    text = conversion.ModelBase._model_classes[conversion.ModelType.TEXT]
    for name, kind in text.items():
        if name.endswith("ForCausalLM") and gguf.MODEL_ARCH_NAMES[kind.model_arch] == family:
            return str(name)
    raise BuildError(f"the converter knows no way to name the matrices of a {family}; use an adapter that is a GGUF")
