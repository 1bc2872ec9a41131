"""What `make images DRY_RUN=1` prints for people. Data in, something to print out."""

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from controller.ops.bill import Bill, Item, totals
from controller.ops.targets import Target
from controller.units import format_bytes


def draw(bill: Bill) -> Table:
    """Lay out one image: a row for everything that goes in or is needed to make it."""
    arguments = "".join(f", {name}={value}" for name, value in bill.arguments)
    disk = "unknown on the disk: none was made yet" if bill.disk_bytes is None else f"{format_bytes(bill.disk_bytes)} on the disk"
    table = Table(
        title=f"{bill.tag}\non {escape(' and '.join(bill.bases) + arguments)}; {disk}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in ("what", "name", "version", "sha256"):
        table.add_column(heading, no_wrap=heading != "name")
    table.add_column("to fetch", justify="right")
    for item in bill.items:
        table.add_row(*_cells(item), style=None if item.stays else "dim")
    return table


def conclude(target: Target, bills: Sequence[Bill]) -> str:
    """Say in a line what all of it comes to."""
    known_bytes, count, unknown = totals(bills)
    rest = f", and {unknown} more whose size no list says" if unknown else ""
    return f"{target}: {len(bills)} images, {count - unknown} things to fetch with {format_bytes(known_bytes)}{rest}"


def _cells(item: Item) -> Iterable[str]:
    yield item.kind if item.stays else f"{item.kind} to make it"
    yield escape(item.name)
    yield item.version or "newest"
    yield item.sha256[:12] or "unknown"
    yield "unknown" if item.size_bytes is None else format_bytes(item.size_bytes)
