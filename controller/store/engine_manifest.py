"""`manifest.json` of an engine file: what it is, what it was made from, and the bytes it must consist of."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from controller.store.fingerprint import BuildKey

FILE_NAME: Final = "manifest.json"
MAX_BYTES: Final = 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileEntry(_Part):
    """One file: its name in the folder, its size and its hash."""

    name: Annotated[str, StringConstraints(pattern=r"^[^/\x00]{1,255}$")]
    size_bytes: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EngineManifest(_Part):
    """The whole manifest; what a later version adds is passed over."""

    fingerprint: str
    lineage: str
    model: str
    engine: str
    quantization: str
    source: str
    images: dict[str, str]
    options: tuple[tuple[str, ...], ...]
    device: str
    built_at: str
    seconds: float
    files: tuple[FileEntry, ...] = Field(min_length=1)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size_bytes for entry in self.files)

    @classmethod
    def of(cls, key: BuildKey, *, model: str, files: tuple[FileEntry, ...], seconds: float) -> "EngineManifest":
        """Describe what was built just now."""
        return cls(
            fingerprint=key.fingerprint,
            lineage=key.lineage,
            model=model,
            engine=key.engine,
            quantization=key.quantization,
            source=key.source,
            images=dict(key.images),
            options=key.options,
            device=key.device,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            files=files,
        )


def read_manifest(folder: Path) -> EngineManifest:
    """
    Read the manifest of an engine file.

    Raises:
        OSError: there is none.
        ValueError: it is none.

    """
    with (folder / FILE_NAME).open("rb") as file:
        return EngineManifest.model_validate_json(file.read(MAX_BYTES))


def write_manifest(folder: Path, manifest: EngineManifest) -> None:
    """
    Write the manifest of an engine file, and return when it is on the disk.

    Raises:
        OSError: the disk does not take it.

    """
    with (folder / FILE_NAME).open("wb") as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
