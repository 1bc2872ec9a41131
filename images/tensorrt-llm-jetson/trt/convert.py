"""
The first step of a build: `python -m trt.convert CONVERTER --model_dir FOLDER ...`.

The branch's converters load a checkpoint's own Python code where it brings some, and pickles. So the folder is looked at first,
as before it is served.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from worker import folder
from worker.errors import LoadError

EXAMPLES: Final = Path("/opt/TensorRT-LLM/examples")
"""Where the image this one stands on has the branch's examples, the converters among them."""


def main(argv: Sequence[str], *, examples: Path = EXAMPLES) -> None:
    """
    Convert a checkpoint.

    Raises:
        SystemExit: its folder is unsafe or incomplete, with why.

    """
    family, *converter_argv = argv
    parser = argparse.ArgumentParser(prog="trt.convert", add_help=False)
    parser.add_argument("--model_dir", type=Path, required=True)
    known, _ = parser.parse_known_args(converter_argv)
    try:
        folder.check(known.model_dir)
    except LoadError as exc:
        raise SystemExit(str(exc)) from exc
    converter = examples / family / "convert_checkpoint.py"
    sys.argv = [str(converter), *converter_argv]
    sys.path.insert(0, str(converter.parent))
    runpy.run_path(str(converter), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
