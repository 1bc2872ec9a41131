"""
Run one long command and let the person who waits see it move.

On a terminal: one line with a clock and the command's last output. Elsewhere: a line now and then. The whole output goes into a
log, and its end is shown when the command fails.
"""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from rich.console import Console
from rich.markup import escape

from controller.errors import WindlassError
from controller.units import format_seconds

HEARTBEAT_S: Final = 20.0
TAIL_LINES: Final = 60

console: Final = Console(highlight=False, soft_wrap=True)


class StepError(WindlassError):
    """A command that was needed failed; its last words have been shown."""


def run_program(app: Callable[[], object]) -> None:
    """Run a command line; what went wrong is a sentence and status 1, not a traceback."""
    # The tools of disks and file systems are where not every root looks.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        app()
    except (WindlassError, OSError) as exc:
        console.print(str(exc), style="red", markup=False)
        raise SystemExit(1) from None


def run_step(
    title: str,
    argv: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    hidden: Collection[str] = (),
) -> None:
    """
    Run *argv*, show progress under *title*, keep the output in *log*.

    Args:
        title: what a person reads.
        argv: the program and its arguments.
        log: the file for all of its output.
        cwd: where it runs.
        environ: what it gets beside our own environment.
        hidden: words that are neither shown nor kept.

    Raises:
        StepError: it could not be started, or ended with a status other than 0.

    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began_s = monotonic()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **environ} if environ else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as exc:
        raise StepError(f"{title}: {argv[0]} cannot be started: {exc}") from exc
    with process, log.open("w", encoding="utf-8") as written:
        assert process.stdout is not None  # asked for above
        _follow(title, process, written.write, tail, began_s, hidden=hidden)
    took = format_seconds(monotonic() - began_s)
    if process.returncode:
        for line in tail:
            console.print(f"    {escape(line)}", style="dim")
        raise StepError(f"{title}: {' '.join(argv[:3])} … ended with status {process.returncode}; all of its output is in {log}")
    console.print(f"  [green]done[/]  {title} [dim]({took})[/]")


def _follow(
    title: str,
    process: subprocess.Popen[str],
    write: Callable[[str], object],
    tail: deque[str],
    began_s: float,
    *,
    hidden: Collection[str],
) -> None:
    assert process.stdout is not None
    quiet = not console.is_terminal or bool(os.environ.get("CI"))
    if quiet:
        console.print(f"  …     {title}")
    spoke_s = began_s
    with console.status(title) if not quiet else Console(quiet=True).status("") as status:
        for given in process.stdout:
            line = given
            for word in hidden:
                line = line.replace(word, "****")
            write(line)
            if not (text := line.strip()):
                continue
            tail.append(text)
            now_s = monotonic()
            elapsed = format_seconds(now_s - began_s)
            status.update(f"{title} [dim]{elapsed}  {escape(text[:80])}[/]")
            if quiet and now_s - spoke_s > HEARTBEAT_S:
                spoke_s = now_s
                console.print(f"        {title} {elapsed}: {escape(text[:100])}", style="dim")
