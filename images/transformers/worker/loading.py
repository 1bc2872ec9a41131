"""
Loading a checkpoint, offline and from safetensors alone.

Imported by the loading thread alone: torch and transformers come with it, and their import is most of the time a start takes.
"""

import contextlib
import gc
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from worker import devices, folder
from worker.arguments import Api, Arguments
from worker.devices import Device
from worker.errors import LoadError
from worker.model import Embedder, Pooling, TorchModel
from worker.prompts import Prompts, Tokenizer
from worker.sequence import generate
from worker.served import Served

_CAUSAL: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def load(arguments: Arguments, config: dict[str, Any]) -> Served:
    """
    Load tokenizer and weights from a folder that `folder.check` has let pass with this *config*.

    Raises:
        LoadError: the folder cannot be served, with what was found and what to do.

    """
    generative = bool(arguments.apis & {Api.CHAT, Api.COMPLETIONS})
    names = config.get("architectures") or []
    if generative and names and not any(str(name).endswith(_CAUSAL) for name in names):
        raise LoadError(f"a {', '.join(map(str, names))} continues no text: serve it with --api embeddings")
    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(int(os.environ.get("WINDLASS_INTEROP_THREADS", "1")))
    device = arguments.device
    if device is Device.CUDA:
        devices.check(device, gpus=torch.cuda.device_count(), built_for=torch.version.cuda)
    dtype = devices.precision(config, capability=torch.cuda.get_device_capability() if device is Device.CUDA else None)
    try:
        tokenizer = _tokenizer(arguments.model)
        model = _model(arguments.model, generative=generative, device=device, dtype=dtype)
    except Exception as exc:
        # Whatever a foreign checkpoint makes the library raise means one thing here: this folder cannot be served.
        raise LoadError(f"transformers cannot load this checkpoint: {type(exc).__name__}: {exc}") from exc
    generation = _generation(arguments.model)
    eos = _tokens(generation.get("eos_token_id")) | _tokens(config.get("eos_token_id")) | _tokens(tokenizer.eos_token_id)
    return Served(
        prompts=Prompts(tokenizer),
        causal=partial(generate, TorchModel(model, tokenizer, eos_tokens=eos)) if generative else None,
        embedder=Embedder(getattr(model, "base_model", model), pooling=_pooling(arguments.model))
        if Api.EMBEDDINGS in arguments.apis
        else None,
        context_tokens=folder.context_tokens(config, wanted=arguments.context_tokens),
        defaults={
            key: generation[key] for key in ("temperature", "top_p", "top_k") if isinstance(generation.get(key), int | float)
        },
        device=device.value,
    )


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    return tokenizer


def _model(path: Path, *, generative: bool, device: Device, dtype: str) -> torch.nn.Module:
    kind = AutoModelForCausalLM if generative else AutoModel
    model = kind.from_pretrained(
        path, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype, low_cpu_mem_usage=True
    )
    model = model.eval()
    if device is Device.CPU:
        return model
    # Weight by weight, each from the mapped file; then nothing here maps it any more.
    model = model.to(device.value)
    gc.collect()
    _forget_pages(path)
    return model


def _forget_pages(path: Path) -> None:
    """Let the file's pages go: the GPU has its copy, and on a Jetson they would lie in the same memory. Mapped ones stay."""
    for file in path.glob("*.safetensors"):
        with contextlib.suppress(OSError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _generation(path: Path) -> dict[str, Any]:
    file = path / "generation_config.json"
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}


def _tokens(value: object) -> frozenset[int]:
    if isinstance(value, int):
        return frozenset({value})
    return frozenset(token for token in value if isinstance(token, int)) if isinstance(value, list) else frozenset()


def _pooling(path: Path) -> Pooling:
    """Pool as sentence-transformers' own file says, where the checkpoint has it; the mean otherwise."""
    file = path / "1_Pooling" / "config.json"
    said = json.loads(file.read_bytes()) if file.is_file() else {}
    if said.get("pooling_mode_cls_token"):
        return "cls"
    return "last" if said.get("pooling_mode_lasttoken") else "mean"
