"""What the verbs about bundles print for people, and the bar that shows how far they are."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from controller.bundles.manifest import EngineItem
from controller.bundles.reporting import Outcome, Progress, State
from controller.bundles.showing import Shown
from controller.units import format_bytes

_COLORS: Final = {
    State.COPIED: "green",
    State.REPLACED: "yellow",
    State.THERE: "green",
    State.LEFT: "cyan",
    State.FAILED: "red",
}


class Silent:
    """Shows nothing: for programs."""

    def begin(self, what: str, size_bytes: int) -> None:
        """Pass over it."""

    def moved(self, count_bytes: int) -> None:
        """Pass over it."""


class _Bar:
    """One bar for each folder, the ended ones above."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, what: str, size_bytes: int) -> None:
        """Begin a bar."""
        self._task = self._bars.add_task(escape(what), total=size_bytes)

    def moved(self, count_bytes: int) -> None:
        """Move it on."""
        if self._task is not None:
            self._bars.advance(self._task, count_bytes)


@contextlib.contextmanager
def progress(*, shown: bool) -> Iterator[Progress]:
    """Give out a bar on a terminal, beside what is printed for programs; elsewhere nothing."""
    console = Console(stderr=True)
    if not shown or not sys.stderr.isatty():
        yield Silent()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Bars(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
        yield _Bar(bars)


def outcome_lines(outcomes: Sequence[Outcome], *, dry_run: bool) -> list[str]:
    """Say what became of each folder, or would."""
    return [
        f"{'would be ' if dry_run and one.state in (State.COPIED, State.REPLACED) else ''}"
        f"[{_COLORS[one.state]}]{one.state.value}[/{_COLORS[one.state]}]: {escape(one.at)}, {format_bytes(one.size_bytes)}"
        + (f": {escape(one.reason)}" if one.reason else "")
        for one in outcomes
    ]


def bundle_table(shown: Sequence[Shown]) -> Table:
    """Show what a bundle holds."""
    table = Table(box=None, pad_edge=False)
    for name in ("folder", "model", "stored as", "built for", "files", "size", "what is wrong"):
        table.add_column(name, justify="right" if name in ("files", "size") else "left")
    for one in shown:
        engine = one.item if isinstance(one.item, EngineItem) else None
        table.add_row(
            escape(one.at),
            escape(engine.model if engine else one.item.name),
            escape((engine.quantization or "as it was") if engine else "-"),
            escape(engine.device if engine else "-"),
            str(len(one.item.files)),
            format_bytes(one.item.size_bytes),
            escape(one.problem) or "-",
        )
    return table
