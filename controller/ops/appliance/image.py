"""
Make the operating system image of a kind of box: `python -m controller.ops.appliance.image build qemu-amd64`.

Reads as a table of contents: each step is a method with a verb's name and works on one tree or one file. Nothing is mounted and
no loop device is needed; root is, since the tree holds files of many owners and its programs are run inside it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.errors import ConfigError, WindlassError
from controller.ops import box_deb
from controller.ops.appliance import commands, inventory, keys, layout, rauc, sbom
from controller.ops.appliance.target import UEFI_LOADERS, BoxTarget, load_target, read_packages, target_names
from controller.ops.images import Builder
from controller.ops.recipes import image_variables
from controller.ops.release import PROJECT, committed_s, find_version, write_release
from controller.ops.steps import StepError, console, run_step
from controller.units import format_bytes

TOOLS: Final = {
    "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "mkfs.vfat": "dosfstools", "mcopy": "mtools", "sgdisk": "gdisk",
    "grub-mkimage": "grub-common", "grub-editenv": "grub-common", "dpkg-deb": "dpkg", "zstd": "zstd",
}  # fmt: skip
"""The programs that make an image, and the package of each."""
GRUB_FOLDER: Final = Path("/usr/lib/grub")
ARCHIVE: Final = "images.tar.zst"
KEPT: Final = 2
"""So many systems and archives of images are kept for the next image."""
DATA_FOLDERS: Final = ("etc", "journal", "system", "models")


class ImageBuilder:
    """Makes one image in one folder."""

    def __init__(self, project: Path, target: BoxTarget, *, version: str, environ: Mapping[str, str]) -> None:
        """Keep the place; nothing is made yet."""
        self._project = project
        self._os = project / "appliance" / "os"
        self._target = target
        self._version = version
        self._environ = environ
        self._out = project / "build" / "appliance" / target.name
        self._root = self._out / "root"
        self._images = Builder(project, environ=environ, target=target.images_target)
        self._tags: dict[str, str] = {}
        self._parts = {part.label: part for part in layout.partitions(target)}

    @property
    def image(self) -> Path:
        """The disk."""
        return self._out / f"windlass-{self._version}-{self._target.name}.img"

    def build(self) -> Path:
        """Make everything, from nothing."""
        self._check_tools()
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        self.make_system()
        self.apply_product(self._root)
        self.make_root_slot()
        self.make_data()
        self.make_esp()
        self.assemble()
        self.describe()
        return self.image

    def make_system(self) -> None:
        """Make a Debian system from its packages."""
        names = [name for file in self._target.packages for name in read_packages((self._os / file).read_text(encoding="utf-8"))]
        mirror = self._environ.get("WINDLASS_DEBIAN_MIRROR", "")
        # A system is kept for the day: packages change, and building again after a change of ours should not fetch them again.
        day = datetime.now(tz=UTC).date().isoformat()
        key = hashlib.sha256(repr((day, commands.system_argv(self._target, names, Path(), mirror=mirror))).encode()).hexdigest()
        archive = self._shelf(f"system-{key[:12]}.tar")
        if not archive.exists():
            arriving = archive.with_suffix(".arriving.tar")
            argv = commands.system_argv(self._target, names, arriving, mirror=mirror)
            self._step(f"Debian {self._target.suite}: {len(names)} packages and what they need, about 1 min", argv)
            arriving.rename(archive)
        self._root.mkdir()
        self._step(f"Debian {self._target.suite} for {self._target.architecture}", commands.unpack_argv(archive, self._root))

    def _shelf(self, name: str) -> Path:
        """Name a file that is kept for the next image, and remove what is there of its kind from other days."""
        folder = self._project / "build" / "appliance" / "kept"
        folder.mkdir(parents=True, exist_ok=True)
        kind, _, _ = name.partition("-")
        kept = sorted(folder.glob(f"{kind}-*"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            old.unlink()
        return folder / name

    def apply_product(self, root: Path) -> None:
        """Make a system that is there into an appliance: our files, our package, the release."""
        self._copy_overlay(root)
        self._install_box(root)
        self._set_up(root)
        self._trust_updates(root)
        self._add_release(root)

    def _copy_overlay(self, root: Path) -> None:
        for name in self._target.trees:
            tree = self._os / name
            self._step(f"our files over it, {name}", commands.overlay_argv(tree, root))
            for path in tree.rglob("*"):
                (root / path.relative_to(tree)).chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)

    def _install_box(self, root: Path) -> None:
        package = box_deb.build(self._out, version=self._version)
        inside = root / "tmp" / package.name
        shutil.copyfile(package, inside)
        self._step("our own package", commands.inside_argv(root, "dpkg", "--install", f"/tmp/{package.name}"))  # noqa: S108 -- in the tree
        inside.unlink()

    def _set_up(self, root: Path) -> None:
        self._step("units", commands.units_argv(root, "enable", commands.WANTED_UNITS))
        self._step("units that stay off", commands.units_argv(root, "mask", commands.UNWANTED_UNITS))
        self._step("what starts it", commands.inside_argv(root, "update-initramfs", "-u", "-k", "all"))
        for key in (root / "etc" / "ssh").glob("ssh_host_*"):
            key.unlink()
        _relink(root / "etc" / "hostname", "/var/lib/windlass/etc/hostname")
        _relink(root / "var" / "lib" / "dbus" / "machine-id", "/etc/machine-id")
        _relink(root / "etc" / "resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        (root / "etc" / "machine-id").write_text("", encoding="ascii")
        shared = root / "usr" / "share" / "windlass"
        (shared / "target.env").write_text(self._target.variables(), encoding="ascii")
        _relink(root / "etc" / "windlass", "/var/lib/windlass/etc/windlass")
        for folder in ("boot/efi", "var/lib/windlass", "var/log/journal"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def _trust_updates(self, root: Path) -> None:
        """Say which version this is, whose updates it takes, and how its kernel wants to be started."""
        trusted = keys.ensure_keys(self._project, self._environ)
        if trusted.development:
            console.print(keys.WARNING, style="yellow")
        folder = root / "etc" / "rauc"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trusted.trusted, folder / "keyring.pem")
        text = rauc.system_configuration(self._target.name, compatible=self._target.compatible)
        (folder / "system.conf").write_text(text, encoding="ascii")
        release = root / "usr" / "lib" / "os-release"
        release.write_text(rauc.name_version(release.read_text(encoding="utf-8"), version=self._version), encoding="utf-8")
        if rauc.boot_loader(self._target.name) == rauc.GRUB:
            consoles = " ".join(f"console={console}" for console in self._target.consoles)
            text = (self._os / "grub" / "windlass.cfg").read_text(encoding="utf-8")
            (root / "boot" / "windlass.cfg").write_text(text.replace("@CONSOLES@", consoles), encoding="utf-8")

    def _add_release(self, root: Path) -> None:
        made = self._images.ensure(self._target.images)
        self._tags = tags = {name: made[name] for name in self._target.images}
        shared = root / "usr" / "share" / "windlass"
        variables = image_variables(tags, base=self._images.base, target=self._target.images_target)
        recorded = dict(line.split("=", 1) for line in variables.splitlines() if "=" in line)
        write_release(shared / "release", version=self._version, tags=recorded, project=self._project)
        (shared / "images").mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(repr(sorted(tags.values())).encode()).hexdigest()
        archive = self._shelf(f"images-{key[:12]}.tar.zst")
        if not archive.exists():
            arriving = archive.with_suffix(".arriving")
            self._step(f"images {', '.join(sorted(tags))}, compressed", commands.archive_argv(list(tags.values()), arriving))
            arriving.rename(archive)
        shutil.copyfile(archive, shared / "images" / ARCHIVE)

    def make_root_slot(self) -> None:
        """Make the file system of a system: what an update carries, too."""
        self._file_system("root-a", self._root, name="root")

    def make_data(self) -> None:
        """Make the partition that grows; its folders are there already, everything else is made on the box."""
        tree = self._out / "data"
        for folder in DATA_FOLDERS:
            (tree / folder).mkdir(parents=True)
        self._file_system("data", tree, name="windlass-data")
        shutil.rmtree(tree)

    def make_esp(self) -> None:
        """Make the partition that the firmware reads."""
        platform, name = UEFI_LOADERS[self._target.architecture]
        esp, work = self._slot("esp"), self._out / "esp"
        work.mkdir()
        modules = GRUB_FOLDER / platform
        self._step("boot loader", commands.loader_argv(self._target, work / name, modules=modules))
        shutil.copyfile(self._os / "grub" / "grub.cfg", work / "grub.cfg")
        self._step("boot loader's choice", commands.choice_argv(work / "grubenv", []))
        self._step("boot loader's choice", commands.choice_argv(work / "grubenv", rauc.FIRST_CHOICE))
        volume = f"{layout.derive_id(self._target.name, 'esp-volume').int % 2**32:08x}"
        self._step("ESP", commands.esp_argv(esp, self._parts["esp"].size_bytes, volume=volume))
        self._step("ESP", commands.folders_argv(esp, "EFI", "EFI/BOOT", "windlass"))
        for file in sorted(work.iterdir()):
            self._step("ESP", commands.put_argv(esp, file, f"EFI/BOOT/{file.name}"))
        shutil.rmtree(work)

    def assemble(self) -> None:
        """Put the partitions on one disk."""
        arriving = self.image.with_suffix(".arriving")
        with arriving.open("wb") as disk:
            disk.truncate(layout.disk_bytes(tuple(self._parts.values())))
        guid = layout.derive_id(self._target.name, "disk")
        self._step("partition table", layout.table_argv(str(arriving), tuple(self._parts.values()), disk_guid=guid))
        for label in ("esp", "root-a", "data"):
            self._step(f"partition {label}", commands.place_argv(self._slot(label), arriving, self._parts[label]))
        self._slot("data").unlink()
        arriving.rename(self.image)

    def describe(self) -> None:
        """Write down what was made: sizes, checksum."""
        checksum = _checksum(self.image)
        Path(f"{self.image}.sha256").write_text(f"{checksum}  {self.image.name}\n", encoding="ascii")
        status = self.image.stat()
        self._list_parts()
        manifest = {
            "version": self._version,
            "target": self._target.name,
            "compatible": self._target.compatible,
            "image": self.image.name,
            "sha256": checksum,
            "bytes": status.st_size,
            "used_bytes": status.st_blocks * 512,
            "root_image": self._slot("root-a").name,
            "partitions": {
                part.label: {"start_bytes": part.start_bytes, "size_bytes": part.size_bytes} for part in self._parts.values()
            },
        }
        (self._out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        console.print(
            f"  [green]image[/] {self.image.relative_to(self._project)}: "
            f"{format_bytes(status.st_size)}, of which {format_bytes(status.st_blocks * 512)} are used"
        )

    def _list_parts(self) -> None:
        bills = {bill.image: bill for bill in self._images.bills(self._target.images)}
        parts = (*inventory.system_parts(self._root), *inventory.image_parts(self._tags, bills))
        name = self.image.name.removesuffix(".img")
        listed = sbom.Inventory(name=name, version=self._version, parts=parts)
        text = sbom.write_sbom(listed, made_s=committed_s(environ=self._environ))
        (self._out / f"{name}.cdx.json").write_text(text, encoding="utf-8")
        (self._out / f"{name}.files").write_text(inventory.list_files(self._root), encoding="utf-8")
        console.print(f"  [green]done[/]  list of what is in it: {len(set(parts))} packages and sources")

    def _file_system(self, label: str, tree: Path, *, name: str) -> None:
        part = self._parts[label]
        argv = commands.filesystem_argv(
            self._slot(label),
            tree,
            label=name,
            size_bytes=part.size_bytes,
            uuid=layout.derive_id(self._target.name, f"{label}-files"),
            journal=label == "data",
        )
        self._step(f"file system {name}, {format_bytes(part.size_bytes)}", argv)

    def _slot(self, label: str) -> Path:
        return self._out / {"root-a": "root.ext4", "data": "data.ext4", "esp": "esp.vfat"}[label]

    def _step(self, title: str, argv: list[str]) -> None:
        name = "-".join("".join(c if c.isalnum() else " " for c in title).split()[:3]).lower()
        run_step(title, argv, log=self._project / "build" / "logs" / f"image-{self._target.name}-{name}.log")

    def _check_tools(self) -> None:
        missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
        platform, _ = UEFI_LOADERS[self._target.architecture]
        if not (GRUB_FOLDER / platform).is_dir():
            missing.append(f"grub-efi-{self._target.architecture}-bin")
        if missing:
            raise StepError(
                f"an image needs {', '.join(missing)}, which this machine lacks: images/setup.sh appliance installs them"
            )
        if os.geteuid() != 0:
            raise StepError("an image is made by root, since its files have many owners: sudo make image")
        if os.uname().machine != self._target.machine:
            raise StepError(f"{self._target.name} is made on {self._target.machine}, and this is {os.uname().machine}")


def _relink(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Operating system images.")


@app.command()
def build(name: Annotated[str, typer.Argument(help="The kind of box.")] = "qemu-amd64") -> None:
    """Make the image for a kind of box, from nothing."""
    target = load_target(PROJECT, name)
    version = find_version()
    os.environ["SOURCE_DATE_EPOCH"] = str(committed_s())
    os.environ["E2FSPROGS_FAKE_TIME"] = os.environ["SOURCE_DATE_EPOCH"]
    ImageBuilder(PROJECT, target, version=version, environ=os.environ).build()


@app.command()
def targets() -> None:
    """List the kinds of boxes."""
    for name in target_names(PROJECT):
        console.print(f"{name:20} {load_target(PROJECT, name).description}", markup=False)


def main() -> None:
    """Run one verb; an error is a sentence, not a traceback."""
    try:
        app()
    except (WindlassError, ConfigError) as exc:
        console.print(str(exc), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
