#!/usr/bin/env -S python3 -IS
"""
Stand in for four of NVIDIA's programs, whichever name this is called by.

Options, order and refusals are those of release 39.2. Each call is written down beside the tree, and whatever the real program
would stumble over ends this one with a sentence and a status other than 0. Runs alone, with nothing but Python's own library.
"""

import argparse
import json
import os
import re
import shutil
import struct
import sys
import xml.etree.ElementTree as ET  # what is read was written by the test
from pathlib import Path
from typing import NoReturn

TREE = Path(__file__).resolve().parent
ROOT = TREE / "rootfs"
BOOTLOADER = TREE / "bootloader"
RECOVERY = {"7023", "7223", "7323", "7423", "7523", "7623", "7026", "7226", "7326"}
FACTOR = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DISK_BYTES = 57 * 2**30


def _stop(text: str, code: int = 1) -> NoReturn:
    sys.stdout.write(f"ERROR {text}\n")
    sys.exit(code)


def _note(name: str, argv: list[str]) -> None:
    kept = ("USER", "ROOTFS_AB", "ROOTFS_RETRY_COUNT_MAX", "ADDITIONAL_DTB_OVERLAY_OPT", "BOARDID", "BOARDSKU", "FAB")
    environ = {key: os.environ[key] for key in kept if key in os.environ}
    with (TREE.parent / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"tool": name, "argv": argv, "environ": environ}) + "\n")


def _check_caller() -> None:
    if os.geteuid() != 0:
        _stop("This script requires root privilege")
    if os.environ.get("USER") != "root":
        _stop("requires root privilege", 207)
    if Path.cwd() != TREE:
        _stop(f"wanted to be called in {TREE}, was called in {Path.cwd()}")
    cut = os.environ.get("STANDIN_CUT", "")
    if cut == Path(sys.argv[0]).name:
        if cut == "apply_binaries.sh":
            (ROOT / "dev").mkdir(exist_ok=True)
            (ROOT / "dev" / "random").touch()
        sys.stdout.write("cut\n")
        os.kill(os.getpid(), 9)


def _prerequisites(argv: list[str]) -> None:
    if argv:
        _stop(f"unknown arguments {argv}")
    (TREE / ".prerequisites").touch()


def _apply_binaries(argv: list[str]) -> None:
    if argv:
        _stop(f"Terminating... wrong switch: {argv}")
    if not (ROOT / "etc" / "passwd").is_file():
        _stop("The root filesystem, provided with this package, has to be extracted to this directory")
    if (ROOT / "etc" / "passwd").stat().st_uid != 0:
        _stop("The root filesystem has to be extracted with 'sudo'")
    if not (TREE / ".prerequisites").is_file():
        _stop("qemu-aarch64-static not found!")
    if (ROOT / "dev" / "random").exists():
        _stop("mknod: rootfs/dev/random: File exists")
    (ROOT / "etc" / "nv_tegra_release").write_text("# R39 (release), REVISION: 2.1\n", encoding="ascii")
    sys.stdout.write("Success!\n")


def _create_user(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-u", "--username", default="nvidia")
    parser.add_argument("-p", "--password", default="")
    parser.add_argument("-n", "--hostname", default="tegra-ubuntu")
    parser.add_argument("-a", "--autologin", action="store_true")
    parser.add_argument("--accept-license", action="store_true")
    given = parser.parse_args(argv)
    if not given.accept_license:
        _stop("the licence was not accepted")
    if not (TREE / "Tegra_Software_License_Agreement-Tegra-Linux.txt").is_file():
        _stop("Cannot find the Tegra software license agreement")
    if not (ROOT / "etc" / "nv_tegra_release").is_file():
        _stop("apply_binaries.sh has not run")
    passwd = ROOT / "etc" / "passwd"
    if f"\n{given.username}:" in passwd.read_text(encoding="ascii"):
        _stop(f"useradd: user '{given.username}' already exists", 9)
    with passwd.open("a", encoding="ascii") as file:
        file.write(f"{given.username}:x:1000:1000::/home/{given.username}:/bin/bash\n")
    with (ROOT / "etc" / "group").open("a", encoding="ascii") as file:
        file.write(f"{given.username}:x:1000:\n")
    (ROOT / "home" / given.username).mkdir(parents=True)
    (ROOT / "etc" / "systemd" / "system" / "default.target").unlink(missing_ok=True)
    sys.stdout.write(
        f"Creating: Username - {given.username}, Password - {given.password}, Autologin - {str(given.autologin).lower()}\n"
    )


def _parse_flash(argv: list[str]) -> argparse.Namespace:
    """Read options as the shell's getopts does: a word behind an option is its value, whatever it looks like."""
    given = argparse.Namespace(c="", S="", p="", external_device="", network="", massflash="", no_flash=False, flash_only=False)
    words = list(argv)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in {"-c", "-S", "-p", "--external-device", "--network", "--massflash"}:
            if not words:
                _stop(f"option {option} wants a value")
            setattr(given, option.lstrip("-").replace("-", "_"), words.pop(0))
        elif option in {"--no-flash", "--flash-only"}:
            setattr(given, option.lstrip("-").replace("-", "_"), True)
        elif option not in {"--showlogs", "--external-only", "--erase-all", "--append", "--reuse"}:
            _stop(f"unknown option {option}")
    if given.flash_only and len(words) == 1:
        words.append("")
    if len(words) != 2:
        _stop(f"wanted a board and a root device behind the options, got {words}")
    given.board, given.device = words
    return given


def _initrd_flash(argv: list[str]) -> None:
    given = _parse_flash(argv)
    if not (TREE / f"{given.board}.conf").is_file():
        _stop(f"{given.board}.conf: No such file or directory")
    if given.flash_only:
        _write(given)
        return
    if not re.fullmatch(r"internal|external|nvme\d+n\d+p\d+|mmcblk\dp\d+|sd[a-z]\d+", given.device):
        _stop(f"{given.device} is not a supported root device")
    if given.network != "usb0":
        _stop("This configuration is no longer supported", 3)
    _check_storage(given)
    _check_root()
    if given.no_flash:
        found = _devices()
        if not (os.environ.get("BOARDID") and os.environ.get("BOARDSKU")) and len(found) != 1:
            _stop("No devices to flash")
        _make_package(given)
        return
    _write(given)


def _write(given: argparse.Namespace) -> None:
    found = _devices()
    if not found:
        _stop("No devices to flash")
    if len(found) > 1:
        _stop("Error, too many devices in RCM mode")
    flashed = {"board": given.board, "device": given.device, "product": found[0], "root": given.S}
    (TREE.parent / "flashed.json").write_text(json.dumps(flashed), encoding="ascii")
    sys.stdout.write("Flash is successful\n")


def _check_storage(given: argparse.Namespace) -> None:
    if given.c and not given.external_device:
        _stop("-c and --external-device must be specified together", 2)
    if not re.fullmatch(r"nvme[0-9]+n[0-9]+(p[0-9]+)?", given.external_device):
        _stop(f"{given.external_device} is not a supported external storage device", 208)
    for option in re.findall(r"-c (\S+)", given.p):
        if not (TREE / option).is_file():
            _stop(f"{option}: No such file or directory")
    disk = ET.parse(TREE / given.c).getroot().find("device[@type='external']")  # noqa: S314 # see the import
    if disk is None:
        _stop(f"{given.c} is the layout of no external disk")
    parts = [(one.get("name", ""), {part.tag: (part.text or "").strip() for part in one}) for one in disk.iter("partition")]
    _check_layout(parts, _size(given.S))


def _check_layout(parts: list[tuple[str, dict[str, str]]], root_bytes: int) -> None:
    names = [name for name, _ in parts]
    if "APP_b" in names and os.environ.get("ROOTFS_AB") != "1":
        _stop("APP_b has no image: ROOTFS_AB is not set")
    if names[-1] != "secondary_gpt":
        _stop("the second partition table is not the last one")
    words = {"APPSIZE": root_bytes, "RECSIZE": 2**28, "0xFFFFFFFFFFFFFFFF": 0}
    total_bytes = sum(words[part["size"]] if part["size"] in words else int(part["size"], 0) for _, part in parts)
    if total_bytes > DISK_BYTES:
        _stop(f"the layout takes {total_bytes} bytes of a disk of {DISK_BYTES}")
    for name, part in parts:
        if int(part["allocation_attribute"], 0) & 0x800 and name != names[-2]:
            _stop(f"{name} is to take the rest of the disk, but something lies behind it")
        _check_file(name, part)


def _size(text: str) -> int:
    size = re.fullmatch(r"(\d+)(KiB|MiB|GiB)?", text or "27GiB")
    if not size:
        _stop(f"{text} is no size")
    return int(size[1]) * FACTOR[size[2] or ""]


def _check_file(name: str | None, part: dict[str, str]) -> None:
    file = part.get("filename", "")
    if not file or file.isupper() or re.fullmatch(r"[A-Z_-]+(_b)?", file):
        return  # a word that NVIDIA's tool replaces
    path = BOOTLOADER / file
    if not path.is_file():
        _stop(f"image for partition {name} is not found at {path}")
    if path.stat().st_size > int(part["size"], 0):
        _stop(f"file {path} size is bigger than partition {name}")
    with path.open("rb") as image:
        image.seek(1024)
        block = image.read(1024)
    if struct.unpack_from("<H", block, 0x38)[0] != 0xEF53 or block[0x78:0x88].rstrip(b"\0") != b"windlass-data":
        _stop(f"{path} holds no ext4 file system of ours")


def _check_root() -> None:
    for path, why in (
        ("etc/nv_tegra_release", "apply_binaries.sh has not run"),
        ("etc/systemd/system/default.target", "the first boot would start a desktop"),
        ("var/log/standin.log", "nothing of ours was installed"),
    ):
        there = ROOT / path
        if not (there.is_symlink() or there.exists()):
            _stop(f"rootfs/{path} is not there: {why}")
    if ":1000:" not in (ROOT / "etc" / "passwd").read_text(encoding="ascii"):
        _stop("rootfs has no user: the first boot would wait for somebody at a screen")


def _devices() -> list[str]:
    bus = Path(os.environ.get("STANDIN_USB", "/sys/bus/usb/devices"))
    ours = [one for one in bus.iterdir() if (one / "idVendor").is_file() and (one / "idVendor").read_text().strip() == "0955"]
    return [product for one in ours if (product := (one / "idProduct").read_text().strip()) in RECOVERY]


def _make_package(given: argparse.Namespace) -> None:
    if not given.massflash.isdigit():
        _stop("--massflash wants a number here")
    name = f"mfi_{given.board}"
    package = TREE / name
    (package / "tools" / "kernel_flash").mkdir(parents=True)
    shutil.copy(__file__, package / "standin")
    (package / "tools" / "kernel_flash" / "l4t_initrd_flash.sh").symlink_to("../../standin")
    shutil.copy(TREE / f"{given.board}.conf", package)
    shutil.make_archive(str(package), "gztar", root_dir=TREE, base_dir=name)


TOOLS = {
    "l4t_flash_prerequisites.sh": _prerequisites,
    "apply_binaries.sh": _apply_binaries,
    "l4t_create_default_user.sh": _create_user,
    "l4t_initrd_flash.sh": _initrd_flash,
}

if __name__ == "__main__":
    called = Path(sys.argv[0]).name
    _note(called, sys.argv[1:])
    _check_caller()
    TOOLS[called](sys.argv[1:])
