"""
What the tests of the appliance depend on, as one hash, and the file that says for which hash all of them have passed.

They take long, so they are not run again over a tree in which nothing has changed that they could notice.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.stack import PROJECT

STAMP: Final = Path(__file__).with_name("passed.json")
DEPENDS: Final = (
    "appliance", "bench/stack.py", "compose", "controller", "images", "requirements", "tests/appliance", "tests/conftest.py",
    "tests/system/talk.py",
)  # fmt: skip
"""Files and folders; what only people read is left out."""
_FOR_PEOPLE: Final = {".md", ".svg", ".png"}


def tree() -> str:
    """Return the hash of everything that the tests depend on, as it lies here: names, modes and contents."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *DEPENDS],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return hash_of(PROJECT, sorted({name for name in listed.stdout.split("\0") if name}))


def hash_of(folder: Path, names: Iterable[str]) -> str:
    """Return the hash of these files of a folder; a file that is not there any more counts as gone."""
    total = hashlib.sha256()
    for name in names:
        path = folder / name
        if path == STAMP or path.suffix in _FOR_PEOPLE or not (path.is_file() or path.is_symlink()):
            continue
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        kind = "link" if path.is_symlink() else "program" if path.stat().st_mode & 0o100 else "file"
        total.update(f"{kind} {len(content)} {name}\0".encode())
        total.update(content)
    return total.hexdigest()


def passed() -> dict[str, Any]:
    """Return what the last whole run has written down; empty if there was none."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def write(*, tree: str, tests: int, figures: dict[str, Any]) -> None:
    """Write down that all tests have passed on a tree."""
    STAMP.write_text(json.dumps({"tree": tree, "tests": tests, "figures": figures}, indent=2) + "\n", encoding="utf-8")
