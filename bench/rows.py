"""
The rows of a measurement: a table for people, `build/bench/<name>.json` for programs, with the series behind them for plots.

A row says what was measured, in which unit, what it should be, what others published and what physics allows, so that nobody has
to look those up beside it.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

OUT: Final = Path(__file__).resolve().parents[1] / "build" / "bench"

WIDE: Final = 160
"""Columns of a table that goes into a file or a pipe."""

console: Final = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One figure.

    Attributes:
        name: what was measured.
        value: the figure, or a word.
        unit: of the value.
        goal: what it should be, in words such as `<= 0.3`; empty where there is none.
        published: what was published for comparable hardware; empty if nothing was.
        limit: what cannot be beaten, measured in the same run where it can be.
        met: whether the goal is met; `None` where there is none.

    """

    name: str
    value: float | int | str
    unit: str = ""
    goal: str = ""
    published: str = ""
    limit: str = ""
    met: bool | None = None

    @property
    def figure(self) -> str:
        """Return the value with its unit, as people read it."""
        return f"{_figure(self.value)} {self.unit}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return asdict(self)


def at_most(name: str, value: float, unit: str, most: float, *, published: str = "", limit: str = "") -> Row:
    """Make a row whose value must not exceed *most*."""
    return Row(name=name, value=value, unit=unit, goal=f"<= {most:g}", published=published, limit=limit, met=value <= most)


def at_least(name: str, value: float, unit: str, least: float, *, published: str = "", limit: str = "") -> Row:
    """Make a row whose value must reach *least*."""
    return Row(name=name, value=value, unit=unit, goal=f">= {least:g}", published=published, limit=limit, met=value >= least)


def below(name: str, value: float, unit: str, other: float, *, than: str, published: str = "", limit: str = "") -> Row:
    """Make a row whose value must be less than another that was measured in the same run, and say *than* whose it was."""
    goal = f"< {_figure(other)} ({than})"
    return Row(name=name, value=value, unit=unit, goal=goal, published=published, limit=limit, met=value < other)


def exactly(name: str, value: float | str, wanted: float | str, *, unit: str = "", published: str = "", limit: str = "") -> Row:
    """Make a row whose value must be *wanted*."""
    return Row(name=name, value=value, unit=unit, goal=f"= {wanted}", published=published, limit=limit, met=value == wanted)


def publish(name: str, title: str, rows: Sequence[Row], *, series: Mapping[str, Any] | None = None) -> bool:
    """
    Print the table, write the JSON, and say whether every goal was met.

    Args:
        name: of the file, `build/bench/<name>.json`.
        title: above the table.
        rows: what was measured.
        series: figures over time or over load that the rows are the sum of, as plain JSON values; the plots are made of them.

    """
    console.print(table(title, rows))
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    content = {"title": title, "rows": [row.as_json() for row in rows], "series": dict(series or {})}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return all(row.met is not False for row in rows)


def read_part(path: Path) -> tuple[str, list[Row], dict[str, Any]]:
    """Read what `publish` wrote: the title, the rows and the series."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["title"], [Row(**row) for row in content["rows"]], content["series"]


def table(title: str, rows: Sequence[Row]) -> Table:
    """Lay rows out for people."""
    made = Table(title=title, title_justify="left")
    for heading in ("measured", "value", "goal", "published", "limit", "met"):
        made.add_column(heading, justify="right" if heading == "value" else "left")
    for row in rows:
        met = "" if row.met is None else "[green]yes[/]" if row.met else "[red]no[/]"
        made.add_row(row.name, row.figure, row.goal, row.published, row.limit, met)
    return made


def _figure(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else value
