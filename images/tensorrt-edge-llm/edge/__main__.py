"""Put the engine file where the server looks for it, and start the server with the arguments it came with."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.bundle import BundleError, lay_out

ENGINE_FILE: Final = Path("/model")


def main(argv: Sequence[str], *, engine_file: Path = ENGINE_FILE) -> None:
    """
    Serve until told to end.

    An engine file that is not what these arguments and this checkpoint want ends the process: the server would build another one,
    here, in memory that is meant for the model, and nobody would know why the start takes so long.
    """
    from experimental.server import cli  # noqa: PLC0415 -- it takes a second, and a wrong folder is told before
    from experimental.server.config import parse_server_config  # noqa: PLC0415

    try:
        lay_out(engine_file, parse_server_config(argv).model)
    except BundleError as exc:
        raise SystemExit(str(exc)) from exc
    sys.argv = ["tensorrt-edgellm-serve", *argv]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1:])
