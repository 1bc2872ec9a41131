"""
What RAUC, the updater of every kind of box, is told: its configuration on the box, a bundle's manifest, the commands. Pure.

A bundle holds one root file system; it goes into the slot that does not run. Its signature covers a tree of hashes (`verity`), so
that every block is checked as it is read, and a bundle on a stick cannot be changed between the check and the copy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

GRUB: Final = "grub"
PLATFORM: Final = "platform"
"""The boot loader of a board that counts starts itself, and is asked through its own tool."""
GRUB_ENVIRONMENT: Final = "/boot/efi/EFI/BOOT/grubenv"
PARTITIONS: Final = {GRUB: ("root-a", "root-b"), PLATFORM: ("APP", "APP_b")}
"""
The two slots, by the names of their partitions: our own layout, and the one that NVIDIA's flash tools lay.

A rule of the box's package makes links of these names for the disk that the box runs from, and for no other.
"""
IMAGE_NAME: Final = "root.ext4"
MODELS_FOLDER: Final = "models"
FIRST_CHOICE: Final = ("ORDER=A B", "A_OK=1", "A_TRY=0", "A_SURE=1", "B_OK=0", "B_TRY=0", "B_SURE=0")
"""What GRUB's environment says on a new disk: slot A, whose system has nobody to fall back to."""
LEVEL: Final = 3
"""How hard a bundle is compressed. Most of it is compressed already; harder takes minutes and saves a twentieth."""


def boot_loader(target: str) -> str:
    """Say who starts a kind of box."""
    return PLATFORM if target.startswith("jetson-") else GRUB


def system_configuration(target: str, *, compatible: str, revokes: bool = False) -> str:
    """Write `/etc/rauc/system.conf` for a kind of box; with a keyring that says which keys were revoked, that is looked at."""
    loader = boot_loader(target)
    chosen = ["bootloader=grub", f"grubenv={GRUB_ENVIRONMENT}"] if loader == GRUB else ["bootloader=custom"]
    handlers = ["pre-install=/usr/lib/windlass/rauc-before", "post-install=/usr/lib/windlass/rauc-after"]
    if loader == PLATFORM:
        handlers.append("bootloader-custom-backend=/usr/lib/windlass/rauc-nvbootctrl")
    lines = [
        "[system]",
        f"compatible={compatible}",
        *chosen,
        "bundle-formats=verity",
        "data-directory=/var/lib/windlass/update/rauc",
        "mountprefix=/run/rauc",
        "",
        "[keyring]",
        "path=/etc/rauc/keyring.pem",
        "# A box on a shelf may have no idea what time it is: what counts is when the bundle was signed.",
        "use-bundle-signing-time=true",
        *(("check-crl=true",) if revokes else ()),
        "",
        "[handlers]",
        *handlers,
    ]
    for index, (name, partition) in enumerate(zip("AB", PARTITIONS[loader], strict=True)):
        lines += ["", f"[slot.rootfs.{index}]", f"device=/dev/windlass/{partition}", "type=ext4", f"bootname={name}"]
    return "\n".join(lines) + "\n"


def manifest(*, compatible: str, version: str) -> str:
    """Write the manifest of a bundle."""
    return "\n".join([
        "[update]",
        f"compatible={compatible}",
        f"version={version}",
        "",
        "[bundle]",
        "format=verity",
        "",
        "[image.rootfs]",
        f"filename={IMAGE_NAME}",
        "",
    ])  # fmt: skip


def bundle_argv(folder: Path, bundle: Path, *, signer: str, key: str, trusted: Path, target: str) -> list[str]:
    """
    Sign what lies in a folder and make one file of it.

    Args:
        folder: manifest, root file system, and whatever else travels along.
        bundle: the file.
        signer: the certificate that the key belongs to.
        key: a file, or a `pkcs11:` address of a key that never leaves its token.
        trusted: what boxes trust; the bundle is checked against it as soon as it is made.
        target: the kind of box. NVIDIA's kernels are not known to read anything but gzip.

    """
    compression = "gzip" if boot_loader(target) == PLATFORM else f"zstd -Xcompression-level {LEVEL}"
    return [
        "rauc",
        f"--cert={signer}",
        f"--key={key}",
        f"--keyring={trusted}",
        f"--mksquashfs-args=-comp {compression}",
        "bundle",
        str(folder),
        str(bundle),
    ]


def name_version(os_release: str, *, version: str) -> str:
    """Add to `os-release` which version of which image this is, for `update` to compare."""
    kept = [line for line in os_release.splitlines() if not line.startswith(("IMAGE_ID=", "IMAGE_VERSION="))]
    return "\n".join([*kept, "IMAGE_ID=windlass", f"IMAGE_VERSION={version}", ""])


def shrink_argv(image: Path) -> Sequence[list[str]]:
    """Make a root file system as small as what it holds: what is not there need not be written."""
    return (["e2fsck", "-f", "-y", str(image)], ["resize2fs", "-M", str(image)])
