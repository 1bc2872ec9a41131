"""
A model's folder as the file system shows it: its name, its files, and whether a worker could read them.

Nothing is opened here. What a name or a mode already says is said before anything is read.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.errors import ModelError
from controller.spec import GROUP_GID, WORKER_UID

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_RELEVANT: Final = (
    ".gguf",
    ".safetensors",
    ".json",
    ".jinja",
    ".toml",
    ".txt",
    ".model",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
)
_WEIGHTS: Final = (".gguf", ".safetensors")
_ADAPTER: Final = "adapter_config.json"
NOT_OURS: Final = frozenset({"lost+found"})
"""What a file system puts at its root, should that be the models folder."""
_RESERVED: Final = frozenset({"auto"})
"""What a request says instead of a model's name."""


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file of a folder, as far as it can be told without opening it."""

    name: str
    size: int
    changed_ns: int
    mode: int
    uid: int
    gid: int


def find_clashes(names: Iterable[str]) -> Mapping[str, str]:
    """Return, for every folder whose name another one has in other letters, that other one: the one that keeps the name."""
    first: dict[str, str] = {}
    clashing: dict[str, str] = {}
    # The name in lower case is the valid one, so it goes first and keeps its place.
    for name in sorted(names, key=lambda name: (name != name.lower(), name)):
        kept = first.setdefault(name.lower(), name)
        if kept != name:
            clashing[name] = kept
    return clashing


def is_model(entry: "os.DirEntry[str]", clashes: Mapping[str, str]) -> bool:
    """
    Say whether an entry of the models folder is a model's folder; other files there are nobody's business.

    Raises:
        ModelError: it is meant to be one and cannot be, by its name or its kind.

    """
    name = entry.name
    if entry.is_symlink():
        raise ModelError("is a link: a worker sees nothing beyond its own folder; move the model here")
    if not entry.is_dir(follow_symlinks=False):
        if name.endswith(_WEIGHTS):
            raise ModelError("is a file beside the model folders; make a folder with the model's name and move it there")
        return False
    if name in clashes:
        raise ModelError(f"has the name of {clashes[name]!r} in other letters; rename one of them")
    if name in _RESERVED:
        raise ModelError(f"{name!r} in a request means that no model is named; rename the folder")
    if not NAME.fullmatch(name):
        raise ModelError("wanted a name of at most 63 lower-case letters, digits, '.', '_' and '-'; rename the folder")
    return True


def list_files(folder: Path) -> tuple[File, ...]:
    """Return the folder itself and those of its files that matter."""
    found = [_file(".", folder.stat())]
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _adapter_files(entry)
                continue
            if not entry.name.endswith(_RELEVANT):
                continue
            if entry.is_symlink() and not _stays_inside(folder, entry):
                raise ModelError(
                    f"{printable(entry.name)} is a link out of the folder, where the worker cannot follow; copy the file"
                )
            if printable(entry.name) != entry.name or "," in entry.name:
                raise ModelError(f"{printable(entry.name)} has characters in its name that no file of a model needs; rename it")
            found.append(_file(entry.name, entry.stat()))
    return tuple(sorted(found))


def _adapter_files(entry: "os.DirEntry[str]") -> list[File]:
    """Return the files of a folder in the folder that holds an adapter, as PEFT saves them; of any other folder, none."""
    if not (Path(entry.path) / _ADAPTER).is_file():
        return []
    found = []
    with os.scandir(entry.path) as entries:
        for inner in entries:
            if inner.name.endswith(_RELEVANT) and inner.is_file(follow_symlinks=False):
                found.append(_file(f"{entry.name}/{inner.name}", inner.stat()))
    return found


def _file(name: str, status: os.stat_result) -> File:
    # A folder's own time changes with every log or lock written into it; only its mode matters.
    folder = stat.S_ISDIR(status.st_mode)
    return File(
        name,
        0 if folder else status.st_size,
        0 if folder else status.st_mtime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def _stays_inside(folder: Path, entry: "os.DirEntry[str]") -> bool:
    target = str(Path(entry.path).readlink())
    return "/" not in target and (folder / target).is_file() and not (folder / target).is_symlink()


def check_readable(folder: Path, files: Iterable[File]) -> None:
    """Refuse what the worker's user could not open: it would fail at the start with a text that says less."""
    for file in files:
        wanted = 0o5 if file.name == "." else 0o4
        shift = 6 if file.uid == WORKER_UID else 3 if file.gid == GROUP_GID else 0
        if (file.mode >> shift) & wanted != wanted:
            path = folder if file.name == "." else folder / file.name
            raise ModelError(
                f"{'the folder' if file.name == '.' else file.name} cannot be read by the worker (user {WORKER_UID}, group "
                f"{GROUP_GID}): mode {stat.S_IMODE(file.mode):04o}; run `chmod o+rX {path}`"
            )


def printable(name: str) -> str:
    """Write a name so that it is one line of text, whatever bytes it is made of."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
