"""
What a board brings along of us: `python -m controller.ops.flash.payload FOLDER`, on a machine with the board's kind of processor.

The release of this checkout, and the images that `make images` made last in one archive, so that what they share is stored once.
The folder is carried to the machine that flashes, and named there with `PAYLOAD=`.
"""

import platform
import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.errors import ConfigError
from controller.ops.images import read_tags
from controller.ops.release import PROJECT, find_version, write_release
from controller.ops.steps import console, run_program, run_step

RELEASE: Final = "release"
IMAGES: Final = "images"
MACHINE: Final = "machine"
BOARDS_MACHINE: Final = "aarch64"
LEVEL: Final = 12
"""Of the compression: NVIDIA's tool packs the root file system once more, and the disk is read slower than this is unpacked."""


def archive_argv(images: list[str], archive: Path) -> list[str]:
    """Build the command that writes images into one compressed file; a shell, since two programs do it."""
    pack = f'docker save -- "${{@:2}}" | zstd -T0 -{LEVEL} --quiet --force -o "$1"'
    return ["bash", "-euo", "pipefail", "-c", pack, "archive", str(archive), *sorted(images)]


def check_payload(folder: Path) -> None:
    """
    Refuse a folder that no board could start from.

    Raises:
        ConfigError: a part is missing, or the images are for other processors.

    """
    problems = [f"{folder} holds no {one}" for one in (f"{RELEASE}/release.env", MACHINE) if not (folder / one).is_file()]
    if not any((folder / IMAGES).glob("*.tar.zst")):
        problems.append(f"{folder / IMAGES} holds no archive of images, so the board could not start its release")
    if problems:
        raise ConfigError([*problems, "make it with `python -m controller.ops.flash.payload FOLDER`"])
    if (machine := (folder / MACHINE).read_text(encoding="ascii").strip()) != BOARDS_MACHINE:
        raise ConfigError(
            [f"the images in {folder} are for {machine}, and the board is {BOARDS_MACHINE}: make them on such a machine"]
        )


app: Final = typer.Typer(add_completion=False)


@app.command()
def make(folder: Annotated[Path, typer.Argument(help="where it goes; an earlier one is replaced")]) -> None:
    """Write the release of this checkout and its images into a folder: a new one, an empty one, or one of an earlier time."""
    if folder.exists() and not (folder / RELEASE / "release.env").is_file() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} holds other things than a payload, and would be replaced: name another folder")
    tags = read_tags(PROJECT / "build" / "images.env")
    version = find_version()
    shutil.rmtree(folder, ignore_errors=True)
    write_release(folder / RELEASE, version=version, tags=tags)
    (folder / IMAGES).mkdir()
    images = [tag for name, tag in tags.items() if name.startswith("WINDLASS_IMAGE_")]
    log = PROJECT / "build" / "flash" / "log" / "payload.log"
    run_step(f"release {version}: {len(images)} images", archive_argv(images, folder / IMAGES / "images.tar.zst"), log=log)
    (folder / MACHINE).write_text(f"{platform.machine()}\n", encoding="ascii")
    console.print(f"{folder} holds release {version} for {platform.machine()}")


if __name__ == "__main__":
    run_program(app)
