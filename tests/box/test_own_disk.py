"""Which disk is the box's own, where a stick carries partitions of the same names."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.stack import PROJECT

OWN_DISK = PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass" / "own-disk"
EARLY = PROJECT / "appliance" / "os" / "tree-uefi" / "etc" / "initramfs-tools" / "scripts" / "local-bottom" / "windlass"
NAMES = ("esp", "root-a", "root-b", "data")


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """Return what the kernel tells of two disks with the same partitions; the system runs from the second one's `root-a`."""
    folder = tmp_path / "facts"
    blocks, numbers = folder / "sys/class/block", folder / "sys/dev/block"
    for made in (blocks, numbers, folder / "proc/self"):
        made.mkdir(parents=True)
    for disk, major in {"sda": 8, "nvme0n1p": 259, "sdz": 65}.items():
        for number, name in enumerate(NAMES, start=1):
            part = folder / "sys/devices" / disk / "block" / disk / f"{disk}{number}"
            part.mkdir(parents=True)
            (part / "partition").write_text(f"{number}\n")
            (part / "uevent").write_text(f"DEVTYPE=partition\nPARTN={number}\nPARTNAME={name}\n")
            (blocks / part.name).symlink_to(part)
            (numbers / f"{major}:{number}").symlink_to(part)
        whole = folder / "sys/devices" / disk / "block" / disk
        (whole / "uevent").write_text("DEVTYPE=disk\n")
        (blocks / disk).symlink_to(whole)
    mounts = [
        "1 1 0:2 / / rw - rootfs rootfs rw",
        "21 1 259:2 / {place} ro - ext4 /dev/nvme0n1p2 ro",
        "22 21 8:4 / /media rw - ext4 x rw",
    ]
    (folder / "proc/self/mountinfo").write_text("\n".join(mounts).replace("{place}", str(tmp_path / "root")) + "\n")
    return folder


@pytest.mark.parametrize(
    ("name", "own"),
    [("nvme0n1p4", True), ("nvme0n1p1", True), ("nvme0n1p", False), ("sda4", False), ("sdz4", False), ("no", False)],
)
def test_only_the_disk_that_the_system_runs_from_is_its_own(facts: Path, name: str, own: bool) -> None:
    """Neither a stick of the same image nor another disk is, whatever its partitions are called."""
    environ = {**os.environ, "WINDLASS_FACTS": str(facts)}
    asked = subprocess.run([OWN_DISK, name, facts.parent / "root"], env=environ, capture_output=True, text=True, check=False)

    assert own == (asked.returncode == 0), asked.stderr


def test_a_system_that_runs_from_no_partition_has_no_disk_of_its_own(facts: Path) -> None:
    """In memory, or a volume over several disks."""
    environ = {**os.environ, "WINDLASS_FACTS": str(facts)}

    assert 0 != subprocess.run([OWN_DISK, "sda4"], env=environ, check=False).returncode


@pytest.mark.parametrize("has_data", [True, False])
def test_the_data_is_found_on_the_disk_that_the_system_was_found_on(facts: Path, tmp_path: Path, has_data: bool) -> None:
    """A stick with a partition `data` is no data partition, not even where the disk has none."""
    root, tools = tmp_path / "root", tmp_path / "tools"
    (root / "var/lib/windlass").mkdir(parents=True)
    tools.mkdir()
    for tool in ("e2fsck", "mount"):
        (tools / tool).write_text(f'#!/bin/sh\necho {tool} "$@" >>{tmp_path}/asked\n')
        (tools / tool).chmod(0o755)
    if not has_data:
        (facts / "sys/class/block/nvme0n1p4").resolve().joinpath("uevent").write_text("PARTN=4\nPARTNAME=other\n")
    (tmp_path / "asked").touch()
    text = EARLY.read_text().replace("/sys/class", f"{facts}/sys/class").replace("/usr/lib/windlass/own-disk", str(OWN_DISK))
    environ = {"PATH": f"{tools}:{os.environ['PATH']}", "WINDLASS_FACTS": str(facts), "rootmnt": str(root)}
    done = subprocess.run(["sh", "-c", text], env=environ, capture_output=True, text=True, check=False)

    home = root / "var/lib/windlass"
    found = ["e2fsck -p /dev/nvme0n1p4", f"mount -t ext4 -o noatime /dev/nvme0n1p4 {home}"] if has_data else []
    assert found == (tmp_path / "asked").read_text().splitlines()[: len(found) or None]
    assert 0 == done.returncode, done.stderr
    assert has_data == ("no partition named data" not in done.stdout)
