"""The machine that the tests switch on, and the command that does it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FIRMWARE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
FIRMWARE_VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
DISK: Final = "disk"
"""The name of the machine's disk on the monitor."""
HTTP_INSIDE: Final = 8000
SSH_INSIDE: Final = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """
    What a machine is made of.

    Attributes:
        memory_mib: its memory.
        cores: its processors.
        serial_number: what its firmware says it is, which is where the host name comes from.
        accelerator: how the processors are made; by software, which works everywhere.
        watchdog: it has a timer that resets it when nobody touches it any more.

    """

    memory_mib: int = 3072
    cores: int = 2
    serial_number: str = "VM-0001"
    accelerator: str = "tcg,thread=multi"
    watchdog: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """
    What a machine is plugged into.

    Attributes:
        disk: the image it boots from, as QEMU's options for it.
        variables: the firmware's variables, the machine's own.
        folder: where its sockets and its log lie; the path must be short.
        http_port: of the loopback, leads to the gateway.
        ssh_port: of the loopback, leads to its SSH server.
        extra: more options.

    """

    disk: str
    variables: Path
    folder: Path
    http_port: int
    ssh_port: int
    extra: tuple[str, ...] = field(default=())

    @property
    def monitor(self) -> Path:
        """The socket of the monitor."""
        return self.folder / "monitor.sock"

    @property
    def serial(self) -> Path:
        """The socket of the serial line."""
        return self.folder / "serial.sock"

    @property
    def console(self) -> Path:
        """The file that everything goes to that was said on the serial line."""
        return self.folder / "console.log"


def argv(hardware: Hardware, wiring: Wiring) -> list[str]:
    """
    Build the command that switches a machine on.

    The network leads nowhere but to the two forwarded ports: what needs the internet fails here, as it does on a shelf.
    """
    forwards = [(wiring.http_port, HTTP_INSIDE), (wiring.ssh_port, SSH_INSIDE)]
    network = ",".join(f"hostfwd=tcp:127.0.0.1:{outside}-:{inside}" for outside, inside in forwards)
    return [
        *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35"),
        *("-accel", hardware.accelerator, "-cpu", "max", "-smp", str(hardware.cores), "-m", str(hardware.memory_mib)),
        *("-smbios", f"type=1,manufacturer=Windlass,product=Test,serial={hardware.serial_number}"),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={wiring.variables}"),
        *("-blockdev", f"node-name={DISK},{wiring.disk}"),
        *("-device", f"virtio-blk-pci,drive={DISK},bootindex=1"),
        *("-netdev", f"user,id=network,restrict=on,{network}"),
        *("-device", "virtio-net-pci,netdev=network,romfile="),
        *("-chardev", f"socket,id=serial,path={wiring.serial},server=on,wait=off,logfile={wiring.console},logappend=on"),
        *("-device", "isa-serial,chardev=serial"),
        *("-chardev", f"socket,id=monitor,path={wiring.monitor},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-device", "virtio-rng-pci"),
        *("-device", "qemu-xhci,id=usb"),
        *(("-device", "i6300esb", "-action", "watchdog=reset") if hardware.watchdog else ()),
        *wiring.extra,
    ]
