"""What the verbs of the command line share: options that many of them have, the environment, and how they print."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import typer

from controller.errors import AnswerError

WIDE: Final = 200
"""Columns of a table that goes into a file or a pipe."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Config = Annotated[Path | None, typer.Option("--config", envvar="WINDLASS_CONFIG", help="The configuration file.")]


def environment() -> dict[str, str]:
    """Return the environment, with the folders that `make run` chose for a plain user."""
    from controller.ops.place import place_environment  # noqa: PLC0415

    return place_environment(os.environ, root=os.geteuid() == 0, user_home=PurePosixPath(Path.home()))


def print_parts(parts: Iterable[object]) -> None:
    """Print lines and tables for people."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def print_json(body: object) -> None:
    """Print JSON for programs."""
    typer.echo(json.dumps(body, indent=2))


@contextlib.contextmanager
def live() -> Iterator[Callable[[str], None]]:
    """Give out a line that changes in place on a terminal, and a line for every change elsewhere."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    if not console.is_terminal:
        yield lambda text: console.print(text, soft_wrap=True)
        return
    with console.status("") as status:
        yield status.update


def show_body(body: Any, render: Callable[[Any], Iterable[object]], *, as_json: bool) -> None:  # noqa: ANN401
    """
    Print the body of an answer for programs, or what *render* makes of it for people.

    Raises:
        AnswerError: *render* cannot read it.

    """
    if as_json:
        print_json(body)
        return
    try:
        parts = list(render(body))
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise AnswerError(
            f"the answer has another shape than this version knows ({exc!r}); are gateway and command of one version?",
            code=None,
            refused=False,
        ) from exc
    print_parts(parts)
