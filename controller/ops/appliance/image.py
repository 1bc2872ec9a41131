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
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.ops.appliance import commands, inventory, layout, rauc, sbom
from controller.ops.appliance.system import SystemBuilder, differences
from controller.ops.appliance.target import UEFI_LOADERS, BoxTarget, load_target, target_names
from controller.ops.release import PROJECT, committed_s, find_version
from controller.ops.steps import StepError, console, run_program
from controller.units import format_bytes

TOOLS: Final = {
    "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "mkfs.vfat": "dosfstools", "mcopy": "mtools", "sgdisk": "gdisk",
    "grub-mkimage": "grub-common", "grub-editenv": "grub-common", "dpkg-deb": "dpkg", "zstd": "zstd",
}  # fmt: skip
"""The programs that make an image, and the package of each."""
GRUB_FOLDER: Final = Path("/usr/lib/grub")
DATA_FOLDERS: Final = ("etc", "journal", "system", "models")


class ImageBuilder:
    """Makes one image: aside, and then in the place of the one before."""

    def __init__(self, project: Path, target: BoxTarget, *, version: str, environ: Mapping[str, str]) -> None:
        """Keep the place; nothing is made yet."""
        self._os = project / "appliance" / "os"
        self._target = target
        self._version = version
        self._environ = environ
        self._final = project / "build" / "appliance" / target.name
        self._out = self._final.with_name(f"arriving-{target.name}")
        self._root = self._out / "root"
        self._name = f"windlass-{version}-{target.name}"
        log = project / "build" / "logs" / f"image-{target.name}.log"
        self._system = SystemBuilder(project, target, version=version, environ=environ, log=log)
        self._parts = {part.label: part for part in layout.partitions(target)}

    def build(self) -> Path:
        """Make everything, from nothing."""
        check_tools(self._target)
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        self._system.make(self._root)
        self.make_root_slot()
        self.make_data()
        self.make_esp()
        self.assemble()
        self.describe()
        shutil.rmtree(self._final, ignore_errors=True)
        self._out.rename(self._final)
        return self._final / f"{self._name}.img"

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
        image = self._image
        with image.open("wb") as disk:
            disk.truncate(layout.disk_bytes(tuple(self._parts.values())))
        guid = layout.derive_id(self._target.name, "disk")
        self._step("partition table", layout.table_argv(str(image), tuple(self._parts.values()), disk_guid=guid))
        for label in ("esp", "root-a", "data"):
            self._step(f"partition {label}", commands.place_argv(self._slot(label), image, self._parts[label]))
        self._slot("data").unlink()

    def describe(self) -> None:
        """Write down what was made: sizes, checksum."""
        checksum = _checksum(self._image)
        Path(f"{self._image}.sha256").write_text(f"{checksum}  {self._image.name}\n", encoding="ascii")
        status = self._image.stat()
        self._list_parts()
        manifest = {
            "version": self._version,
            "target": self._target.name,
            "compatible": self._target.compatible,
            "image": self._image.name,
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
            f"  [green]image[/] build/appliance/{self._target.name}/{self._image.name}: "
            f"{format_bytes(status.st_size)}, of which {format_bytes(status.st_blocks * 512)} are used"
        )

    def _list_parts(self) -> None:
        bills = {bill.image: bill for bill in self._system.images.bills(self._target.images)}
        parts = (*inventory.system_parts(self._root), *inventory.image_parts(self._system.tags, bills))
        listed = sbom.Inventory(name=self._name, version=self._version, parts=parts)
        text = sbom.write_sbom(listed, made_s=committed_s(environ=self._environ))
        (self._out / f"{self._name}.cdx.json").write_text(text, encoding="utf-8")
        (self._out / f"{self._name}.files").write_text(inventory.list_files(self._root), encoding="utf-8")
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
        self._system.step(title, argv)

    @property
    def _image(self) -> Path:
        return self._out / f"{self._name}.img"


def check_tools(target: BoxTarget) -> None:
    """
    See that an image can be made here.

    Raises:
        StepError: a program is missing, this is not root, or the image is for other processors.

    """
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    platform, _ = UEFI_LOADERS[target.architecture]
    if not (GRUB_FOLDER / platform).is_dir():
        missing.append(f"grub-efi-{target.architecture}-bin")
    if missing:
        raise StepError(f"an image needs {', '.join(missing)}, which this machine lacks: images/setup.sh appliance installs them")
    if os.geteuid() != 0:
        raise StepError("an image is made by root, since its files have many owners: sudo make image")
    if os.uname().machine != target.machine:
        raise StepError(f"{target.name} is made on {target.machine}, and this is {os.uname().machine}")


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Operating system images.")


@app.command()
def build(name: Annotated[str, typer.Argument(help="The kind of box.")] = "qemu-amd64") -> None:
    """Make the image for a kind of box, from nothing."""
    ImageBuilder(PROJECT, load_target(PROJECT, name), version=find_version(), environ=_timed()).build()


@app.command()
def compare(name: Annotated[str, typer.Argument(help="The kind of box.")] = "qemu-amd64") -> None:
    """Make a system twice from nothing, and say whether both have the same files and the same packages in the same versions."""
    target, environ = load_target(PROJECT, name), _timed()
    check_tools(target)
    out = PROJECT / "build" / "appliance" / f"compared-{name}"
    shutil.rmtree(out, ignore_errors=True)
    trees, version = [out / word for word in ("first", "second")], find_version()
    for tree in trees:
        tree.parent.mkdir(parents=True, exist_ok=True)
        log = PROJECT / "build" / "logs" / f"compare-{name}-{tree.name}.log"
        SystemBuilder(PROJECT, target, version=version, environ=environ, log=log).make(tree, anew=True)
    files, parts = [inventory.list_files(tree) for tree in trees], [sorted(inventory.system_parts(tree)) for tree in trees]
    other = differences(*trees)
    shutil.rmtree(out)
    for line in other:
        console.print(f"  other content: {line}", markup=False)
    if files[0] != files[1] or parts[0] != parts[1]:
        unlike = sorted(set(files[0].splitlines()) ^ set(files[1].splitlines()))
        raise StepError(f"{name}: two builds differ: {unlike[:20]}, {sorted(set(parts[0]) ^ set(parts[1]))[:20]}")
    console.print(
        f"  [green]same[/]  {len(files[0].splitlines())} files, {len(parts[0])} packages; {len(other)} files differ in content"
    )


def _timed() -> dict[str, str]:
    """Let everything that is made bear the commit's time; the programs that are run read it from the environment."""
    os.environ["SOURCE_DATE_EPOCH"] = os.environ["E2FSPROGS_FAKE_TIME"] = str(committed_s())
    return dict(os.environ)


@app.command()
def targets() -> None:
    """List the kinds of boxes."""
    for name in target_names(PROJECT):
        console.print(f"{name:20} {load_target(PROJECT, name).description}", markup=False)


if __name__ == "__main__":
    run_program(app)
