"""Bring one file of a bundle, part by part, and believe nothing that was not hashed."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from controller.bundles.beneath import open_beneath
from controller.bundles.copying import Moved, SourceError, append, hash_held
from controller.bundles.manifest import FilePart
from controller.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bring:
    """
    Brings files from one bundle.

    Attributes:
        root: the bundle.
        moved: told how many bytes more are done.

    """

    root: Path
    moved: Moved

    def part(self, path: str, part: FilePart, target: FileIO) -> None:
        """
        Have *target* go on with a part where it stands, and see that it is what the manifest says.

        What was copied before is hashed and kept; if that is what is wrong, the part is copied once more from its beginning.

        Raises:
            BundleError: the part is not there, or is damaged.
            OSError: *target* cannot be written.

        """
        start = target.tell()
        for _ in range(2):
            digest = hashlib.sha256()
            held_bytes = hash_held(target, part.size_bytes, digest, moved=self.moved)
            if held_bytes < part.size_bytes:
                self._rest(path, part, held_bytes, target=target, digest=digest)
            if digest.hexdigest() == part.sha256:
                return
            target.truncate(start)
            target.seek(start)
            self.moved(-part.size_bytes)
            if not held_bytes:
                break
        raise BundleError(
            f"{self.root / path}: wanted the SHA-256 {part.sha256}, got {digest.hexdigest()}: it is damaged; copy this file again"
        )

    def _rest(self, path: str, part: FilePart, offset: int, *, target: FileIO, digest: "hashlib._Hash") -> None:
        with self._open(path, part) as source:
            source.seek(offset)
            try:
                append(source, part.size_bytes - offset, target, digest, moved=self.moved)
            except SourceError as exc:
                raise BundleError(f"{self.root / path}: {exc}; copy this file again") from exc

    def check(self, path: str, part: FilePart) -> None:
        """
        See that a part is what the manifest says, and copy it nowhere.

        Raises:
            BundleError: it is not there, or is damaged.

        """
        digest = hashlib.sha256()
        with self._open(path, part) as source:
            try:
                hash_held(source, part.size_bytes, digest, moved=self.moved)
            except OSError as exc:
                raise BundleError(f"{self.root / path}: cannot be read: {exc.strerror}; copy this file again") from exc
        if digest.hexdigest() != part.sha256:
            raise BundleError(
                f"{self.root / path}: wanted the SHA-256 {part.sha256}, got {digest.hexdigest()}: it is damaged; copy it again"
            )

    def look(self, path: str, part: FilePart) -> None:
        """
        See that a part is there and has its size.

        Raises:
            BundleError: it is not, or has not.

        """
        self._open(path, part).close()

    def _open(self, path: str, part: FilePart) -> FileIO:
        try:
            source = open_beneath(self.root, path)
        except OSError as exc:
            raise BundleError(f"{self.root / path}: cannot be read: {exc.strerror}; copy this file again") from exc
        found_bytes = os.fstat(source.fileno()).st_size
        if found_bytes != part.size_bytes:
            source.close()
            raise BundleError(f"{self.root / path}: wanted {part.size_bytes} bytes, got {found_bytes}; copy this file again")
        return source


def has_content(path: Path, parts: Sequence[FilePart]) -> bool:
    """
    Say whether a file consists of these parts.

    Raises:
        OSError: it cannot be read.

    """
    with FileIO(path, "rb") as file:
        for part in parts:
            digest = hashlib.sha256()
            hash_held(file, part.size_bytes, digest, moved=lambda _: None)
            if digest.hexdigest() != part.sha256:
                return False
    return True
