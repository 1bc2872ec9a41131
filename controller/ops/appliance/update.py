"""
Make an update of the operating system: `python -m controller.ops.appliance.update bundle qemu-amd64`.

One signed file holds the root file system that `make image` has made, with the release and its container images inside, and the
models that shall travel along. It goes to a box over ssh (`send`) or on a USB stick.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.ops.appliance import keys, rauc
from controller.ops.steps import StepError, console, run_program, run_step
from controller.units import GIB, format_bytes

PROJECT: Final = Path(__file__).resolve().parents[3]
TOOLS: Final = {"rauc": "rauc", "mksquashfs": "squashfs-tools", "resize2fs": "e2fsprogs", "openssl": "openssl"}
FAT_FILE_BYTES: Final = 4 * GIB - 1
"""The largest file on a stick as it comes from the shop."""
INCOMING: Final = "/var/lib/windlass/incoming"


def read_image(folder: Path) -> dict[str, Any]:
    """
    Read what `make image` wrote about the image that it made.

    Raises:
        StepError: there is none.

    """
    file = folder / "manifest.json"
    if not file.is_file():
        raise StepError(f"there is no image in {folder}: make image TARGET={folder.name}")
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made


def make_bundle(project: Path, target: str, *, trusted: keys.Keys, models: Path | None) -> Path:
    """
    Make a bundle of the image that was made last for a kind of box.

    Args:
        project: the checkout.
        target: the kind of box.
        trusted: what it is signed with.
        models: a folder that `windlass bundle export` has written; its models are taken in before the system is.

    """
    folder = project / "build" / "appliance" / target
    made = read_image(folder)
    bundle = folder / f"windlass-{made['version']}-{target}.raucb"
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=folder) as work:
        content = Path(work)
        image = content / rauc.IMAGE_NAME
        _run("copy of the root file system", ["cp", "--sparse=always", str(folder / made["root_image"]), str(image)], project)
        for argv in rauc.shrink_argv(image):
            _run("root file system, as small as it is", argv, project)
        if models is not None:
            _run("models", ["cp", "--recursive", "--dereference", str(models), str(content / rauc.MODELS_FOLDER)], project)
        text = rauc.manifest(compatible=made["compatible"], version=made["version"])
        (content / "manifest.raucm").write_text(text, encoding="utf-8")
        pack(content, bundle, trusted=trusted, target=target, log=project / "build" / "logs" / f"update-{target}.log")
    return bundle


def pack(content: Path, bundle: Path, *, trusted: keys.Keys, target: str, log: Path) -> None:
    """Sign a folder with a manifest and make one file of it; a file of that name is replaced when the new one is whole."""
    if not trusted.signer or not trusted.key:
        raise StepError("a bundle is signed: name UPDATE_SIGNER and UPDATE_KEY beside UPDATE_CERT")
    arriving = bundle.with_name(f"{bundle.name}.arriving")
    arriving.unlink(missing_ok=True)
    argv = rauc.bundle_argv(content, arriving, signer=trusted.signer, key=trusted.key, trusted=trusted.trusted, target=target)
    run_step(f"signed bundle for {target}", argv, log=log)
    arriving.rename(bundle)


def send_argv(bundle: Path, host: str) -> tuple[list[str], list[str]]:
    """Copy a bundle to a box, going on where an earlier try was cut, and let the box install it."""
    there = f"{INCOMING}/{bundle.name}"
    return (
        ["rsync", "--partial-dir=.arriving", "--times", "--info=progress2", "--mkpath", str(bundle), f"{host}:{there}"],
        ["ssh", host, "/usr/lib/windlass/update", there],
    )


def _run(title: str, argv: list[str], project: Path) -> None:
    name = "-".join(title.split()[:3]).strip(",")
    run_step(title, argv, log=project / "build" / "logs" / f"update-{name}.log")


def _check_tools() -> None:
    if missing := sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None}):
        raise StepError(
            f"an update needs {', '.join(missing)}, which this machine lacks: images/setup.sh appliance installs them"
        )


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Updates of the operating system.")


@app.command("keys")
def make_keys() -> None:
    """Make an authority and a signing key for development; what is there stays."""
    _check_tools()
    folder = PROJECT / keys.FOLDER
    keys.make_keys(folder, log=PROJECT / "build" / "logs" / "update-keys.log")
    console.print(f"Images made here trust {folder.relative_to(PROJECT)}/authority.pem; a release trusts another: UPDATE_CERT=")


@app.command()
def bundle(
    target: Annotated[str, typer.Argument(help="The kind of box.")] = "qemu-amd64",
    models: Annotated[Path | None, typer.Option(help="A folder of `windlass bundle export` that travels along.")] = None,
) -> None:
    """Make a signed bundle of the image that was made last."""
    _check_tools()
    trusted = keys.ensure_keys(PROJECT, os.environ)
    made = make_bundle(PROJECT, target, trusted=trusted, models=models)
    size_bytes = made.stat().st_size
    console.print(f"  [green]update[/] {made.relative_to(PROJECT)}: {format_bytes(size_bytes)}")
    if size_bytes > FAT_FILE_BYTES:
        console.print("  It is too large for a stick with FAT32: format the stick with exFAT or ext4.", style="yellow")
    if trusted.development:
        console.print(keys.WARNING, style="yellow")


@app.command()
def send(host: str, file: Annotated[Path | None, typer.Argument()] = None, target: str = "qemu-amd64") -> None:
    """Bring a bundle to a box over ssh, the last one made if none is named, and install it."""
    if file is None:
        folder = PROJECT / "build" / "appliance" / target
        file = folder / f"windlass-{read_image(folder)['version']}-{target}.raucb"
    if not file.is_file():
        raise StepError(f"there is no bundle {file}: make update TARGET={target}")
    for argv in send_argv(file, host):
        if (status := subprocess.run(argv, check=False).returncode) != 0:
            raise StepError(f"{argv[0]} to {host} ended with status {status}; the same command goes on where it was")


if __name__ == "__main__":
    run_program(app)
