"""
The boards that can be flashed, and NVIDIA's releases for them, as `appliance/boards/` describes them.

What nobody knows about a board stands there as a sentence, and such a board is refused.
"""

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from controller.errors import ConfigError
from controller.units import GIB, parse_bytes

Kind = TypeVar("Kind", bound="_Data")
RELEASES: Final = "releases.toml"
PC: Final = "pc"
"""Anything that boots from a disk with UEFI."""

Size = Annotated[int, BeforeValidator(lambda value: parse_bytes(value) if isinstance(value, str) else value)]
Digits = Annotated[str, Field(pattern=r"^\d{4}$")]
Inside = Annotated[str, Field(pattern=r"^[\w./-]+$")]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Board(_Data):
    """
    One board, as NVIDIA's tools know it.

    Attributes:
        name: what a person says; the name of its file.
        title: what it is called on its box.
        module: the id of the module in its EEPROM.
        sku: the kind of that module.
        usb: the USB product ids it shows in recovery mode.
        config: the name of NVIDIA's configuration.
        fab: the module's revision, where images for it can be made without the board; empty where nobody knows one.
        layout: the partitions of its disk with two root file systems, inside NVIDIA's tree.
        internal_layout: what is written into the boot flash, where that is not the configuration's own choice.
        boot_order: the overlay that makes its firmware prefer the disk, where one is needed.
        storage: the disk, as the board calls its first partition.
        root_device: the last argument of NVIDIA's tool.
        root_bytes: the size of one root file system.
        disk_bytes: what NVIDIA's layout assumes a disk to have at least.
        device: the kind of images it runs, as in `make images DEVICE=`.
        unknown: what would have to be known before it may be flashed.

    """

    name: str
    title: str
    module: Digits
    sku: Digits
    usb: Annotated[tuple[Digits, ...], Field(strict=False, min_length=1)]
    config: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    fab: str = ""
    layout: Inside
    internal_layout: str = ""
    boot_order: str = ""
    storage: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    root_device: str
    root_bytes: Size = Field(alias="root")
    disk_bytes: Size = Field(alias="disk")
    device: str
    unknown: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Release(_Data):
    """
    One release of NVIDIA's Jetson Linux.

    Attributes:
        version: its number, such as `39.2.1`.
        jetpack: the JetPack it belongs to.
        folder: where NVIDIA offers its files.
        bsp: the archive with the tools.
        bsp_sha256: its hash; empty where nobody knows it.
        rootfs: the archive with the root file system.
        rootfs_sha256: its hash; empty where nobody knows it.
        hosts: the releases of Ubuntu that NVIDIA supports flashing from.

    """

    version: str
    jetpack: str
    folder: str
    bsp: str
    bsp_sha256: str = ""
    rootfs: str
    rootfs_sha256: str = ""
    hosts: Annotated[tuple[str, ...], Field(strict=False)]


def read_boards(folder: Path) -> dict[str, Board]:
    """
    Read every board's file.

    Raises:
        ConfigError: one of them is not what a board's file should be.

    """
    files = sorted(path for path in folder.glob("*.toml") if path.name != RELEASES)
    return {
        path.stem: _read(Board, path, {"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}) for path in files
    }


def choose_board(boards: dict[str, Board], name: str) -> Board:
    """
    Return the board called *name*.

    Raises:
        ConfigError: there is none, or too little is known about it.

    """
    board = boards.get(name)
    if board is None:
        near = get_close_matches(name, boards, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError([f"no board is called {name!r}; {hint}known are {', '.join((*boards, PC))}"])
    if board.unknown:
        raise ConfigError(
            [
                f"{board.title} is not flashed: nobody has found out {'; and '.join(board.unknown)}. "
                "Install NVIDIA's JetPack on it and run `make provision HOST=…` and `make deploy HOST=…`"
            ]
        )
    if 2 * board.root_bytes + 3 * GIB > board.disk_bytes:
        raise ConfigError([f"{name}: two root file systems of {board.root_bytes} bytes do not fit a disk of {board.disk_bytes}"])
    return board


def choose_release(folder: Path, version: str) -> Release:
    """
    Return NVIDIA's release *version*, or the default one for an empty name.

    Raises:
        ConfigError: there is none of that number.

    """
    path = folder / RELEASES
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    wanted = re.sub(r"^[Rr]", "", version) or data["default"]
    if wanted not in data["release"]:
        raise ConfigError([f"{path} has no release {wanted!r}; it has {', '.join(data['release'])}"])
    return _read(Release, path, {"version": wanted, **data["release"][wanted]})


def _read(kind: type[Kind], path: Path, data: dict[str, object]) -> Kind:
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        problems = [f"{path}: {'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in exc.errors()]
        raise ConfigError(problems) from exc
