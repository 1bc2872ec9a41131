"""The command lines that start an image in a virtual machine. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ops.appliance.layout import Partition

GATEWAY_PORT: Final = 8000
SSH_PORT: Final = 22
TRIAL_CODE: Final = 0x10
TRIAL_STATUS: Final = TRIAL_CODE << 1 | 1
"""With what QEMU ends when the trial sector has run: its exit device shifts what is written there."""
_EXIT_PORT: Final = 0xF4
_CPU_OF_KVM: Final = "host"
"""The trial's, too: there are machines whose KVM runs a plain processor, slowly, and aborts over this one."""
TRIAL_SECTOR: Final = bytes([0xB0, TRIAL_CODE, 0xE6, _EXIT_PORT, 0xF4, 0xEB, 0xFD]).ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that writes one byte to the exit device, then halts: the smallest machine that shows whether one runs at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """
    What starts a virtual machine of one kind of processor.

    Attributes:
        program: QEMU's.
        machine: which of its boards.
        code: the UEFI itself.
        variables: what it remembers, to begin with.

    """

    program: str
    machine: str
    code: Path
    variables: Path


FIRMWARE: Final = {
    "amd64": Firmware(
        program="qemu-system-x86_64",
        machine="q35",
        code=Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        variables=Path("/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ),
    "arm64": Firmware(
        program="qemu-system-aarch64",
        machine="virt",
        code=Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
        variables=Path("/usr/share/AAVMF/AAVMF_VARS.fd"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """
    One virtual machine.

    Attributes:
        firmware: what it is.
        accelerator: `kvm`, or `tcg` where every instruction is translated.
        disk: a layer over the image.
        variables: the firmware's own copy of what it remembers.
        port: of this machine, at which the gateway answers.
        ssh_port: of this machine, at which sshd answers.
        memory_mib: how much memory it has.
        cores: how many processors it has.

    """

    firmware: Firmware
    accelerator: str
    disk: Path
    variables: Path
    port: int
    ssh_port: int
    memory_mib: int
    cores: int


def machine_argv(machine: Machine) -> list[str]:
    """Start it in the foreground, its serial line on the terminal; Ctrl-A X ends it."""
    watchdog = ["-device", "i6300esb", "-watchdog-action", "reset"] if machine.firmware.machine == "q35" else []
    return [
        machine.firmware.program,
        "-nodefaults",
        "-display", "none",
        "-serial", "mon:stdio",
        "-machine", machine.firmware.machine,
        "-accel", "kvm" if machine.accelerator == "kvm" else "tcg,thread=multi",
        "-cpu", _CPU_OF_KVM if machine.accelerator == "kvm" else "max",
        "-smp", str(machine.cores),
        "-m", str(machine.memory_mib),
        "-drive", f"if=pflash,format=raw,readonly=on,file={machine.firmware.code}",
        "-drive", f"if=pflash,format=raw,file={machine.variables}",
        "-drive", f"if=virtio,format=qcow2,discard=unmap,file={machine.disk}",
        "-netdev", f"user,id=net,{forward(machine.port, GATEWAY_PORT)},{forward(machine.ssh_port, SSH_PORT)}",
        "-device", "virtio-net-pci,netdev=net",
        "-device", "virtio-rng-pci",
        *watchdog,
    ]  # fmt: skip


def forward(port: int, inside: int) -> str:
    """Let a port of this machine, on loopback alone, lead to one of the virtual machine."""
    return f"hostfwd=tcp:127.0.0.1:{port}-:{inside}"


def layer_argv(image: Path, layer: Path, *, size_bytes: int) -> list[str]:
    """Make a disk that begins as the image and keeps what is written in a file of its own."""
    return ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "raw", str(layer), str(size_bytes)]


def write_argv(content: Path, layer: Path, part: Partition) -> list[str]:
    """Write a partition's content into a layer."""
    window = f"driver=raw,offset={part.start_bytes},size={part.size_bytes}"
    inside = f"file.driver=qcow2,file.file.driver=file,file.file.filename={layer}"
    return ["qemu-img", "convert", "-n", "-f", "raw", str(content), "--target-image-opts", f"{window},{inside}"]


def trial_argv(sector: Path) -> list[str]:
    """Start the trial sector with KVM; it ends at once with `TRIAL_STATUS` where KVM works."""
    return [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display", "none",
        "-accel", "kvm",
        "-cpu", _CPU_OF_KVM,
        "-m", "16",
        "-drive", f"format=raw,snapshot=on,file={sector}",
        "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1",
    ]  # fmt: skip


def newest(images: Sequence[Path]) -> Path | None:
    """Choose the image that was made last; `None` where there is none."""
    return max(images, key=lambda image: image.stat().st_mtime, default=None)
