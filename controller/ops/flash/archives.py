"""
NVIDIA's archives: found in a folder or fetched, and compared with the best hash that is known.

In this order: a hash that stands in `releases.toml`; the one that was recorded when this file was first used; NVIDIA's own list,
which lies beside the archives and holds SHA-1, good against a broken transfer and no proof against an attacker; and else the file
is trusted on first use, which is said plainly. A file that does not match is never used.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.errors import WindlassError
from controller.ops.flash.commands import Command, run

SUMS: Final = "release_sha_hashes.txt"
RECORD: Final = "windlass-hashes.json"
CHUNK_BYTES: Final = 1 << 20
_SUM: Final = re.compile(r"^(?P<digest>[0-9a-fA-F]{40})\s+\*?(?:\S*/)?(?P<name>\S+)$", re.MULTILINE)


class ArchiveError(WindlassError):
    """An archive is missing, cannot be fetched, or is not the one it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """What was computed of a file."""

    sha256: str
    sha1: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    Whether a file may be used.

    Attributes:
        says: on what ground, for the person who flashes.
        record: its hash is to be recorded, since nothing else vouches for it next time.

    """

    says: str
    record: bool = False


def judge(name: str, hashes: Hashes, *, known: str, recorded: str, listed: str) -> Verdict:
    """
    Compare a file with what is known about it.

    Raises:
        ArchiveError: it is another file than the one that was wanted.

    """
    for source, wanted, got in (
        ("the hash in releases.toml", known, hashes.sha256),
        (f"the hash recorded when it was first used ({RECORD})", recorded, hashes.sha256),
        (f"NVIDIA's list ({SUMS})", listed, hashes.sha1),
    ):
        if wanted and wanted.lower() != got:
            raise ArchiveError(
                f"{name} does not match {source}: wanted {wanted.lower()}, got {got}. It is damaged or another file: delete it, "
                "fetch it again, and if that changes nothing, do not use it"
            )
    if known:
        return Verdict(says=f"{name}: as it should be (SHA-256 {known})")
    if recorded:
        return Verdict(says=f"{name}: the same file as last time (SHA-256 {recorded})")
    if listed:
        return Verdict(says=f"{name}: as NVIDIA's list says (SHA-1 {listed})", record=True)
    return Verdict(
        says=f"{name}: nothing vouches for it; it is trusted now, and has to stay the same (SHA-256 {hashes.sha256})",
        record=True,
    )


def read_sums(text: str) -> dict[str, str]:
    """Read NVIDIA's list: the hash of each file by its name in small letters, since names differ in that."""
    return {one["name"].lower(): one["digest"].lower() for one in _SUM.finditer(text)}


def fetch_command(url: str, folder: Path) -> Command:
    """Fetch a file, going on where an earlier try was cut; it gets its name when it is whole."""
    name = url.rsplit("/", 1)[-1]
    half = folder / f"{name}.part"
    return run(
        *("curl", "--fail", "--location", "--proto", "=https", "--retry", "5", "--retry-connrefused", "--continue-at", "-"),
        *("--output", str(half), url),
    )


class Archives:
    """
    The folder that holds NVIDIA's archives.

    Args:
        folder: where they are, or where they are put.
        fetch: runs the command that fetches one; none where nothing may be fetched.

    """

    def __init__(self, folder: Path, *, fetch: Callable[[Command], None] | None) -> None:
        """Keep the place; nothing is looked at yet."""
        self._folder = folder
        self._fetch = fetch

    def take(self, name: str, *, source: str, known: str) -> tuple[Path, str, str]:
        """
        Return an archive's path, its SHA-256, and the sentence that says why it may be used.

        Raises:
            ArchiveError: it is not there, cannot be fetched, or does not match.

        """
        path = self.find(name) or self._get(name, source)
        hashes = hash_file(path)
        recorded = self._recorded()
        listed = "" if known or recorded.get(name) else self._listed(source).get(name.lower(), "")
        verdict = judge(path.name, hashes, known=known, recorded=recorded.get(name, ""), listed=listed)
        if verdict.record:
            self._write(RECORD, json.dumps({**recorded, name: hashes.sha256}, indent=1))
        return path, hashes.sha256, verdict.says

    def find(self, name: str) -> Path | None:
        """Return where an archive lies, whichever letters its name is written with; `None` if it is not there."""
        if not self._folder.is_dir():
            return None
        return next((one for one in sorted(self._folder.iterdir()) if one.name.lower() == name.lower()), None)

    def _get(self, name: str, source: str) -> Path:
        if self._fetch is None:
            raise ArchiveError(
                f"{self._folder} holds no {name}; fetch it from {source}/{name}, or run this where there is a network"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fetch(fetch_command(f"{source}/{name}", self._folder))
        half = self._folder / f"{name}.part"
        if not half.is_file():
            raise ArchiveError(f"fetching {source}/{name} left no file {half}")
        return half.rename(self._folder / name)

    def _listed(self, source: str) -> Mapping[str, str]:
        file = self._folder / SUMS
        if not file.is_file() and self._fetch is not None:
            try:
                self._get(SUMS, source)
            except (WindlassError, OSError):
                return {}  # NVIDIA has no list for every release
        return read_sums(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else {}

    def _recorded(self) -> dict[str, str]:
        file = self._folder / RECORD
        if not file.is_file():
            return {}
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ArchiveError(f"{file} is damaged: {exc}; delete it, and the archives are trusted anew") from exc
        return {str(name): str(digest) for name, digest in found.items()}

    def _write(self, name: str, text: str) -> None:
        half = self._folder / f".{name}.half"
        try:
            half.write_text(text, encoding="utf-8")
            half.replace(self._folder / name)
        except OSError as exc:
            raise ArchiveError(
                f"{self._folder} cannot be written to ({exc.strerror}), and which files were trusted is remembered there: "
                "copy the archives to a folder of your own, and name that with BSP="
            ) from exc


def hash_file(path: Path) -> Hashes:
    """Read a file once and return both hashes."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            sha256.update(block)
            sha1.update(block)
    return Hashes(sha256=sha256.hexdigest(), sha1=sha1.hexdigest())


def hash_folder(path: Path) -> str:
    """Return one hash over a folder: the content of small files, and the size and time of large ones. Has it changed?"""
    found = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            status = one.stat()
            found.update(f"{one.relative_to(path)}\0{status.st_size}\0{status.st_mode:o}\0".encode())
            found.update(one.read_bytes() if status.st_size < CHUNK_BYTES else f"{status.st_mtime_ns}".encode())
    return found.hexdigest()
