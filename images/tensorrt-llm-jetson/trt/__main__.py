"""The process: `worker`'s, with an engine file in place of a checkpoint."""

import os
import sys
from typing import Any

from worker.__main__ import main
from worker.arguments import Arguments
from worker.served import Served


def load(arguments: Arguments, config: dict[str, Any]) -> Served:
    """Load the engine file beside the checkpoint that *arguments* name."""
    # TensorRT-LLM, torch and transformers come with it; a folder that is refused is told before they are imported.
    from trt import loading  # noqa: PLC0415

    return loading.load(arguments, config)


if __name__ == "__main__":
    status = main(sys.argv[1:], load=load)
    # A thread may still be inside the executor; taking the interpreter apart under it would end in a crash.
    os._exit(status)
