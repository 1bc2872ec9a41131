#!/usr/bin/env python3
"""
Write `files.txt` anew: which file of each lock an image would get, its hash and its size, for `make images DRY_RUN=1`.

uv picks the files for the Python and the C library of the image's base, and asks the package index what they weigh; nothing is
fetched. `lock.sh` runs this when the locks have changed.
"""

import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from controller.ops.recipes import RECIPES, Recipe
from controller.ops.targets import JETPACKS
from controller.ops.wheels import FilePin

PROJECT = Path(__file__).resolve().parents[1]
TARGET = PROJECT / "requirements" / "files.txt"
HEAD = """\
# Written by requirements/files.py: list, Python, processors, file, SHA-256, bytes. A dash stands for what the index does not say.
"""


def machines(recipe: Recipe) -> list[str]:
    """List the processors that an image is made for."""
    jetson = {target.device in JETPACKS for target in recipe.targets}
    return [machine for machine in ("x86_64", "aarch64") if machine == "aarch64" or False in jetson]


def sources(listed: PurePosixPath) -> Iterator[FilePin]:
    """Yield the source releases of a list, which are the same for every machine."""
    lines = (PROJECT / listed).read_text(encoding="utf-8")
    found = compiled(lines, python="3.11", machine="x86_64", glibc_minor=36)
    for package in found["packages"]:
        yield pin(package["sdist"], listed.parent.name, "-", "-")


def pin(found: dict[str, Any], lock: str, python: str, machine: str) -> FilePin:
    """Read one file as uv writes it."""
    return FilePin(
        lock=lock,
        python=python,
        machine=machine,
        file=unquote(urlsplit(found["url"]).path.rpartition("/")[2]),
        sha256=found["hashes"]["sha256"],
        size_bytes=found.get("size"),
    )


def compiled(lines: str, *, python: str, machine: str, glibc_minor: int) -> dict[str, Any]:
    """Let uv pick the files for a list."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write(lines)
        listed.flush()
        argv = [
            "uv", "pip", "compile", "--quiet", "--format", "pylock.toml", "--no-header", "--no-deps",
            "--python-version", python, "--python-platform", f"{machine}-manylinux_2_{glibc_minor}", listed.name,
        ]  # fmt: skip
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return tomllib.loads(done.stdout)


def pins(recipe: Recipe, machine: str) -> Iterator[FilePin]:
    """Yield the files that one image gets on one kind of processors."""
    python, glibc_minor = recipe.base.python_version, recipe.base.glibc_minor
    if recipe.lock:
        locked = (PROJECT / recipe.lock).read_text(encoding="utf-8")
        found = compiled(locked, python=python, machine=machine, glibc_minor=glibc_minor)
        yield from files(found, recipe.lock.stem, python, machine)


def files(lock: dict[str, Any], listed: str, python: str, machine: str) -> Iterator[FilePin]:
    """Read the first file of each package in uv's lock: it prefers the ones that fit best."""
    for package in lock["packages"]:
        for wheel in package["wheels"][:1]:
            yield pin(wheel, listed, python, machine)


def main() -> None:
    """Look every list up once for each kind of box."""
    found = {file for recipe in RECIPES for machine in machines(recipe) for file in pins(recipe, machine)}
    found |= {file for recipe in RECIPES if recipe.sources for file in sources(recipe.sources)}
    rows = [
        (file.lock, file.python, file.machine, file.file, file.sha256, str(file.size_bytes or "-"))
        for file in sorted(found, key=lambda file: (file.lock, file.python, file.machine, file.file))
    ]
    TARGET.write_text(HEAD + "".join(f"{' '.join(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
