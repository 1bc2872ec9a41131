"""
What is done to make NVIDIA's tree into an appliance and to flash it, as a list of steps. Pure.

The order is NVIDIA's: unpack, prerequisites, binaries, user, then our own packages, images and models, then the board. The names
of tools and options are those of its release 39.
"""

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from controller.ops.flash.boards import Board, Release
from controller.ops.flash.commands import Command, Step, run
from controller.units import GIB, MIB

TREE: Final = "Linux_for_Tegra"
FLASH: Final = "./tools/kernel_flash/l4t_initrd_flash.sh"
OUR_LAYOUT: Final = "tools/kernel_flash/flash_windlass_ab.xml"
DATA_IMAGE: Final = "windlass-data.img"
DATA_LABEL: Final = "windlass-data"
DATA_BYTES: Final = 256 * MIB
DATA_FOLDERS: Final = ("etc", "journal", "system", "models")
"""What lies on the data partition from the beginning; everything else is made on the board."""
LARGEST_DATA_BLOCKS: Final = 4 * 1024 * GIB // 4096
"""How far the data's file system can ever grow: its tables of block groups are set aside when it is made."""
LARGE: Final = ("-b", "4096", "-i", "16384", "-m", "0", "-J", "size=64")
"""Of the data's file system, which is small when it is made: as one is made that is large from the beginning."""
RETRIES: Final = "3"
"""How often the firmware tries one root file system before it takes the other one."""
TARGET: Final = PurePosixPath("/usr/share/windlass")
"""Where a release and its images lie on the board until its first boot has loaded them."""
NETWORK: Final = PurePosixPath("/etc/systemd/network/80-windlass.network")
"""Of our own system's files the only one that a Jetson does without: NVIDIA's manages its network otherwise."""
INBOX: Final = PurePosixPath("/opt/windlass-setup")
"""Where files wait, inside the root file system, for the script that installs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file from outside, and the hash by which a changed one is noticed."""

    path: PurePosixPath
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """
    Who may log in on the board.

    Attributes:
        user: the name.
        password: for the console; never shown.
        keep_password: it may be used; without that it is locked, and only a key opens.
        keys: the file with the public keys; none where only the password is to open.

    """

    user: str
    password: str
    keep_password: bool = False
    keys: File | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    Everything one run is made of.

    Attributes:
        board: which.
        release: NVIDIA's.
        work: the folder that NVIDIA's tree is unpacked into.
        scripts: our own scripts, `appliance/flash`.
        overlay: the files of our own operating system, `appliance/os/tree`.
        scripts_sha256: by which a change of both is noticed.
        boards: the folder that describes boards, `appliance/boards`.
        python: the program that runs our modules.
        bsp: NVIDIA's tools.
        rootfs: NVIDIA's root file system.
        login: who may log in.
        package: our own Debian package.
        payload: a folder with `release/` and `images/` for `/usr/share/windlass`; none where a release is deployed later.
        version: of this checkout, for the names of what is made, and for updates to compare.

    """

    board: Board
    release: Release
    work: PurePosixPath
    scripts: PurePosixPath
    overlay: PurePosixPath
    scripts_sha256: str
    boards: PurePosixPath
    python: str
    bsp: File
    rootfs: File
    login: Login
    package: File
    payload: File | None
    version: str

    @property
    def tree(self) -> PurePosixPath:
        """NVIDIA's own folder."""
        return self.work / TREE

    @property
    def root(self) -> PurePosixPath:
        """The root file system of the board to be."""
        return self.tree / "rootfs"


def prepare(order: Order) -> tuple[Step, ...]:
    """Return the steps that need no board."""
    return (
        _unpack(order),
        _prerequisites(order),
        _binaries(order),
        _user(order),
        _system(order),
        _payload(order),
        _layout(order),
    )


def flash(order: Order) -> Step:
    """Return the step that writes the board's boot flash and its disk."""
    argv = (FLASH, *_storage(order), "--showlogs", "--network", "usb0", order.board.config, order.board.root_device)
    return Step(
        name="flash",
        says=f"write the boot flash and the disk of {order.board.title}: everything on them is lost",
        commands=(_tool(order, *argv, **_environ(order)),),
        erases=True,
    )


def make_images(order: Order) -> Step:
    """Return the step that makes what is flashed without flashing it: `mfi_<config>.tar.gz` beside the tools."""
    massflash = ("--no-flash", "--massflash", "1", "--network", "usb0")
    argv = (FLASH, *_storage(order), *massflash, order.board.config, order.board.root_device)
    identity = {"BOARDID": order.board.module, "BOARDSKU": order.board.sku, "FAB": order.board.fab} if order.board.fab else {}
    return Step(
        name="images",
        says="make the images that a kit flashes"
        if identity
        else "make the images that a kit flashes, as the connected board needs them",
        commands=(_tool(order, *argv, **_environ(order), **identity),),
    )


def _unpack(order: Order) -> Step:
    return Step(
        name="unpack",
        says=f"unpack NVIDIA's Jetson Linux {order.release.version}",
        commands=(
            run("rm", "--recursive", "--force", "--one-file-system", order.tree),
            run("mkdir", "--parents", order.work),
            run("tar", "xf", order.bsp.path, "-C", order.work),
            run("tar", "xpf", order.rootfs.path, "--numeric-owner", "-C", f"{order.root}/"),
        ),
        inputs=(order.bsp.sha256, order.rootfs.sha256),
    )


def _prerequisites(order: Order) -> Step:
    return Step(
        name="prerequisites",
        says="install what NVIDIA's tools need on this machine",
        commands=(_tool(order, "./tools/l4t_flash_prerequisites.sh"),),
    )


def _binaries(order: Order) -> Step:
    # A second run over a half-done one fails: it makes device nodes that are there by then.
    return Step(
        name="binaries",
        says="install NVIDIA's packages into the root file system",
        commands=(_tool(order, "./apply_binaries.sh"),),
        restart_from="unpack",
    )


def _user(order: Order) -> Step:
    login = order.login
    argv = ("./tools/l4t_create_default_user.sh", "-u", login.user, "-p", login.password, "-n", "windlass", "--accept-license")
    create = Command(argv=argv, folder=order.tree, environ={"USER": "root"}, secrets=frozenset({login.password}))
    return Step(
        name="user",
        says=f"create the user {login.user}, without automatic login",
        commands=(create,),
        restart_from="unpack",
        inputs=(_trace(login.password) if login.keep_password else "key",),
    )


def _trace(password: str) -> str:
    """Tell one password from another in a journal that everybody may read: guessing at it is made slow."""
    return hashlib.scrypt(password.encode(), salt=b"windlass-flash", n=1 << 14, r=8, p=1).hex()


def _system(order: Order) -> Step:
    login = order.login
    inbox, identity = order.root / INBOX.relative_to("/"), order.work / "identity"
    overlays = (order.overlay, order.scripts / "tree")
    return Step(
        name="system",
        says="install Docker, NVIDIA's container toolkit and our own package; no desktop",
        commands=(
            run("rm", "--recursive", "--force", inbox),
            run("install", "-d", "-m", "0700", inbox),
            run("install", "-m", "0644", order.package.path, inbox / "windlass-box.deb"),
            run("install", "-m", "0755", order.scripts / "setup", inbox / "setup"),
            run(order.python, "-m", "controller.ops.flash.identity", identity, "--board", order.board.name),
            *(run("cp", "--recursive", "--no-preserve=ownership", f"{one}/.", order.root) for one in (*overlays, identity)),
            run("rm", "--force", order.root / NETWORK.relative_to("/")),
            *_rescue(order),
            _inside(order, f"{INBOX}/setup", login.user, "keep" if login.keep_password else "lock", order.version),
            run("rm", "--recursive", "--force", inbox),
        ),
        inputs=(order.package.sha256, order.scripts_sha256, order.login.keys.sha256 if order.login.keys else ""),
    )


def _rescue(order: Order) -> tuple[Command, ...]:
    # They count only while the data partition is not mounted over them.
    hidden = order.root / "var/lib/windlass/etc"
    keys = order.login.keys
    copied = (run("install", "-m", "0600", keys.path, hidden / "authorized_keys"),) if keys else ()
    return (run("install", "-d", "-m", "0755", hidden), *copied)


def _payload(order: Order) -> Step:
    target = order.root / TARGET.relative_to("/")
    folders = ("release", "images")
    clear = run("rm", "--recursive", "--force", *(target / one for one in folders))
    if order.payload is None:
        return Step(name="payload", says="leave the release to `make deploy`: none was given", commands=(clear,))
    return Step(
        name="payload",
        says="put the release and its images in",
        commands=(
            clear,
            run("install", "-d", "-m", "0755", target),
            *(run("cp", "--recursive", "--no-preserve=ownership", order.payload.path / one, target) for one in folders),
        ),
        inputs=(order.payload.sha256,),
    )


def _layout(order: Order) -> Step:
    image, content = order.tree / "bootloader" / DATA_IMAGE, order.work / "data"
    extended = f"resize={LARGEST_DATA_BLOCKS},lazy_itable_init=1,nodiscard,root_owner=0:0"
    keys = order.login.keys
    return Step(
        name="layout",
        says="lay the disk out: two root file systems, and the rest of it for data",
        commands=(
            run("rm", "--recursive", "--force", image, content),
            run("install", "-d", "-m", "0755", content, *(content / one for one in DATA_FOLDERS)),
            *((run("install", "-m", "0600", keys.path, content / "etc" / "authorized_keys"),) if keys else ()),
            run("truncate", f"--size={DATA_BYTES}", image),
            run("mkfs.ext4", "-q", "-F", *LARGE, "-L", DATA_LABEL, "-E", extended, "-d", content, image),
            run("rm", "--recursive", "--force", content),
            run(
                *(order.python, "-m", "controller.ops.flash.layout", order.tree / order.board.layout),
                *("--to", order.tree / OUR_LAYOUT, "--image", DATA_IMAGE),
            ),
        ),
        inputs=(keys.sha256 if keys else "",),
    )


def _storage(order: Order) -> tuple[str, ...]:
    board = order.board
    internal = ("-p", f"-c {board.internal_layout}") if board.internal_layout else ()
    return ("--external-device", board.storage, "-c", OUR_LAYOUT, "-S", f"{board.root_bytes // GIB}GiB", *internal)


def _environ(order: Order) -> dict[str, str]:
    overlay = {"ADDITIONAL_DTB_OVERLAY_OPT": order.board.boot_order} if order.board.boot_order else {}
    return {"ROOTFS_AB": "1", "ROOTFS_RETRY_COUNT_MAX": RETRIES, **overlay}


def _tool(order: Order, *argv: str, **environ: str) -> Command:
    # NVIDIA's scripts look for root in $USER.
    return run(*argv, folder=order.tree, USER="root", **environ)


def _inside(order: Order, *argv: str) -> Command:
    return run(order.scripts / "in-rootfs", order.root, *argv)
