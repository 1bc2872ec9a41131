"""The command lines that make an operating system image. Pure: lists of arguments, nothing is run here."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import UUID

from controller.ops.appliance.layout import Partition
from controller.ops.appliance.target import UEFI_LOADERS, BoxTarget
from controller.units import GIB, MIB

GRUB_MODULES: Final = (
    "part_gpt", "fat", "ext2", "normal", "configfile", "loadenv", "test", "echo", "regexp", "linux", "gzio", "minicmd",
    "sleep", "reboot", "halt", "efi_gop", "all_video", "serial", "terminal", "probe", "ls", "cat",
)  # fmt: skip
"""What the boot loader can do; it reads nothing further from the disk."""
IMAGES_LEVEL: Final = 9
"""How hard images are compressed: twice as hard takes thirty times as long, for a tenth."""
BLOCK_BYTES: Final = 4096
LARGEST_BYTES: Final = 4096 * GIB
"""To what a file system that grows can do so while it is mounted, without being laid out anew."""
JOURNAL_MIB: Final = 64
"""Of a file system that is small when it is made, and grows: its journal stays as it was made, and is that of a large one."""
NEW_FEATURES: Final = ("^metadata_csum_seed", "^orphan_file")
"""Of ext4: newer than some boot loaders that must read it."""
LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
"""What no appliance reads."""
UNWANTED_UNITS: Final = (
    "apparmor.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service",
    "grub-common.service", "sshd-keygen.service", "ssh.socket", "systemd-networkd-wait-online.service",
    "systemd-firstboot.service",
)  # fmt: skip
"""
What would write into a system that cannot be written, wait for what need not come, or load profiles of programs that are not
here: the engine loads the one for its containers itself.
"""
WANTED_UNITS: Final = (
    "ssh.service", "docker.service", "containerd.service", "systemd-networkd.service", "systemd-resolved.service",
    "systemd-timesyncd.service", "fstrim.timer", "windlass-first-boot.service", "windlass-welcome.service",
    "windlass-confirm.service", "windlass-trial.service",
)  # fmt: skip


def system_argv(target: BoxTarget, packages: Sequence[str], archive: Path, *, mirror: str = "") -> list[str]:
    """Make a Debian system from its packages, as an archive."""
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--architectures={target.architecture}",
        f"--components={','.join(target.components)}",
        f"--include={','.join([*packages, target.kernel])}",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Languages "none"',
        target.suite,
        str(archive),
        *([mirror] if mirror else []),
    ]


def unpack_argv(archive: Path, root: Path) -> list[str]:
    """Unpack a system into a folder."""
    return [
        "tar", "--extract", f"--file={archive}", f"--directory={root}", "--numeric-owner", "--preserve-permissions",
        "--xattrs", "--xattrs-include=*", "--acls",
    ]  # fmt: skip


def overlay_argv(tree: Path, root: Path) -> list[str]:
    """Lay files over a system; they are root's."""
    return ["cp", "--recursive", "--no-dereference", "--preserve=links", "--no-target-directory", str(tree), str(root)]


def inside_argv(root: Path, *argv: str) -> list[str]:
    """Run a command in the tree, on whatever the tree's own programs are."""
    return ["chroot", str(root), *argv]


def units_argv(root: Path, verb: str, units: Sequence[str]) -> list[str]:
    """Enable or mask units of the tree."""
    return ["systemctl", f"--root={root}", "--quiet", verb, *units]


def filesystem_argv(
    image: Path, tree: Path, *, label: str, size_bytes: int, uuid: UUID, journal: bool, inode_bytes: int = 16384
) -> list[str]:
    """
    Make an ext4 file system that holds a tree, in a file, without mounting it.

    Args:
        image: the file.
        tree: what lies in it.
        label: the file system's name.
        size_bytes: how large it is.
        uuid: its identifier; the seed of its folders' hashes, too.
        journal: it is written to. What is only read needs none, and nothing has to be replayed.
        inode_bytes: one file is expected for so many bytes.

    """
    growth = f",resize={LARGEST_BYTES // BLOCK_BYTES}" if journal else ""
    features = [*([] if journal else ["^has_journal"]), *NEW_FEATURES]
    return [
        "mke2fs",
        "-q",
        "-t", "ext4",
        "-O", ",".join(features),
        "-E", f"hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0{growth}",
        "-b", str(BLOCK_BYTES),
        "-i", str(inode_bytes),
        "-m", "0",
        *(["-J", f"size={JOURNAL_MIB}"] if journal else []),
        "-L", label,
        "-U", str(uuid),
        "-d", str(tree),
        str(image),
        f"{size_bytes // 1024}k",
    ]  # fmt: skip


def esp_argv(image: Path, size_bytes: int, *, volume: str) -> list[str]:
    """Make an empty FAT file system in a file; *volume* is its serial number, eight hexadecimal digits."""
    return ["mkfs.vfat", "-C", "-F", "32", "-n", "WINDLASS", "-i", volume, "--invariant", str(image), str(size_bytes // 1024)]


def folders_argv(image: Path, *folders: str) -> list[str]:
    """Make folders in a FAT file system."""
    return ["mmd", "-i", str(image), *(f"::/{folder}" for folder in folders)]


def put_argv(image: Path, source: Path, inside: str) -> list[str]:
    """Copy a file into a FAT file system."""
    return ["mcopy", "-i", str(image), "-o", str(source), f"::/{inside}"]


def loader_argv(target: BoxTarget, output: Path, *, modules: PurePosixPath | Path) -> list[str]:
    """Make the boot loader: one file with all that it needs, which reads `/EFI/BOOT/grub.cfg` beside it."""
    platform, _ = UEFI_LOADERS[target.architecture]
    return [
        "grub-mkimage",
        f"--directory={modules}",
        f"--format={platform}",
        "--prefix=/EFI/BOOT",
        f"--output={output}",
        *GRUB_MODULES,
    ]


def choice_argv(file: Path, values: Sequence[str]) -> list[str]:
    """Write the boot loader's choice of system; an empty list makes the file."""
    return ["grub-editenv", str(file), *(["set", *values] if values else ["create"])]


def place_argv(image: Path, disk: Path, part: Partition) -> list[str]:
    """Copy a partition's content to its place on the disk, leaving holes as holes."""
    assert part.start_bytes % MIB == 0  # as the layout lays it
    return [
        "dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={part.start_bytes // MIB}", "conv=sparse,notrunc", "status=none",
    ]  # fmt: skip


def archive_argv(tags: Sequence[str], archive: Path) -> list[str]:
    """Write images into one compressed archive, in which what they share lies once; a shell, since two programs do it."""
    script = f'"${{@:2}}" | zstd -T0 -{IMAGES_LEVEL} --quiet --force -o "$1"'
    return ["bash", "-euo", "pipefail", "-c", script, "archive", str(archive), "docker", "save", *sorted(tags)]
