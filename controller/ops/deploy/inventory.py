"""Which boxes are meant. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from controller.ops.deploy.errors import UnusableError

_BRACKETS: Final = re.compile(r"\[[^][]*\]$")


def read_hosts(hosts: str, inventory: str | None = None) -> tuple[str, ...]:
    """
    Return the boxes in the order they were named, each once.

    Args:
        hosts: names for ssh with commas between, as in `HOST=box,user@10.0.0.7`.
        inventory: the text of a file: one name a line, `#` before what is not one.

    Raises:
        UnusableError: no box is named, or a name could be taken for an option of ssh.

    """
    lines = [line.partition("#")[0].strip() for line in (inventory or "").splitlines()]
    names = [name.strip() for name in hosts.split(",")] + lines
    found = tuple(dict.fromkeys(name for name in names if name))
    if not found:
        raise UnusableError("no box is named: wanted HOST=box, HOST=box,box2 or INVENTORY=file with one name a line")
    if wrong := [name for name in found if not _is_name(name)]:
        raise UnusableError(
            f"{wrong[0]!r} cannot be the name of a box: wanted what `ssh` takes, such as box, user@10.0.0.7 or [fe80::1%eth0]"
        )
    return found


def _is_name(name: str) -> bool:
    if ":" in _BRACKETS.sub("", name):  # there it is for rsync where the path begins
        return False
    return not name.startswith("-") and name.isprintable() and not any(character in name for character in " /'\"\\;&|<>$`")


def say_done(done: Sequence[str], failed: str, untouched: Sequence[str]) -> str:
    """Say of several boxes which one is how far."""
    parts = [(", ".join(done), "done"), (failed, "failed"), (", ".join(untouched), "untouched")]
    return "; ".join(f"{state}: {names}" for names, state in parts if names)
