"""`windlass-bundle.json`: what a bundle holds, checked before anything is believed."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from controller.bundles.beneath import open_beneath
from controller.bundles.copying import read_whole, write_whole
from controller.bundles.layout import MOST_PARTS, clash, name_problem, part_names
from controller.errors import BundleError, BundleRefusedError
from controller.store.digests import sync
from controller.store.fingerprint import DIGITS
from controller.store.folder import NAME as MODEL_NAME

FORMAT: Final = 1
"""Raised when older versions would misread what a newer one writes; what is only added is passed over by them."""
FILE_NAME: Final = "windlass-bundle.json"
MODELS: Final = "models"
ENGINES: Final = "engines"
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a manifest: 100,000 parts and more. It is read whole, and from whatever stick somebody has plugged in."""
_NEW: Final = ".windlass-bundle.new"
_LARGEST: Final = 1 << 60


def _file_name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(f"{name!r}: {problem}")
    return name


def _model_name(name: str) -> str:
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(f"{name!r}: wanted a model's name")
    return name


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FilePart(_Part):
    """A file, or a part of one: what lies under one name."""

    size_bytes: int = Field(ge=0, le=_LARGEST, strict=True)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class BundledFile(_Part):
    """A file: its path in its folder, when it was changed, and its parts in order."""

    name: Annotated[str, StringConstraints(max_length=2000), AfterValidator(_file_name)]
    changed_ns: int = Field(ge=0, lt=1 << 63, strict=True)
    parts: tuple[FilePart, ...] = Field(min_length=1, max_length=MOST_PARTS)

    @property
    def size_bytes(self) -> int:
        """All parts together."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Where its parts lie, in the same folder."""
        return part_names(self.name, len(self.parts))


def _in_folder(file: BundledFile) -> BundledFile:
    if "/" in file.name:
        raise ValueError(f"{file.name!r}: wanted a file of the folder itself")
    return file


class Item(_Part):
    """A folder of the bundle."""

    name: str
    files: tuple[BundledFile, ...] = Field(min_length=1, max_length=100_000)

    @model_validator(mode="after")
    def _lies_side_by_side(self) -> Self:
        for paths in ([file.name for file in self.files], self.paths):
            if (path := clash(paths)) is not None:
                raise ValueError(f"{self.name}: {path!r} cannot lie beside the others: two names are one on some file systems")
        return self

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def paths(self) -> list[str]:
        """Where its files and their parts lie, in its folder."""
        return [name for file in self.files for name in file.part_names]

    @property
    def digest(self) -> str:
        """Tell its content from any other."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ModelItem(Item):
    """A model's folder."""

    name: Annotated[str, AfterValidator(_model_name)]


class EngineItem(Item):
    """An engine file, and what its own manifest says of it."""

    name: Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")]
    model: str = Field(max_length=200)
    engine: str = Field(max_length=200)
    quantization: str = Field(max_length=200)
    device: str = Field(max_length=1000)
    files: tuple[Annotated[BundledFile, AfterValidator(_in_folder)], ...] = Field(min_length=1, max_length=100_000)


class Bundle(_Part):
    """The whole manifest."""

    format: int = FORMAT
    made_by: str = Field(default="", max_length=200)
    models: tuple[ModelItem, ...] = ()
    engine_files: tuple[EngineItem, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for items in (self.models, self.engine_files):
            if (name := clash(item.name for item in items)) is not None:
                raise ValueError(f"{name!r} is in it twice")
        return self

    def items(self) -> Iterator[tuple[str, Item]]:
        """Yield what is in it and where it lies: engine files first, so that a model finds its own when it arrives."""
        yield from ((f"{ENGINES}/{item.name}", item) for item in self.engine_files)
        yield from ((f"{MODELS}/{item.name}", item) for item in self.models)


def read_bundle(root: Path) -> Bundle | None:
    """
    Read the manifest of the bundle in *root*; `None` if there is none.

    Raises:
        BundleError: it cannot be read, or is none.
        BundleRefusedError: it is of a newer format, or says what no bundle of ours says.

    """
    try:
        with open_beneath(root, FILE_NAME) as file:
            raw = read_whole(file, MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BundleError(f"{root / FILE_NAME}: cannot be read: {exc.strerror or exc}") from exc
    return parse_bundle(raw, name=str(root / FILE_NAME))


def parse_bundle(raw: bytes, *, name: str = FILE_NAME) -> Bundle:
    """
    Read a manifest.

    Raises:
        BundleError: it is damaged, or is none.
        BundleRefusedError: it is of a newer format, or says what no bundle of ours says.

    """
    if len(raw) > MAX_BYTES:
        raise BundleRefusedError(f"{name}: wanted at most {MAX_BYTES} bytes, got more")
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise BundleError(f"{name}: wanted JSON, got something else: {exc}; copy the bundle again") from exc
    _check_format(said, name)
    try:
        return Bundle.model_validate(said)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleRefusedError(f"{name}: {where}: {first['msg']}; it is damaged, or no bundle of ours") from exc


def _check_format(said: Any, name: str) -> None:  # noqa: ANN401 -- whatever the file holds
    found = said.get("format") if isinstance(said, dict) else None
    if type(found) is not int or found < 1:
        raise BundleRefusedError(f"{name}: wanted a bundle's manifest with its format, got something else")
    if found > FORMAT:
        raise BundleRefusedError(
            f"{name}: wanted format {FORMAT}, got {found}: it was made by a newer version; update this one, or export with it"
        )


def write_bundle(root: Path, bundle: Bundle) -> None:
    """
    Write the manifest in place of an older one, and return when it is on the disk.

    Raises:
        BundleError: it is too long for any box to read.
        OSError: the disk does not take it.

    """
    text = bundle.model_dump_json(indent=1).encode() + b"\n"
    if len(text) > MAX_BYTES:
        raise BundleError(f"{root / FILE_NAME}: wanted at most {MAX_BYTES} bytes, got {len(text)}: export fewer models into one")
    with open_beneath(root, _NEW, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
        write_whole(file, text)
        os.fsync(file.fileno())
    (root / _NEW).replace(root / FILE_NAME)
    sync(root)


def without(bundle: Bundle, folders: Sequence[str]) -> Bundle:
    """Return a bundle that does not name these folders."""
    gone = set(folders)
    return bundle.model_copy(
        update={
            "models": tuple(item for item in bundle.models if f"{MODELS}/{item.name}" not in gone),
            "engine_files": tuple(item for item in bundle.engine_files if f"{ENGINES}/{item.name}" not in gone),
        }
    )


def with_item(bundle: Bundle, item: ModelItem | EngineItem) -> Bundle:
    """Return a bundle with this in it, in the order of names, in place of what had its name."""
    if isinstance(item, ModelItem):
        models = {one.name: one for one in (*bundle.models, item)}
        return bundle.model_copy(update={"models": tuple(models[name] for name in sorted(models))})
    engine_files = {one.name: one for one in (*bundle.engine_files, item)}
    return bundle.model_copy(update={"engine_files": tuple(engine_files[name] for name in sorted(engine_files))})
