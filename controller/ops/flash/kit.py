"""
The kit that flashes boards without this checkout and without a network: NVIDIA's images, a script, and how to use them.

`python -m controller.ops.flash.kit FOLDER …` makes the small files; what copies, sums and packs is a step of the plan.
"""

import shlex
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from controller.ops.flash.boards import Board, Release, choose_board, choose_release, read_boards
from controller.ops.flash.commands import Step, run
from controller.ops.flash.plan import Order
from controller.ops.steps import run_program
from controller.units import GIB

SETTINGS: Final = "board.env"
HOW_TO: Final = "HOW-TO.txt"
SUMS: Final = "SHA256SUMS"

_HOW_TO: Final = """\
Flash {title}
with Windlass {version} on NVIDIA Jetson Linux {l4t}

You need: a PC with Ubuntu {hosts} (64 bit, no virtual machine), a USB cable that carries data,
and in the board an NVMe disk of {disk} or more. Everything on that disk, and the board's firmware, is overwritten.
No network is needed, apart from packages that are missing on the PC; the script names them.

1. Compare the archive with its checksum:   sha256sum --check {archive}.sha256
2. Unpack it:                               tar xf {archive}
3. Cut the board's power. Connect its pins FC REC and GND (a developer kit for AGX has a button instead),
   plug the cable into the board's USB-C port, and give it power.
4. In the unpacked folder:                  sudo ./flash
   It compares every file, looks for the board, asks once, and writes. Leave the cable alone meanwhile.
5. Take the connection off the pins and cut and give power again. The first start takes some minutes;
   it shows the address and the API key on the screen.

The same folder flashes any number of boards of this kind, one after the other.
NVIDIA's files in it come under NVIDIA's licence, which does not let everybody pass them on.
"""


def kit_name(order: Order) -> str:
    """Return what a kit is called."""
    return f"windlass-{order.version}-{order.board.name}-l4t-{order.release.version}"


def pack(order: Order, out: PurePosixPath) -> Step:
    """Return the step that makes a kit of the images that NVIDIA's tool has made."""
    name = kit_name(order)
    kit, archive = out / name, f"{name}.tar"
    images = f"mfi_{order.board.config}.tar.gz"
    told = ("--boards", order.boards, "--board", order.board.name, "--l4t", order.release.version, "--version", order.version)
    summed = 'cd "$1" && sha256sum -- * >.sums && mv .sums "$2"'
    return Step(
        name="kit",
        says=f"pack {out / archive}",
        commands=(
            run("rm", "--recursive", "--force", kit, out / archive),
            run("install", "-d", "-m", "0755", kit),
            run("cp", "--reflink=auto", order.tree / images, kit / images),
            run("install", "-m", "0755", order.scripts / "kit-flash", kit / "flash"),
            run(order.python, "-m", "controller.ops.flash.kit", kit, *told),
            run("sh", "-euc", summed, "sums", kit, SUMS),
            run("tar", "--create", f"--file={archive}", "--owner=0", "--group=0", name, folder=out),
            run("sh", "-euc", 'sha256sum "$1" >"$1.sha256"', "sum", archive, folder=out),
            run("rm", "--recursive", "--force", kit),
        ),
        inputs=(order.version,),
    )


def write_settings(board: Board) -> str:
    """Write what the kit's script reads about its board, as a shell reads it."""
    values = {"TITLE": board.title, "CONFIG": board.config, "USB": " ".join(board.usb)}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def write_how_to(board: Board, release: Release, *, version: str, archive: str) -> str:
    """Write what a person does with the kit."""
    return _HOW_TO.format(
        title=board.title,
        version=version,
        l4t=release.version,
        hosts=" or ".join(release.hosts),
        disk=f"{board.disk_bytes // GIB} GiB",
        archive=archive,
    )


app: Final = typer.Typer(add_completion=False)


@app.command()
def write(
    kit: Annotated[Path, typer.Argument(help="the kit's folder")],
    boards: Annotated[Path, typer.Option(help="the folder that describes boards and releases")],
    board: Annotated[str, typer.Option(help="the board's name")],
    l4t: Annotated[str, typer.Option(help="NVIDIA's release")],
    version: Annotated[str, typer.Option(help="our own release")],
) -> None:
    """Write a kit's settings and its how-to."""
    chosen, release = choose_board(read_boards(boards), board), choose_release(boards, l4t)
    (kit / SETTINGS).write_text(write_settings(chosen), encoding="utf-8")
    (kit / HOW_TO).write_text(write_how_to(chosen, release, version=version, archive=f"{kit.name}.tar"), encoding="utf-8")


if __name__ == "__main__":
    run_program(app)
