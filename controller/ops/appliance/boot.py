"""
Start an image in a virtual machine, its serial line on the terminal: `python -m controller.ops.appliance.boot qemu-amd64`.

What is written goes into a layer over the image and is forgotten when the next machine starts, unless it is to be kept.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.ops.appliance import commands, layout
from controller.ops.appliance.machine import (
    FIRMWARE,
    TRIAL_SECTOR,
    TRIAL_STATUS,
    Machine,
    layer_argv,
    machine_argv,
    newest,
    trial_argv,
    write_argv,
)
from controller.ops.appliance.target import BoxTarget, load_target
from controller.ops.release import PROJECT
from controller.ops.steps import StepError, console, run_program, run_step
from controller.units import GIB, MIB, format_bytes

KVM: Final = Path("/dev/kvm")
TRIAL_WITHIN_S: Final = 5.0
DISK_BYTES: Final = 16 * GIB
"""Larger than the image, as a real disk is; the file takes what is written."""
MEMORY_MIB: Final = 3072


def choose_accelerator(*, architecture: str, environ: Mapping[str, str]) -> str:
    """
    Say whether the machine may use KVM: asked for by `ACCEL=`, or found out by a trial that may take a few seconds.

    There are machines on which the device is there, opens, and then nothing ever runs.
    """
    if wanted := environ.get("ACCEL"):
        return wanted
    if architecture != "amd64" or os.uname().machine != "x86_64" or not os.access(KVM, os.R_OK | os.W_OK):
        return "tcg"
    with tempfile.NamedTemporaryFile(suffix=".img") as sector:
        sector.write(TRIAL_SECTOR)
        sector.flush()
        try:
            tried = subprocess.run(trial_argv(Path(sector.name)), capture_output=True, check=False, timeout=TRIAL_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "tcg"
    return "kvm" if tried.returncode == TRIAL_STATUS else "tcg"


def prepare_disk(target: BoxTarget, folder: Path, *, keep: bool, keys: str) -> Path:
    """
    Lay a disk over the newest image, with keys on it of those who may log in.

    Raises:
        StepError: there is no image.

    """
    image = newest(list(folder.glob("windlass-*.img")))
    if image is None:
        raise StepError(f"there is no image in {folder}: make image TARGET={target.name}")
    run = folder / "run"
    run.mkdir(exist_ok=True)
    disk, based = run / "disk.qcow2", run / "disk.based"
    if keep and disk.exists() and based.exists() and based.read_text(encoding="utf-8") == image.name:
        return disk
    disk.unlink(missing_ok=True)
    log = run / "disk.log"
    size_bytes = max(DISK_BYTES, image.stat().st_size)
    run_step(f"a disk of {format_bytes(size_bytes)} over {image.name}", layer_argv(image, disk, size_bytes=size_bytes), log=log)
    if keys:
        esp = next(part for part in layout.partitions(target) if part.label == "esp")
        with tempfile.TemporaryDirectory() as work:
            file, content = Path(work) / "authorized_keys", Path(work) / "esp.vfat"
            file.write_text(keys, encoding="utf-8")
            run_step("the ESP", ["cp", "--sparse=always", str(folder / "esp.vfat"), str(content)], log=log)
            run_step("ssh keys of yours", commands.put_argv(content, file, "windlass/authorized_keys"), log=log)
            run_step("the ESP with them", write_argv(content, disk, esp), log=log)
    shutil.copyfile(FIRMWARE[target.architecture].variables, run / "variables.fd")
    based.write_text(image.name, encoding="utf-8")
    return disk


def own_keys(home: Path) -> str:
    """Read the public keys of whoever starts the machine."""
    return "".join(f"{file.read_text(encoding='utf-8').strip()}\n" for file in sorted((home / ".ssh").glob("id_*.pub")))


app = typer.Typer(add_completion=False)


@app.command()
def boot(
    name: Annotated[str, typer.Argument(help="The kind of box.")] = "qemu-amd64",
    port: Annotated[int, typer.Option(help="Where the gateway answers on this machine.")] = 8000,
    ssh_port: Annotated[int, typer.Option(help="Where sshd answers on this machine.")] = 2222,
    memory_mib: Annotated[int, typer.Option(help="How much memory the machine has.")] = MEMORY_MIB,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Go on with the disk of the last time.")] = False,
) -> None:
    """Start the newest image of a kind of box."""
    target = load_target(PROJECT, name)
    firmware = FIRMWARE[target.architecture]
    if shutil.which(firmware.program) is None or not firmware.code.exists():
        raise StepError(f"{firmware.program} or {firmware.code} is missing: images/setup.sh appliance installs them")
    folder = PROJECT / "build" / "appliance" / name
    disk = prepare_disk(target, folder, keep=keep, keys=own_keys(Path.home()))
    accelerator = choose_accelerator(architecture=target.architecture, environ=os.environ)
    machine = Machine(
        firmware=firmware,
        accelerator=accelerator,
        disk=disk,
        variables=folder / "run" / "variables.fd",
        port=port,
        ssh_port=ssh_port,
        memory_mib=memory_mib,
        cores=os.cpu_count() or 1,
    )
    slow = "" if accelerator == "kvm" else " Without KVM every instruction is translated: the first start takes some minutes."
    console.print(f"  {format_bytes(memory_mib * MIB)} of memory, {accelerator}.{slow}")
    console.print(
        f"  The gateway will be at http://127.0.0.1:{port}, ssh at port {ssh_port}; its API key appears below. Ctrl-A X ends it."
    )
    os.execvp(machine.firmware.program, machine_argv(machine))  # noqa: S606 -- it takes this terminal over


if __name__ == "__main__":
    run_program(app)
