"""The command line: what the container's entry point is told."""

import argparse
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.devices import Device


class Api(str, enum.Enum):  # noqa: UP042 -- one of our images has Python 3.10
    """What a model can be asked."""

    CHAT = "chat"
    """`/v1/chat/completions`: the checkpoint has a chat template."""
    COMPLETIONS = "completions"
    """`/v1/completions`: the checkpoint continues text."""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`: any checkpoint with hidden states."""

    __str__ = str.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """
    What to serve, and where.

    Attributes:
        socket: the Unix socket to listen on.
        model: the folder of the checkpoint.
        model_name: the name callers use.
        context_tokens: prompt and answer together, for one caller.
        parallel: how many answers are worked on at once; more wait.
        threads: threads torch computes with.
        apis: the paths to serve.
        device: what computes.

    """

    socket: Path
    model: Path
    model_name: str
    context_tokens: int
    parallel: int
    threads: int
    apis: frozenset[Api]
    device: Device = Device.CPU


def parse(argv: Sequence[str]) -> Arguments:
    """Read the command line; a mistake ends the process with status 2 and says what was wrong."""
    parser = argparse.ArgumentParser(prog="serve", description="Serve one Hugging Face checkpoint on a Unix socket.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--context-tokens", type=_positive, required=True)
    parser.add_argument("--parallel", type=_positive, default=1)
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--api", type=_apis, default=frozenset(Api), help="some of chat,completions,embeddings")
    parser.add_argument("--device", type=Device, choices=tuple(Device), default=Device.CPU, help="what computes")
    read = parser.parse_args(argv)
    return Arguments(
        socket=read.socket,
        model=read.model,
        model_name=read.model_name,
        context_tokens=read.context_tokens,
        parallel=read.parallel,
        threads=read.threads,
        apis=read.api,
        device=read.device,
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, got {text!r}")
    return int(text)


def _apis(text: str) -> frozenset[Api]:
    try:
        return frozenset(Api(word.strip()) for word in text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"wanted some of {','.join(Api)}, got {text!r}") from exc
