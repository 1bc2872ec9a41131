"""
Whether this machine can flash a board: NVIDIA's tools run on Ubuntu on x86-64, as root, over USB, IPv6 and NFS.

Reading is one function and deciding another, so that a dry run can say what would be refused.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ops.flash.boards import Release
from controller.ops.flash.recovery import UsbDevice, read_devices
from controller.units import GIB, format_bytes

NEEDED_BYTES: Final = 45 * GIB
"""The archives unpacked, two images of the root file system, and what is packed of them."""
MACHINE: Final = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """
    This machine, as far as flashing goes.

    Attributes:
        root: we may do everything.
        machine: its processor, as `uname -m` says.
        system: its distribution and release, such as `ubuntu 24.04`.
        free_bytes: on the disk of the working folder.
        ipv6: the kernel has it, and it is not switched off.
        contained: we run in a container, where NFS and USB need more than we can see.
        devices: NVIDIA's on the USB bus.
        mounts: what is mounted below the working folder.

    """

    root: bool
    machine: str
    system: str
    free_bytes: int
    ipv6: bool
    contained: bool
    devices: tuple[UsbDevice, ...]
    mounts: tuple[str, ...] = ()


def read_host(work: Path, *, slash: Path, usb: Path, machine: str) -> Host:
    """Look at this machine."""
    there = next(one for one in (work, *work.parents) if one.exists())
    ipv6 = slash / "proc/sys/net/ipv6/conf/all/disable_ipv6"
    return Host(
        root=os.geteuid() == 0,
        machine=machine,
        system=_system(slash / "etc/os-release"),
        free_bytes=shutil.disk_usage(there).free,
        ipv6=ipv6.is_file() and ipv6.read_text(encoding="ascii").strip() == "0",
        contained=(slash / ".dockerenv").exists(),
        devices=read_devices(usb),
        mounts=tuple(mounts_below(_lines(slash / "proc/self/mounts"), work)),
    )


def mounts_below(lines: Iterable[str], folder: Path) -> list[str]:
    """Return the mount points in *folder*, out of the kernel's table."""
    points = [line.split()[1].replace("\\040", " ") for line in lines if len(line.split()) > 1]
    return [one for one in points if Path(one).is_relative_to(folder)]


def find_problems(host: Host, release: Release, *, needed_bytes: int, any_host: bool = False) -> tuple[str, ...]:
    """
    Return what stands in the way, one sentence each.

    Args:
        host: the machine.
        release: NVIDIA's, which says on which hosts it is supported.
        needed_bytes: what is still to be written.
        any_host: a person says that another system than NVIDIA's will do.

    """
    found = []
    if not host.root:
        found.append("NVIDIA's tools want root, since a root file system holds files of many owners: run it with sudo")
    supported = [f"ubuntu {one}" for one in release.hosts]
    if not any_host and host.machine != MACHINE:
        found.append(f"NVIDIA's flashing tools are programs for {MACHINE}, and this machine is {host.machine}: take a PC")
    elif not any_host and host.system not in supported:
        found.append(
            f"NVIDIA supports flashing release {release.version} from {' and '.join(supported)}, "
            f"and this is {host.system or 'unknown'}; ANY_HOST=1 tries it nevertheless"
        )
    if host.free_bytes < needed_bytes:
        found.append(
            f"about {format_bytes(needed_bytes)} are needed for the work and {format_bytes(host.free_bytes)} are free; "
            "name a folder on a larger disk with WORK="
        )
    if not host.ipv6:
        found.append(
            "the board is reached over IPv6 on the USB cable, and this machine has it switched off (sysctl net.ipv6.conf.all)"
        )
    if host.mounts:
        found.append(f"{', '.join(host.mounts)} is still mounted from a run that was cut: umount it first, in the opposite order")
    return tuple(found)


def find_hints(host: Host) -> tuple[str, ...]:
    """Return what may go wrong and need not."""
    if host.contained:
        return ("this is a container, and NVIDIA's tool serves images over NFS by the machine's own kernel: do it outside",)
    return ()


def _system(file: Path) -> str:
    values = dict(line.split("=", 1) for line in _lines(file) if "=" in line)
    return f"{values.get('ID', '')} {values.get('VERSION_ID', '')}".replace('"', "").strip()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
