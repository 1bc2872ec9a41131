"""Load the engine file, mapped, and the tokenizer of the checkpoint it was made of, offline."""

import json
from pathlib import Path
from typing import Any, Final

from tensorrt_llm.bindings import executor as bindings
from tensorrt_llm.runtime import ModelRunnerCpp
from transformers import AutoTokenizer

from trt.answers import Answers
from worker.arguments import Arguments
from worker.errors import LoadError
from worker.prompts import Prompts, Tokenizer
from worker.served import Served

ENGINE_FILE: Final = Path("/model")
KV_BLOCK_TOKENS: Final = 64
"""The cache is made of blocks of so many tokens."""


def load(arguments: Arguments, config: dict[str, Any], *, engine_file: Path = ENGINE_FILE) -> Served:
    """
    Load what is served.

    Raises:
        LoadError: the engine file is not for what was asked, or the runtime does not take it.

    """
    _check_shape(engine_file, arguments)
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(arguments.model, local_files_only=True, trust_remote_code=False)
        runner = ModelRunnerCpp.from_dir(
            str(engine_file),
            rank=0,
            max_tokens_in_paged_kv_cache=arguments.parallel * -(-arguments.context_tokens // KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS,
            # Without it the file is read into memory first and lies there twice.
            use_mmap=True,
        )
    except Exception as exc:
        # Whatever the runtime raises means one thing here: this engine file cannot be served.
        raise LoadError(f"TensorRT-LLM cannot load this engine file: {type(exc).__name__}: {exc}") from exc
    generation = _json(arguments.model / "generation_config.json")
    eos = _tokens(generation.get("eos_token_id")) | _tokens(config.get("eos_token_id")) | _tokens(tokenizer.eos_token_id)
    return Served(
        prompts=Prompts(tokenizer),
        causal=Answers(runner.session, bindings, tokenizer, eos_tokens=eos),
        embedder=None,
        context_tokens=arguments.context_tokens,
        defaults={
            key: generation[key] for key in ("temperature", "top_p", "top_k") if isinstance(generation.get(key), (int, float))
        },
        device="cuda",
    )


def _check_shape(engine_file: Path, arguments: Arguments) -> None:
    """See that the engine was built for as many callers and as long a context as it is to serve."""
    built = _json(engine_file / "config.json").get("build_config", {})
    wanted = {"max_batch_size": arguments.parallel, "max_seq_len": arguments.context_tokens}
    for name, least in wanted.items():
        got = built.get(name)
        if not isinstance(got, int) or got < least:
            raise LoadError(f"wanted an engine built for {name} {least}, got {got or 'none'} in {engine_file}; build it anew")


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}


def _tokens(value: object) -> frozenset[int]:
    if isinstance(value, int):
        return frozenset({value})
    return frozenset(token for token in value if isinstance(token, int)) if isinstance(value, list) else frozenset()
