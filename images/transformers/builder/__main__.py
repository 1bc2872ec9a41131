"""The process: do one step, or say in one line why not and end with status 1."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from builder.errors import BuildError
from worker.errors import LoadError

_QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HOME": "/tmp/hf",  # noqa: S108 - the container's own tmpfs
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torch",  # noqa: S108
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main(argv: Sequence[str]) -> int:
    """Do what the command line says."""
    arguments = _parse(argv)
    os.environ.update(_QUIET)
    step: Callable[[argparse.Namespace], None] = arguments.step
    try:
        step(arguments)
    except (BuildError, LoadError) as exc:
        return _failed(str(exc))
    except MemoryError:
        return _failed("ran out of memory; give the build more")
    except OSError as exc:
        return _failed(f"{exc.strerror or exc}: {exc.filename or 'a file of the build'}")
    except Exception as exc:  # noqa: BLE001 - whatever a foreign checkpoint makes a library raise means one thing: no build
        return _failed(f"cannot be built: {type(exc).__name__}: {exc}")
    _log("build.done")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="builder", description="Makes engine files out of checkpoints and adapters.")
    verbs = parser.add_subparsers(required=True)
    convert = verbs.add_parser("convert", help="checkpoint to GGUF")
    convert.add_argument("--checkpoint", type=Path, required=True)
    convert.add_argument("--stored", choices=("bf16", "f16", "q8_0"), required=True)
    convert.add_argument("--out", type=Path, required=True)
    convert.set_defaults(step=_convert)
    merge = verbs.add_parser("merge", help="checkpoint and PEFT adapters to checkpoint")
    merge.add_argument("--checkpoint", type=Path, required=True)
    merge.add_argument("--adapter", type=Path, action="append", required=True)
    merge.add_argument("--out", type=Path, required=True)
    merge.set_defaults(step=_merge)
    adapter = verbs.add_parser("adapter", help="PEFT adapter to GGUF")
    adapter.add_argument("--adapter", type=Path, required=True)
    adapter.add_argument("--base", type=Path, required=True, help="the GGUF it will be applied to")
    adapter.add_argument("--out", type=Path, required=True)
    adapter.set_defaults(step=_adapter)
    return parser.parse_args(argv)


# Each step imports what it needs: torch alone takes seconds, and a folder that is refused should be told at once.


def _convert(arguments: argparse.Namespace) -> None:
    from builder import convert  # noqa: PLC0415

    convert.convert(arguments.checkpoint, stored=arguments.stored, out=arguments.out)


def _merge(arguments: argparse.Namespace) -> None:
    from builder import merge  # noqa: PLC0415

    merge.merge(arguments.checkpoint, arguments.adapter, out=arguments.out)


def _adapter(arguments: argparse.Namespace) -> None:
    from builder import adapter  # noqa: PLC0415

    adapter.convert(arguments.adapter, base=arguments.base, out=arguments.out)


def _failed(reason: str) -> int:
    _log("build.failed", reason=reason)
    return 1


def _log(event: str, **keys: object) -> None:
    sys.stderr.write(json.dumps({"event": event, **keys}) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
