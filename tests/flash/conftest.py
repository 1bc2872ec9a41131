"""A bench to flash on: archives made once, and for each test a machine, a bus, and a folder of its own."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.ops.flash.__main__ import flash_board, make_kit
from controller.ops.flash.commands import Command
from controller.ops.flash.gather import PROJECT, Inquiry, Place
from tests.flash import standin


@dataclass
class Bench:
    """One machine with archives, a bus and a working folder."""

    folder: Path
    place: Place
    environ: dict[str, str]
    fetched: list[Command] = field(default_factory=list)
    answer: Callable[[str], str] = lambda _text: ""

    @property
    def work(self) -> Path:
        """Return the working folder."""
        return Path(self.environ["WORK"])

    @property
    def root(self) -> Path:
        """Return the board's root file system."""
        return self.work / "Linux_for_Tegra" / "rootfs"

    def plug_in(self, *products: str) -> None:
        """Let these boards hang on the bus."""
        standin.plug_in(self.place.usb, *products)

    def inquiry(self, **environ: str) -> Inquiry:
        """Ask for what this bench has, and for more."""
        return Inquiry({**self.environ, **environ}, ask=self.answer, fetch=self.fetched.append)

    def flash(self, board: str = "jetson-orin-nano", **environ: str) -> None:
        """Run `make flash`."""
        flash_board(board, self.inquiry(**environ), self.place)

    def kit(self, board: str = "jetson-orin-nano", **environ: str) -> None:
        """Run `make flash-kit`."""
        make_kit(board, self.inquiry(**environ), self.place)

    def calls(self) -> list[dict[str, Any]]:
        """Return how NVIDIA's programs were called."""
        file = self.work / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def tools(self) -> list[str]:
        """Return which of them were called."""
        return [call["tool"] for call in self.calls()]

    def flashed(self) -> dict[str, Any] | None:
        """Return what was written to the board; `None` if nothing was."""
        file = self.work / "flashed.json"
        return json.loads(file.read_text()) if file.is_file() else None


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make both archives once."""
    folder = tmp_path_factory.mktemp("nvidia")
    return standin.make_bsp(folder), standin.make_rootfs(folder)


@pytest.fixture
def bench(tmp_path: Path, archives: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Set a bench up: everything is there, nothing is connected, and every question is answered in advance."""
    return set_up(tmp_path, archives, monkeypatch)


@pytest.fixture(scope="module")
def flashed(tmp_path_factory: pytest.TempPathFactory, archives: tuple[Path, Path]) -> Iterator[Bench]:
    """Flash one board, to be looked at from all sides."""
    with pytest.MonkeyPatch.context() as patch:
        made = set_up(tmp_path_factory.mktemp("flashed"), archives, patch)
        made.plug_in("7523")
        made.flash()
        yield made


def set_up(folder: Path, archives: tuple[Path, Path], patch: pytest.MonkeyPatch) -> Bench:
    """Set a bench up in a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may unpack a root file system and work inside it")
    store = folder / "archives"
    store.mkdir()
    for one in archives:
        (store / one.name).symlink_to(one)
    boards = standin.make_boards(folder / "boards", PROJECT / "appliance" / "boards", bsp_sha256=standin.sha256(archives[0]))
    place = Place(
        boards=boards,
        build=folder / "build",
        made=folder / "made",
        usb=folder / "usb",
        slash=standin.make_machine(folder / "slash"),
        machine="x86_64",
        needed_bytes=1,
    )
    keys = folder / "id.pub"
    keys.write_text("ssh-ed25519 AAAA somebody\n", encoding="ascii")
    package = folder / "windlass-box_1_all.deb"
    package.write_bytes(b"package")
    standin.plug_in(place.usb)
    patch.setenv("STANDIN_USB", str(place.usb))
    patch.setenv("USER", "somebody")
    environ = {
        "BSP": str(store), "WORK": str(folder / "work"), "KEYS": str(keys), "PACKAGE": str(package),
        "OFFLINE": "1", "YES": "1", "ACCEPT_LICENSE": "1",
    }  # fmt: skip
    return Bench(folder=folder, place=place, environ=environ)
