"""
The README's tables of what was measured, from `build/bench/bench.json`: printed, or with `--write` put into the README.

So no figure is typed by hand, none is left out because it was missed, and all of them are of one run on one machine.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.rows import OUT, Row, console
from bench.stack import PROJECT
from controller.units import GIB

BEGIN: Final = "<!-- What follows is written by python -m bench.report. -->"
END: Final = "<!-- Down to here. -->"
HEADINGS: Final = ("value", "goal", "published", "limit", "met")
README: Final = PROJECT / "README.md"


def report(content: Mapping[str, Any]) -> str:
    """Return the tables as Markdown."""
    return "\n".join(_lines(content))


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    on = content["machine"]
    rows = [Row(**row) for part in content["parts"] for row in part["rows"]]
    goals = [row for row in rows if row.met is not None]
    met = sum(row.met is True for row in goals)
    yield (
        f"{on['cores']} cores of {on['processor']}, {on['memory_bytes'] / GIB:.0f} GiB of memory, Linux {on['kernel']}, "
        f"Docker {on['docker']}; {content['began'][:10]}, {content['seconds'] / 60:.0f} minutes; before it others kept "
        f"{on['busy_cores']:.1f} cores busy; {met} of {len(goals)} goals met."
    )
    for part in content["parts"]:
        yield ""
        yield from _table(part["title"], [Row(**row) for row in part["rows"]])


def _table(title: str, rows: list[Row]) -> Iterator[str]:
    """Lay out the rows that others can be compared with or that have a goal, and no column that would be empty."""
    told = [row for row in rows if row.met is not None or row.published or row.limit]
    cells = [(_cell(row.name), *(_cell(text) for text in _texts(row))) for row in told]
    used = [0, *(place for place in range(1, len(HEADINGS) + 1) if any(line[place] for line in cells))]
    for line in ((_cell(title), *HEADINGS), ("---",) * (len(HEADINGS) + 1), *cells):
        yield "| " + " | ".join(line[place] for place in used) + " |"


def _texts(row: Row) -> tuple[str, ...]:
    met = "" if row.met is None else "yes" if row.met else "**no**"
    return row.figure, row.goal, row.published, row.limit, met


def _cell(text: str) -> str:
    signs = text.replace("<=", "≤").replace(">=", "≥").replace("|", "\\|")
    return re.sub(r"\s+", " ", signs)


def inserted(readme: str, text: str) -> str:
    """Return the README with *text* between its two marks."""
    before, found, rest = readme.partition(BEGIN)
    _, found_too, after = rest.partition(END)
    if not (found and found_too):
        raise SystemExit(f"{README} needs the two lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(
    path: Annotated[Path, typer.Argument(help="What `make bench` wrote.")] = OUT / "bench.json",
    write: Annotated[bool, typer.Option("--write", help="Put the tables into the README.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """Show the tables of a run."""
    if not path.exists():
        raise SystemExit(f"{path} is not there; run make bench first")
    text = report(json.loads(path.read_text(encoding="utf-8")))
    if write:
        README.write_text(inserted(README.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        console.print(text, markup=False)


if __name__ == "__main__":
    typer.run(main)
