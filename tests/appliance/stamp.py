"""
What each file of the appliance's tests depends on, as a hash, and the list of the hashes on which they have passed.

They take long, so a file is not run again over a tree in which nothing has changed that it alone could notice.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.stack import PROJECT

STAMP: Final = Path(__file__).with_name("passed.json")
BOX: Final = (
    "appliance", "bench/stack.py", "compose", "controller/cli_box.py", "controller/ops", "controller/server.py",
    "controller/supervisor.py", "controller/tenure.py", "images/controller", "images/setup.sh", "tests/appliance",
    "tests/conftest.py", "tests/fakeworker", "tests/system/talk.py", "tests/waiting.py",
)  # fmt: skip
"""Files and folders of which every file of tests makes use, and which little else tries on a machine."""
MORE: Final = {
    "boot": ("controller", "images", "requirements"),
    "power_cuts": ("controller/forge", "controller/store"),
    "provision": ("tests/engine",),
    "stick": ("tests/update_box.py",),
}
"""What else: whatever changes in the product, it is booted; what keeps things on the disk has to bear cuts."""
MAKE_BOOT: Final = {"controller/ops/appliance/boot.py", "controller/ops/appliance/machine.py"}
"""What starts a machine for people; the tests have machines of their own."""
_TOLD: Final = "appliance/os/tree/usr/lib/windlass/welcome"
"""What is told on the console. All tests read the first key there; `boot` begins as they do, and looks at the rest of it."""
_FOR_PEOPLE: Final = {".md", ".svg", ".png"}


def names() -> list[str]:
    """Return the names of the files of tests, without what is the same in all of them."""
    return sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py"))


def trees() -> dict[str, str]:
    """Return the hash of everything that each file of tests depends on, as it lies here: names, modes and contents."""
    return {name: _tree(name) for name in names()}


def _tree(name: str) -> str:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *BOX, *MORE.get(name, ())],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    others = {f"tests/appliance/test_{other}.py" for other in names() if other != name}
    others |= {"tests/appliance/__main__.py", "tests/appliance/stamp.py"}  # they run tests and are none
    others |= MAKE_BOOT if name == "boot" else {*MAKE_BOOT, _TOLD}
    return hash_of(PROJECT, sorted({path for path in listed.stdout.split("\0") if path} - others))


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
    """Return what has been written down: `files`, by name, each with its hash, its tests and their seconds; and `figures`."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {"files": {}, "figures": {}}


def due(now: Mapping[str, str], written: Mapping[str, Any]) -> list[str]:
    """Return the names of the files of tests that have not passed on this tree."""
    return [name for name, tree in now.items() if written["files"].get(name, {}).get("tree") != tree]


def write(files: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Any]) -> None:
    """Write down which files of tests have passed; what is known of others stays, and of those that are gone it goes."""
    before = passed()
    kept = {name: file for name, file in before["files"].items() if name in names()}
    text = json.dumps(
        {"files": dict(sorted((kept | dict(files)).items())), "figures": dict(figures) or before["figures"]}, indent=2
    )
    STAMP.write_text(text + "\n", encoding="utf-8")
