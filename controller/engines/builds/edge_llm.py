"""
What TensorRT Edge-LLM builds of a checkpoint on the device: engines without weights, of use only beside the checkpoint.

Its server would build the same at its first start, in the worker, with nobody to say how far it is, and again whenever its cache
is gone.
"""

from pathlib import PurePosixPath
from typing import Final

from controller.engines import tensorrt_edge_llm as engine
from controller.engines.builds.values import OUT_MOUNT, BuildRecipe, BuildStep, SourceDescription, Want
from controller.errors import ModelError
from controller.units import GIB, MIB

OUTPUT: Final = PurePosixPath("bundle")
BESIDE_BYTES: Final = 2 * GIB
"""What must be free beside the model's size, as NVIDIA says."""
ENGINE_BYTES: Final = 64 * MIB
"""An engine without its weights. Not yet measured: it only sets the progress shown and the room kept on the disk."""
_PIDS: Final = 256
_TOKENIZER: Final = "tokenizer.json"


def recipe(source: SourceDescription, want: Want) -> BuildRecipe:
    """
    Plan the build.

    Raises:
        ModelError: it cannot be built of this.

    """
    if want.quantization is not None:
        raise ModelError(
            f"engine {engine.NAME!r} serves weights as they are stored, wanted {want.quantization}; remove `quantization`, and "
            "start from a checkpoint that is quantised with AWQ or GPTQ"
        )
    if source.adapters:
        raise ModelError(f"engine {engine.NAME!r} applies no adapters; merge them into the checkpoint, or use another engine")
    if _TOKENIZER not in source.files:
        raise ModelError(f"has no {_TOKENIZER}, which engine {engine.NAME!r} reads; copy the whole checkpoint")
    step = BuildStep(
        title="build the TensorRT engine",
        image=engine.NAME,
        argv=engine.build_argv(
            context_tokens=want.context_tokens, parallel=want.parallel, options=want.options, out=OUT_MOUNT / OUTPUT
        ),
        memory_bytes=source.header.weights_bytes + BESIDE_BYTES,
        pids_limit=_PIDS,
        env={**engine.ENVIRONMENT, "TMPDIR": str(OUT_MOUNT)},
        gpu=True,
        host_files=(engine.RELEASE_FILE,),
    )
    return BuildRecipe(
        engine=engine.NAME,
        quantization=None,
        steps=(step,),
        output=OUTPUT,
        estimate_bytes=ENGINE_BYTES,
        scratch_bytes=0,
        beside_source=True,
        one_image=True,
    )
