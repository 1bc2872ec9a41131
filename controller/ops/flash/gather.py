"""
Find everything an order is made of: the machine, NVIDIA's archives, who may log in, our own package, a release.

A person asks by variables, which are the command line of make. A dry run takes what is not there as found.
"""

import platform
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from rich.markup import escape

from controller.errors import ConfigError
from controller.ops import box_deb
from controller.ops.flash import host as hosts
from controller.ops.flash.archives import Archives, fetch_command, hash_file, hash_folder
from controller.ops.flash.boards import Board, choose_release
from controller.ops.flash.commands import Command, Step
from controller.ops.flash.payload import check_payload
from controller.ops.flash.plan import File, Login, Order
from controller.ops.flash.recovery import USB
from controller.ops.flash.work import confirm
from controller.ops.release import find_version
from controller.ops.steps import console

PROJECT: Final = Path(__file__).resolve().parents[3]
USER: Final = "windlass"
LICENCE: Final = "https://developer.nvidia.com/embedded/jetson-linux"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where everything is looked for.

    Attributes:
        boards: what describes boards and releases.
        scripts: our own scripts.
        overlay: the files of our own operating system.
        build: where things are made and kept.
        made: where `make image` and its like leave what they make.
        usb: what the kernel shows of the USB bus.
        slash: the root of this machine's own files.
        machine: its processor.
        needed_bytes: what must be free for the work.

    """

    boards: Path = PROJECT / "appliance" / "boards"
    scripts: Path = PROJECT / "appliance" / "flash"
    overlay: Path = PROJECT / "appliance" / "os" / "tree"
    build: Path = PROJECT / "build" / "flash"
    made: Path = PROJECT / "build" / "appliance"
    usb: Path = USB
    slash: Path = Path("/")
    machine: str = field(default_factory=platform.machine)
    needed_bytes: int = hosts.NEEDED_BYTES


class Inquiry:
    """
    What a person asks for.

    Args:
        environ: the variables.
        ask: shows a text and returns what is typed.
        fetch: runs the command that fetches a file.

    """

    def __init__(self, environ: Mapping[str, str], *, ask: Callable[[str], str], fetch: Callable[[Command], None]) -> None:
        """Keep them; nothing is looked at yet."""
        self._environ = environ
        self.ask = ask
        self.fetch = None if environ.get("OFFLINE") else fetch

    def text(self, name: str) -> str:
        """Return a variable; empty where it is not set."""
        return self._environ.get(name, "")

    def flag(self, name: str) -> bool:
        """Say whether a variable is set to something."""
        return bool(self.text(name))

    def path(self, name: str, default: Path) -> Path:
        """Return a variable as a path."""
        return Path(self.text(name)).expanduser().resolve() if self.text(name) else default


def write_order(board: Board, inquiry: Inquiry, place: Place) -> tuple[Order, tuple[str, ...]]:
    """
    Return the order, and in a dry run what would be refused here.

    Raises:
        ConfigError: something is missing or stands in the way.

    """
    dry = inquiry.flag("DRY_RUN")
    release = choose_release(place.boards, inquiry.text("L4T"))
    work = inquiry.path("WORK", place.build / board.name)
    seen = hosts.read_host(work, slash=place.slash, usb=place.usb, machine=place.machine)
    problems = hosts.find_problems(seen, release, needed_bytes=place.needed_bytes, any_host=inquiry.flag("ANY_HOST"))
    if problems and not dry:
        raise ConfigError(problems)
    if not dry:
        question = f"NVIDIA's Jetson Linux comes under NVIDIA's licence: {LICENCE}"
        confirm(question, "accept", yes=inquiry.flag("ACCEPT_LICENSE"), ask=inquiry.ask)
    login, package = _find_login(inquiry, dry=dry), _find_package(inquiry, place, dry=dry)
    payload = _find_payload(inquiry)
    archives = inquiry.path("BSP", place.build / "archives")
    shelf = Archives(archives, fetch=inquiry.fetch)

    def take(name: str, known: str) -> File:
        if dry:
            return File(path=PurePosixPath(shelf.find(name) or archives / name), sha256=known)
        path, sha256, says = shelf.take(name, source=release.folder, known=known)
        console.print(f"  {escape(says)}")
        return File(path=PurePosixPath(path), sha256=sha256)

    order = Order(
        board=board,
        release=release,
        work=PurePosixPath(work),
        scripts=PurePosixPath(place.scripts),
        overlay=PurePosixPath(place.overlay),
        scripts_sha256=hash_folder(place.scripts) + hash_folder(place.overlay),
        boards=PurePosixPath(place.boards),
        python=sys.executable,
        bsp=take(release.bsp, release.bsp_sha256),
        rootfs=take(release.rootfs, release.rootfs_sha256),
        login=login,
        package=package,
        payload=payload,
        version=find_version(),
    )
    return order, (*problems, *hosts.find_hints(seen))


def show_fetching(order: Order) -> Step:
    """Return the step of a dry run that says which archives would be fetched, and that all are compared."""
    missing = [one for one in (order.bsp, order.rootfs) if not Path(one.path).is_file()]
    commands = [fetch_command(f"{order.release.folder}/{one.path.name}", Path(one.path.parent)) for one in missing]
    return Step(name="archives", says="take NVIDIA's archives, and compare them with their hashes", commands=tuple(commands))


def _find_login(inquiry: Inquiry, *, dry: bool) -> Login:
    home = Path(f"~{inquiry.text('SUDO_USER') or ''}").expanduser()
    keys = inquiry.path("KEYS", next((one for one in sorted((home / ".ssh").glob("id_*.pub"))), home / ".ssh" / "id_ed25519.pub"))
    there = keys.is_file()
    password = inquiry.text("PASSWORD")
    if not dry and not there and not password:
        raise ConfigError(
            [f"nobody could log in on the board: {keys} is not there; name public keys with KEYS=, or set PASSWORD"]
        )
    if password.startswith("-"):
        raise ConfigError(["PASSWORD begins with a dash, which NVIDIA's script takes for an option: choose another"])
    file = File(path=PurePosixPath(keys), sha256=hash_file(keys).sha256 if there else "") if there or dry else None
    # Of digits and letters alone: it does not begin with a dash either.
    return Login(user=USER, password=password or secrets.token_hex(24), keep_password=bool(password), keys=file)


def _find_package(inquiry: Inquiry, place: Place, *, dry: bool) -> File:
    """Return our own package: the one that is named, or the one of this checkout, which is made."""
    if dry:
        return File(path=PurePosixPath(inquiry.path("PACKAGE", place.made / "windlass-box_VERSION_all.deb")), sha256="")
    if not inquiry.flag("PACKAGE"):
        place.made.mkdir(parents=True, exist_ok=True)
    package = inquiry.path("PACKAGE", PROJECT) if inquiry.flag("PACKAGE") else box_deb.build(place.made)
    if not package.is_file():
        raise ConfigError([f"our own package {package} is not there; without PACKAGE= it is made"])
    return File(path=PurePosixPath(package), sha256=hash_file(package).sha256)


def _find_payload(inquiry: Inquiry) -> File | None:
    if not inquiry.flag("PAYLOAD"):
        return None
    folder = inquiry.path("PAYLOAD", PROJECT)
    check_payload(folder)
    return File(path=PurePosixPath(folder), sha256=hash_folder(folder))
