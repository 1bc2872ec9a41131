"""How the last update of the operating system has ended."""

import json
from collections.abc import Iterable
from typing import Final

from controller.ops.check.values import Facts, Finding, Update, warning

FILE: Final = "update/last.json"
"""Below the home; the box's own scripts write it."""
_WORDS: Final = {
    "failed": "did not stay",
    "refused": "was refused",
    "unfinished": "was cut short",
}
"""Ends that somebody should know of. What was confirmed, or sent back by hand, is as it was wanted."""


def read(text: str) -> Update | None:
    """Read what the box wrote down; nothing is made of what is no such file."""
    try:
        told = json.loads(text)
        return Update(at=str(told["at"]), result=str(told["result"]), version=str(told["version"]), text=str(told["text"]))
    except (ValueError, KeyError, TypeError):
        return None


def last_update(facts: Facts) -> Iterable[Finding]:
    """Tell of an update that did not take, until a later one has."""
    update = facts.update
    if update is None or update.result not in _WORDS:
        return
    name = f"the update to {update.version}" if update.version else "an update"
    yield warning(
        "update",
        f"{name} {_WORDS[update.result]} ({update.at}): {update.text}",
        "windlass update --status   shows which system runs; windlass update --again FILE tries the same one once more",
    )
