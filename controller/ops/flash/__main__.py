"""
`make flash` and `make flash-kit`: say what will be done, ask, and have it done.

Settings come from the command line of make, which hands them on as variables.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer
from rich.markup import escape

from controller.errors import ConfigError
from controller.ops.flash import kit, plan
from controller.ops.flash.boards import PC, choose_board, read_boards
from controller.ops.flash.commands import Command, Step, write_script
from controller.ops.flash.copying import copy_image, individualize, read_checksum
from controller.ops.flash.disk import lsblk_argv, read_disk, refuse
from controller.ops.flash.gather import PROJECT, Inquiry, Place, show_fetching, write_order
from controller.ops.flash.recovery import NotInRecoveryError, find_board, read_devices
from controller.ops.flash.work import Perform, carry_out, confirm
from controller.ops.steps import console, run_program, run_step
from controller.units import GIB, format_bytes

LEAST_DISK_BYTES: Final = 8 * GIB
"""Two systems, the images of a release, and a small model."""

app: Final = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Argument(help="a board's name; `pc` with DISK= for a disk of this machine")]


@app.command()
def flash(board: Name = "") -> None:
    """Write the appliance onto a board over USB, or onto a disk of this machine."""
    if board == PC:
        flash_disk(_inquiry(), Place())
    else:
        flash_board(board, _inquiry(), Place())


@app.command()
def pack(board: Name = "") -> None:
    """Make an archive that flashes boards of a kind without this checkout and without a network."""
    make_kit(board, _inquiry(), Place())


def flash_board(name: str, inquiry: Inquiry, place: Place) -> None:
    """
    Prepare what a board gets, wait for nothing, and write it.

    Everything that needs no board comes first and is kept, so that a board that is not there costs nothing.
    """
    boards = read_boards(place.boards)
    board = choose_board(boards, name)
    order, here = write_order(board, inquiry, place)
    steps, write = plan.prepare(order), plan.flash(order)
    if inquiry.flag("DRY_RUN"):
        ask = Step(
            name="recovery", says=f"see that {board.title} is connected and in recovery mode, and ask before it is overwritten"
        )
        _show(here, (show_fetching(order), *steps, ask, write))
        return
    perform = _perform(Path(order.work))
    try:
        find_board(board, read_devices(place.usb), boards)
    except NotInRecoveryError as exc:
        console.print(f"[yellow]Not needed yet, but at the end:[/] {escape(str(exc))}.")
    carry_out(steps, Path(order.work), perform)
    device = find_board(board, read_devices(place.usb), boards)
    question = f"{board.title} at USB {device.path}: everything on its disk is lost, and its firmware is overwritten."
    confirm(question, board.name, yes=inquiry.flag("YES"), ask=inquiry.ask)
    carry_out((*steps, write), Path(order.work), perform, again=(write.name,))
    console.print(f"{board.title} is flashed. Take the connection off its recovery pins, cut its power and give it again.")


def make_kit(name: str, inquiry: Inquiry, place: Place) -> None:
    """Prepare what boards of a kind get, and pack it."""
    boards = read_boards(place.boards)
    board = choose_board(boards, name)
    order, here = write_order(board, inquiry, place)
    out = PurePosixPath(inquiry.path("OUT", place.build))
    steps = (*plan.prepare(order), plan.make_images(order), kit.pack(order, out))
    if inquiry.flag("DRY_RUN"):
        _show(here, (show_fetching(order), *steps))
        return
    if not board.fab:
        find_board(board, read_devices(place.usb), boards)
    carry_out(steps, Path(order.work), _perform(Path(order.work)))
    console.print(f"{out / kit.kit_name(order)}.tar is the kit, with its checksum beside it and a how-to inside.")


def flash_disk(inquiry: Inquiry, place: Place) -> None:
    """Write an image onto a disk of this machine."""
    wanted = inquiry.text("DISK")
    if not wanted:
        raise ConfigError(["which disk? Name it with DISK=, such as DISK=/dev/sdb; `lsblk` lists them"])
    image = inquiry.path("IMAGE", _newest_image(place.made / "pc-amd64"))
    if not image.is_file():
        raise ConfigError([f"there is no image {image}; make one with `make image TARGET=pc-amd64`, or name one with IMAGE="])
    asked = subprocess.run(lsblk_argv(wanted), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ConfigError([f"{wanted} is no disk of this machine: {asked.stderr.strip()}"])
    disk = read_disk(asked.stdout, wanted)
    size_bytes = image.stat().st_size
    refuse(disk, image_bytes=size_bytes, least_bytes=LEAST_DISK_BYTES)
    checksum = read_checksum(image)
    what = f"{disk.path} ({disk.name}, {format_bytes(disk.size_bytes)})"
    if inquiry.flag("DRY_RUN"):
        typer.echo(f"# write {image} ({format_bytes(size_bytes)}, SHA-256 {checksum}) onto {what}, and read it back")
        return
    if shutil.which("sgdisk") is None:
        raise ConfigError(["a disk gets identifiers of its own by sgdisk, which this machine lacks: apt install gdisk"])
    confirm(f"{what} is overwritten.", disk.path, yes=inquiry.flag("YES"), ask=inquiry.ask)
    with console.status("") as status:

        def progress(says: str, done_bytes: int) -> None:
            status.update(f"{says} [dim]{format_bytes(done_bytes)} of {format_bytes(size_bytes)}[/]")

        copy_image(image, Path(disk.path), checksum=checksum, progress=progress)
    individualize(Path(disk.path))
    subprocess.run(["blockdev", "--rereadpt", disk.path], capture_output=True, check=False)
    console.print(f"{disk.path} holds {image.name}, and what was read back is the same. Start the machine from it.")


def _newest_image(folder: Path) -> Path:
    made = sorted(folder.glob("*.img"), key=lambda one: one.stat().st_mtime)
    return made[-1] if made else folder / "windlass-VERSION-pc-amd64.img"


def _show(here: tuple[str, ...], steps: tuple[Step, ...]) -> None:
    for line in (*(f"# here it would be refused: {one}" for one in here), *write_script(steps)):
        typer.echo(line)


def _perform(work: Path) -> Perform:
    shown: set[str] = set()

    def perform(says: str, command: Command) -> None:
        if says not in shown:
            shown.add(says)
            console.print(f"[bold]{escape(says)}[/]")
        program = Path(command.argv[0]).name
        run_step(
            program,
            command.argv,
            log=work / "log" / f"{program}.log",
            cwd=Path(command.folder) if command.folder else PROJECT,
            environ=command.environ,
            hidden=command.secrets,
        )

    return perform


def _inquiry() -> Inquiry:
    return Inquiry(os.environ, ask=lambda text: input(text) if sys.stdin.isatty() else "", fetch=_fetch)


def _fetch(command: Command) -> None:
    run_step(f"fetch {command.argv[-1]}", command.argv, log=Place().build / "log" / "fetch.log")


if __name__ == "__main__":
    run_program(app)
