"""Follow a build until it ends, and say in a line how far it is."""

import time
from collections.abc import Callable
from typing import Final

from rich.markup import escape

from controller.errors import AnswerError
from controller.ops.shapes import BuildRow
from controller.units import format_bytes, format_seconds

POLL_S: Final = 0.5
ENDED: Final = frozenset({"built", "failed", "cancelled"})


def follow(
    row: BuildRow,
    *,
    look: Callable[[], list[BuildRow]],
    show: Callable[[BuildRow], None],
    pause: Callable[[float], None] = time.sleep,
) -> BuildRow:
    """
    Look again and again, show every change, and return the build as it ended.

    Raises:
        AnswerError: nobody knows of it any more.

    """
    show(row)
    while row["state"] not in ENDED:
        pause(POLL_S)
        found = next((one for one in look() if one["fingerprint"] == row["fingerprint"]), None)
        if found is None:
            text = f"the build of {row['model']} is gone: its folder was changed or removed meanwhile"
            raise AnswerError(text, code=None, refused=False)
        if line(found) != line(row):
            show(found)
        row = found
    return row


def line(row: BuildRow) -> str:
    """Say how far a build is."""
    name = escape(row["model"]) + (f" ({row['quantization']})" if row["quantization"] else "")
    problem = escape(row["problem"] or "")
    match row["state"]:
        case "built":
            said = f" is built: {format_bytes(row['total_bytes'])}"
        case "building":
            left = "" if row["eta_s"] is None else f", about {format_seconds(row['eta_s'])} left"
            said = f": step {row['step_number']} of {row['steps']}, {escape(row['step'] or '')}: {_written(row)}{left}"
        case "finishing":
            said = f": {format_bytes(row['done_bytes'])} are written; they are hashed, and on their way to the disk"
        case "verifying":
            said = ": its hash is compared"
        case "queued":
            said = " waits for its turn" + (f"; the last try failed: {problem}" if problem else "")
        case "waiting":
            said = f" waits: {problem}"
        case _:
            said = f" {row['state']}: {problem}"
    return name + said


def _written(row: BuildRow) -> str:
    return f"{row['progress']:.0%} of {format_bytes(row['total_bytes'])}"
