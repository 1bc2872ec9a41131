"""
Which names a bundle may hold, and how a file lies in parts.

Names must be such as every file system takes, a stick's included, and lead nowhere but into their own folder.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

from controller.units import GIB, MIB

PART_BYTES: Final = 4 * GIB - 1 * MIB
"""FAT32 holds files of less than 4 GiB."""
PIECE_BYTES: Final = 200
"""The longest name of a file or folder; with the number of a part it still fits everywhere."""
DEPTH: Final = 8
MOST_PARTS: Final = 999
_FORBIDDEN: Final = frozenset('<>:"\\|?*')


def name_problem(name: str) -> str | None:
    """Say why no file of a bundle can have this name, a path in its folder; `None` if it can."""
    pieces = name.split("/")
    if len(pieces) > DEPTH:
        return f"wanted at most {DEPTH} folders deep"
    return next((problem for problem in map(_piece_problem, pieces) if problem), None)


def _piece_problem(piece: str) -> str | None:
    if not piece or piece.startswith("."):
        return "wanted a path of plain names, none empty and none that begins with a dot"
    if not piece.isprintable() or _FORBIDDEN & set(piece) or piece.endswith((" ", ".")):
        return 'wanted names that every file system takes: no control characters, none of <>:"\\|?*, no dot or space at the end'
    if len(piece.encode()) > PIECE_BYTES:
        return f"wanted names of at most {PIECE_BYTES} bytes"
    return None


def clash(paths: Iterable[str]) -> str | None:
    """Return a path that cannot lie beside the others: the same in other letters, or below one of them; `None` if all can."""
    folded = {}
    for path in paths:
        key = unicodedata.normalize("NFC", path).casefold()
        if key in folded:
            return path
        folded[key] = path
    for key, path in folded.items():
        pieces = key.split("/")
        if any("/".join(pieces[:depth]) in folded for depth in range(1, len(pieces))):
            return path
    return None


def part_sizes(size_bytes: int, part_bytes: int = PART_BYTES) -> tuple[int, ...]:
    """Return the sizes of the parts of a file; an empty file is one empty part."""
    whole, rest = divmod(size_bytes, part_bytes)
    return (part_bytes,) * whole + ((rest,) if rest or not whole else ())


def part_names(name: str, count: int) -> tuple[str, ...]:
    """Return the names of the parts of a file; the only one has the file's own."""
    return (name,) if count == 1 else tuple(f"{name}.{number:03d}" for number in range(1, count + 1))
