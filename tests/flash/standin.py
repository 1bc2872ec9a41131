"""Make what stands in for NVIDIA's archives, for a USB bus, and for this machine: a tree with the same names, small and quick."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).with_name("tools.py")
PYTHON: Final = Path(sys.executable).resolve()
"""The interpreter itself, which needs nothing but its own library, and starts the faster for it."""
NAMES: Final = (
    "apply_binaries.sh",
    "tools/l4t_flash_prerequisites.sh",
    "tools/l4t_create_default_user.sh",
    "tools/kernel_flash/l4t_initrd_flash.sh",
)
CONFIGS: Final = ("jetson-orin-nano-devkit-super", "jetson-agx-orin-devkit", "jetson-agx-thor-devkit")
BSP: Final = "Jetson_Linux_R39.2.1_aarch64.tbz2"
ROOTFS: Final = "Tegra_Linux_Sample-Root-Filesystem_R39.2.1_aarch64.tbz2"
COMMANDS: Final = ("bash", "sed", "grep", "install", "rm", "mkdir", "chmod", "cut", "cat", "ln", "touch", "env")
_RECORD: Final = '#!/bin/bash\necho "${0##*/} $*" >>/var/log/standin.log\n'
_INSIDE: Final = {
    "apt-get": "",
    "nvidia-ctk": 'mkdir -p /etc/docker; echo \'{"default-runtime": "nvidia"}\' >/etc/docker/daemon.json\n',
    "passwd": 'grep -q "^${*: -1}:" /etc/passwd\n',
    "systemctl": (
        'if [[ $1 == set-default ]]; then ln -sf "/usr/lib/systemd/system/$2" /etc/systemd/system/default.target; fi\n'
    ),
    "getent": 'grep "^$2:" /etc/passwd\n',
}
LICENCE: Final = "<!-- The maker keeps all rights. -->"


def write_layout() -> str:
    """Return a layout of a disk with two root file systems, of the same form as NVIDIA's."""
    parts = [
        ("master_boot_record", "protective_master_boot_record", "512", "8", ""),
        ("primary_gpt", "primary_gpt", "19968", "8", ""),
        ("A_kernel", "kernel", "134217728", "8", "LNXFILE"),
        ("esp", "data", "67108864", "0x8", "ESP_FILE"),
        ("UDA", "data", "419430400", "8", ""),
        ("APP", "data", "APPSIZE", "0x8", "APPFILE"),
        ("APP_b", "data", "APPSIZE", "0x8", "APPFILE_b"),
        ("secondary_gpt", "secondary_gpt", "0xFFFFFFFFFFFFFFFF", "8", ""),
    ]
    lines = ['<?xml version="1.0"?>', LICENCE, '<partition_layout version="01.00.0000">']
    lines.append('    <device type="external" instance="0" sector_size="512" num_sectors="EXT_NUM_SECTORS" >')
    for name, kind, size, attribute, file in parts:
        lines += [
            f'        <partition name="{name}" type="{kind}">',
            f"            <size> {size} </size> <!-- of {name} -->",
            f"            <allocation_attribute> {attribute} </allocation_attribute>",
            *([f"            <filename> {file} </filename>"] if file else []),
            "        </partition>",
        ]
    return "\n".join([*lines, "    </device>", "</partition_layout>", ""])


def make_bsp(folder: Path) -> Path:
    """Make the archive of the tools."""
    tree = folder / "Linux_for_Tegra"
    for name in NAMES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to("/".join([*[".."] * name.count("/"), "standin"]))
    _, rest = TOOLS.read_text(encoding="utf-8").split("\n", 1)
    (tree / "standin").write_text(f"#!{PYTHON} -IS\n{rest}", encoding="utf-8")
    (tree / "standin").chmod(0o755)
    for name in ("bootloader/generic/cfg", "rootfs"):
        (tree / name).mkdir(parents=True)
    (tree / "bootloader/generic/cfg/flash_t234_qspi.xml").write_text("<partition_layout/>", encoding="ascii")
    (tree / "tools/kernel_flash/flash_l4t_t234_nvme_rootfs_ab.xml").write_text(write_layout(), encoding="ascii")
    (tree / "Tegra_Software_License_Agreement-Tegra-Linux.txt").write_text("licence", encoding="ascii")
    for name in CONFIGS:
        (tree / f"{name}.conf").touch()
    return _archive(folder / BSP, tree)


def make_rootfs(folder: Path) -> Path:
    """Make the archive of a root file system: this machine's shell, and programs that write down how they were called."""
    root = folder / "root"
    for name in ("bin", "etc/apt/sources.list.d", "etc/systemd/system", "home", "usr/bin", "usr/sbin", "var/log", "tmp"):
        (root / name).mkdir(parents=True)
    for name in COMMANDS:
        program = Path(str(shutil.which(name))).resolve()
        shutil.copy(program, root / "bin" / name)
        for library in _libraries(program):
            (root / library.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library.resolve(), root / library.relative_to("/"))
    (root / "bin/sh").symlink_to("bash")
    for name, body in _INSIDE.items():
        (root / "usr/bin" / name).write_text(_RECORD + body, encoding="ascii")
        (root / "usr/bin" / name).chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n", encoding="ascii")
    (root / "etc/group").write_text("root:x:0:\n", encoding="ascii")
    (root / "etc/fstab").touch()
    (root / "usr/lib").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/os-release").write_text("ID=ubuntu\n", encoding="ascii")
    (root / "etc/systemd/system/default.target").symlink_to("/usr/lib/systemd/system/oem-config.target")
    (root / "etc/apt/sources.list.d/nvidia-l4t-apt-source.list").write_text("deb jetson <SOC>\n", encoding="ascii")
    return _archive(folder / ROOTFS, *sorted(root.iterdir()))


def make_boards(folder: Path, real: Path, *, bsp_sha256: str = "", rootfs_sha256: str = "") -> Path:
    """Copy the real boards, beside one release whose files are those made here."""
    shutil.copytree(real, folder)
    lines = [
        'default = "39.2.1"',
        '[release."39.2.1"]',
        'jetpack = "7.2.1"',
        'folder = "https://jetson.invalid/r39"',
        f'bsp = "{BSP}"',
        f'bsp_sha256 = "{bsp_sha256}"',
        f'rootfs = "{ROOTFS}"',
        f'rootfs_sha256 = "{rootfs_sha256}"',
        'hosts = ["24.04"]',
    ]
    (folder / "releases.toml").write_text("\n".join(lines), encoding="ascii")
    return folder


def plug_in(bus: Path, *products: str) -> None:
    """Let these of NVIDIA's devices hang on the bus, and nothing else of NVIDIA's."""
    shutil.rmtree(bus, ignore_errors=True)
    for number, (vendor, product) in enumerate((("1d6b", "0002"), *(("0955", one) for one in products))):
        device = bus / f"1-{number}"
        device.mkdir(parents=True)
        (device / "idVendor").write_text(f"{vendor}\n", encoding="ascii")
        (device / "idProduct").write_text(f"{product}\n", encoding="ascii")


def make_machine(slash: Path, *, system: Sequence[str] = ("ubuntu", "24.04"), ipv6: str = "0") -> Path:
    """Make the files that tell what this machine is."""
    (slash / "etc").mkdir(parents=True)
    (slash / "etc/os-release").write_text(f'ID={system[0]}\nVERSION_ID="{system[1]}"\n', encoding="ascii")
    network = slash / "proc/sys/net/ipv6/conf/all"
    network.mkdir(parents=True)
    (network / "disable_ipv6").write_text(f"{ipv6}\n", encoding="ascii")
    (slash / "proc/self").mkdir(parents=True)
    (slash / "proc/self/mounts").write_text("proc /proc proc rw 0 0\n", encoding="ascii")
    return slash


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _archive(path: Path, *tops: Path) -> Path:
    # The name promises bzip2; tar looks at what is inside.
    with tarfile.open(path, "w") as archive:
        for top in tops:
            archive.add(top, arcname=top.name)
    return path


def _libraries(program: Path) -> list[Path]:
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return [Path(word) for line in told.splitlines() for word in line.split() if word.startswith("/")]
