"""
What TensorRT-LLM 0.12 builds of a checkpoint on an AGX Orin: its own checkpoint first, and of that the engine with the weights.

Both steps run in one image on one device, whose release and shape the engine file is for.
"""

from pathlib import PurePosixPath
from typing import Final

from controller.engines import tensorrt_llm_jetson as engine
from controller.engines.base import SOURCE_MOUNT
from controller.engines.builds.values import OUT_MOUNT, BuildRecipe, BuildStep, SourceDescription, Want
from controller.errors import ModelError
from controller.units import GIB

OUTPUT: Final = PurePosixPath("engine")
CHECKPOINT: Final = PurePosixPath("checkpoint")
BESIDE_BYTES: Final = 4 * GIB
"""Python with torch and TensorRT-LLM, and the builder's work space. Assumed, not measured."""
_PIDS: Final = 512
_TOKENIZER: Final = "tokenizer.json"


def recipe(source: SourceDescription, want: Want) -> BuildRecipe:
    """
    Plan the build.

    Raises:
        ModelError: it cannot be built of this.

    """
    if want.quantization is not None:
        raise ModelError(
            f"engine {engine.NAME!r} stores weights as its option `weights` says, wanted {want.quantization}; "
            f"remove `quantization`, and set [engines.{engine.NAME}.options]"
        )
    if source.adapters:
        raise ModelError(f"engine {engine.NAME!r} applies no adapters; merge them into the checkpoint, or use another engine")
    if _TOKENIZER not in source.files:
        raise ModelError(f"has no {_TOKENIZER}, which engine {engine.NAME!r} reads; copy the whole checkpoint")
    header, converted = source.header, OUT_MOUNT / CHECKPOINT
    built_bytes = engine.engine_bytes(header, want.options)
    env = {**engine.ENVIRONMENT, "TMPDIR": str(OUT_MOUNT)}
    convert = BuildStep(
        title="convert the checkpoint for TensorRT-LLM",
        image=engine.NAME,
        argv=(
            *("python3", "-m", "trt.convert", engine.FAMILIES.get(header.architecture, header.architecture)),
            *engine.convert_argv(header, source=SOURCE_MOUNT, out=converted, options=want.options),
        ),
        # The source and what becomes of it are in memory at once.
        memory_bytes=header.weights_bytes + built_bytes + BESIDE_BYTES,
        pids_limit=_PIDS,
        env=env,
        gpu=True,
    )
    build = BuildStep(
        title="build the TensorRT engine",
        image=engine.NAME,
        argv=(
            "trtllm-build",
            *engine.build_argv(
                checkpoint=converted, out=OUT_MOUNT / OUTPUT, context_tokens=want.context_tokens, parallel=want.parallel
            ),
        ),
        memory_bytes=2 * built_bytes + BESIDE_BYTES,
        pids_limit=_PIDS,
        env=env,
        gpu=True,
    )
    return BuildRecipe(
        engine=engine.NAME,
        quantization=None,
        steps=(convert, build),
        output=OUTPUT,
        estimate_bytes=built_bytes,
        scratch_bytes=built_bytes,
        beside_source=True,
        one_image=True,
    )
