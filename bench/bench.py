"""
Every measurement in one go: `make bench`.

Each part is a program of its own and runs by itself with a fresh stack, so that none sees what another left, one that hangs is
ended, and one that fails is a row that says so. At the end there are one table, `build/bench/bench.json` and pictures beside it.
The exit code is 0 if all goals were met, 1 if not, 130 after Ctrl-C.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer

from bench.plots import draw
from bench.rows import OUT, Row, console, exactly, read_part, table
from bench.stack import PROJECT, output
from controller.errors import WindlassError

PARTS: Final[Mapping[str, float]] = {
    "swap": 3,
    "peer": 1.5,
    "capacity": 4,
    "conversation": 2,
    "decode": 4,
    "gateway": 6,
    "trace": 6,
    "simulator": 2,
}
"""What is measured, in this order, and about how many minutes each takes on two cores when its models are there."""
TIMES_LONGER: Final = 4
"""A part that takes so many times longer hangs; the first time the models are written as well."""
QUIET_S: Final = 3.0
BUSY_CORES: Final = 0.2
"""Beyond this, others use the machine; bare processes get a larger share of it then than containers, which share one group."""
CLEANING_UP_S: Final = 60.0
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a part measured."""

    name: str
    title: str
    seconds: float
    rows: Sequence[Row]
    series: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missed(self) -> int:
        """Return how many goals were missed."""
        return sum(row.met is False for row in self.rows)


def run(name: str, minutes: float) -> Result:
    """Run one part, and return its rows; the last one says if it did not come to its end."""
    path = OUT / f"{name}.json"
    path.unlink(missing_ok=True)
    began_s = time.monotonic()
    problem = _run(name, within_s=TIMES_LONGER * 60 * minutes)
    seconds = time.monotonic() - began_s
    try:
        title, rows, series = read_part(path)
    except (OSError, ValueError, LookupError, TypeError) as exc:
        problem = problem or f"it left nothing that can be read: {exc}"
        title, rows, series = name, [], {}
    if problem or not rows:
        rows = [*rows, exactly(f"{name} was measured", problem or "without a row", "yes")]
    return Result(name=name, title=title, seconds=seconds, rows=rows, series=series)


def _run(name: str, *, within_s: float) -> str:
    """Run a part's program, and say what went wrong with it; a goal that it missed is nothing wrong."""
    # A group of its own: Ctrl-C reaches us alone, and we tell it once, so that nothing interrupts its cleaning up.
    process = subprocess.Popen([sys.executable, "-m", f"bench.{name}"], cwd=PROJECT, process_group=0)
    try:
        code = process.wait(within_s)
    except subprocess.TimeoutExpired:
        return f"not within {within_s / 60:.0f} minutes"
    finally:
        _end(process)
    # A part whose goals were missed ends with 1, as one that broke does; only the one that broke left no rows.
    return "" if code in (0, 1) else f"it ended with code {code}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a part that runs still, with time to take its stack away."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(CLEANING_UP_S)
    process.kill()
    process.wait()


def _interrupt(*_: object) -> None:
    """Let another's wish that we end do what Ctrl-C does."""
    raise KeyboardInterrupt


def machine() -> dict[str, Any]:
    """Say what all of it was measured on."""
    try:
        docker = output(["docker", "version", "--format", "{{.Server.Version}}"])
    except WindlassError as exc:
        raise SystemExit(f"the container engine does not answer: {exc}") from exc
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "docker": docker,
        "busy_cores": round(busy_cores(), 2),
    }


def busy_cores() -> float:
    """Return how many cores the machine keeps busy while we do nothing."""
    return psutil.cpu_percent(interval=QUIET_S) / 100 * (os.cpu_count() or 1)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def chosen(only: str) -> dict[str, float]:
    """Return the parts named, in the order they are run in; all of them for nothing."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PARTS]:
        raise typer.BadParameter(f"wanted some of {', '.join(PARTS)}; got {', '.join(unknown)}")
    return {name: minutes for name, minutes in PARTS.items() if not names or name in names}


def keep(results: Sequence[Result], on: Mapping[str, Any], began: datetime) -> Path:
    """Write everything into one file, and return it."""
    content = {
        "began": began.isoformat(timespec="seconds"),
        "seconds": round(sum(result.seconds for result in results)),
        "machine": on,
        "parts": [
            {
                "name": result.name,
                "title": result.title,
                "seconds": round(result.seconds),
                "rows": [row.as_json() for row in result.rows],
            }
            for result in results
        ],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "bench.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def main(only: Annotated[str, typer.Option(help=f"Some of {', '.join(PARTS)}, with commas between.")] = "") -> None:
    """Measure everything, or some of it."""
    parts, began, on = chosen(only), datetime.now(UTC), machine()
    console.print(f"about {sum(parts.values()):.0f} minutes, and some more the first time, when the models are written")
    if on["busy_cores"] > BUSY_CORES:
        console.print(f"others keep {on['busy_cores']:.1f} of {on['cores']} cores busy: no figure will be what it could be")
    results: list[Result] = []
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for number, (name, minutes) in enumerate(parts.items(), start=1):
            console.rule(f"{number} of {len(parts)}: {name}, about {minutes:g} minutes")
            results.append(run(name, minutes))
    except KeyboardInterrupt:
        console.print("stopped; nothing is kept but what the parts have written")
        raise typer.Exit(INTERRUPTED) from None
    console.rule("all goals")
    with_goals = [replace(row, name=f"{one.name} | {row.name}") for one in results for row in one.rows if row.met is not None]
    console.print(table("every goal of this run", with_goals))
    pictures = draw({result.name: result.series for result in results}, OUT)
    for path in (keep(results, on, began), *pictures):
        console.print(f"written to {path.relative_to(PROJECT)}")
    missed = sum(result.missed for result in results)
    console.print(f"{len(with_goals) - missed} of {len(with_goals)} goals met")
    if missed or not with_goals:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
