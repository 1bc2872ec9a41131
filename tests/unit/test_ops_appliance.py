"""The operating system image: what kinds of boxes there are, how a disk is laid out, and the command lines around it."""

import itertools
from pathlib import Path

import pytest

from controller.errors import ConfigError
from controller.ops.appliance import commands, layout
from controller.ops.appliance.target import (
    UEFI_LOADERS,
    BoxTarget,
    load_target,
    parse_target,
    read_packages,
    target_names,
)
from controller.units import MIB

PROJECT = Path(__file__).parents[2]
PC = """
description = "a test"
architecture = "amd64"
packages = ["packages.txt"]
trees = ["tree"]
kernel = "linux-image-amd64"
compatible = "windlass-pc"
consoles = ["tty0", "ttyS0,115200"]
images = ["controller", "llama-cpp"]
"""


def target(**changes: object) -> BoxTarget:
    """Make a target."""
    return parse_target("pc", PC).model_copy(update=changes)


@pytest.mark.parametrize("name", target_names(PROJECT))
def test_every_target_in_the_tree_can_be_used(name: str) -> None:
    """Each file is whole, and what it names is there."""
    found = load_target(PROJECT, name)

    for packages in found.packages:
        assert read_packages((PROJECT / "appliance" / "os" / packages).read_text(encoding="utf-8"))
    assert all((PROJECT / "appliance" / "os" / tree).is_dir() for tree in found.trees)
    assert found.images_target.device == found.device


def test_an_unknown_target_is_told_with_those_there_are() -> None:
    """A person who misspells one reads the names."""
    with pytest.raises(ConfigError, match=r"no target 'qemu'; there are .*qemu-amd64"):
        load_target(PROJECT, "qemu")


def test_everything_that_is_wrong_with_a_file_is_listed() -> None:
    """Unknown keys come with the nearest one, values with what was wanted."""
    with pytest.raises(ConfigError) as caught:
        parse_target("pc", PC + 'kernell = "x"\nroot = "17 apples"\n')

    assert "pc.toml: kernell: no such key; did you mean kernel?" in str(caught.value)
    assert "pc.toml: root: wanted a size such as 7.4GiB or 900MB, got '17 apples'" in str(caught.value)
    assert 2 == len(caught.value.problems)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('images = ["llama-cpp"]', "wanted the controller among them"),
        ('compatible = "windlass-other"', "wanted windlass-pc"),
        ('device = "toaster"', "no images are made for DEVICE=toaster"),
        ('root = "1000000"', "multiple of 1048576"),
        ('architecture = "riscv"', "amd64"),
    ],
)
def test_a_target_that_could_not_work_is_refused(line: str, told: str) -> None:
    """What contradicts itself fails before anything is made."""
    key = line.partition(" ")[0]
    text = "\n".join(row for row in PC.splitlines() if not row.startswith(f"{key} "))

    with pytest.raises(ConfigError, match=told):
        parse_target("pc", f"{text}\n{line}\n")


def test_a_file_that_is_no_toml_is_told_by_name() -> None:
    """The sentence says which file."""
    with pytest.raises(ConfigError, match=r"appliance/targets/pc\.toml: "):
        parse_target("pc", "= =")


def test_lists_of_packages_have_remarks() -> None:
    """A remark may stand alone or behind a name."""
    assert ("curl", "zstd") == read_packages("# tools\ncurl\n\nzstd  # for archives\n")


def test_partitions_lie_behind_each_other_on_whole_mebibytes() -> None:
    """Nothing overlaps, nothing is lost between two, and data is the last one."""
    parts = layout.partitions(target())

    assert ["esp", "root-a", "root-b", "data"] == [part.label for part in parts]
    assert [1, 2, 3, 4] == [part.number for part in parts]
    assert all(part.start_bytes % MIB == 0 and part.size_bytes > 0 for part in parts)
    assert all(before.end_bytes == after.start_bytes for before, after in itertools.pairwise(parts))
    assert parts[1].size_bytes == parts[2].size_bytes
    assert parts[-1].end_bytes + layout.LAST_BYTES == layout.disk_bytes(parts)


def test_identifiers_are_the_same_each_time_and_differ_between_targets() -> None:
    """The same inputs make the same image; two kinds of boxes share nothing."""
    first, again = layout.partitions(target()), layout.partitions(target())
    other = layout.partitions(target(name="other"))

    assert [part.guid for part in first] == [part.guid for part in again]
    assert not {part.guid for part in first} & {part.guid for part in other}
    assert len({part.guid for part in first}) == len(first)


def test_the_data_partition_has_a_type_of_its_own() -> None:
    """Systemd-repart finds by type and in order what it lets grow; it must never take a system for it."""
    for architecture in UEFI_LOADERS:
        types = {part.label: part.type_code for part in layout.partitions(target(architecture=architecture))}

        assert types["data"] not in {types["root-a"], types["root-b"], types["esp"]}


def test_the_table_is_written_by_sectors() -> None:
    """Sgdisk gets first and last sector of each partition, its type, its name and its identifier."""
    parts = layout.partitions(target(esp=64 * MIB, root=128 * MIB, data=32 * MIB))
    argv = layout.table_argv("disk.img", parts, disk_guid=layout.derive_id("pc", "disk"))

    assert ["sgdisk", "--clear"] == argv[:2]
    assert "--new=1:2048:133119" in argv
    assert "--new=2:133120:395263" in argv
    assert "--new=4:657408:722943" in argv
    assert "--change-name=4:data" in argv
    assert "--typecode=1:EF00" in argv
    assert "disk.img" == argv[-1]


def test_a_system_is_made_of_the_listed_packages() -> None:
    """Packages, kernel, processors and parts of the distribution are those of the target."""
    argv = commands.system_argv(target(components=("main", "non-free-firmware")), ["curl", "zstd"], Path("system.tar"))

    assert "--include=curl,zstd,linux-image-amd64" in argv
    assert "--architectures=amd64" in argv
    assert "--components=main,non-free-firmware" in argv
    assert ["trixie", "system.tar"] == argv[-2:]
    assert ["trixie", "system.tar", "http://mirror"] == commands.system_argv(
        target(), ["curl"], Path("system.tar"), mirror="http://mirror"
    )[-3:]


def test_a_system_that_is_only_read_has_no_journal() -> None:
    """Nothing has to be replayed in it; what is written to has one."""
    uuid = layout.derive_id("pc", "files")
    slot, data = (
        commands.filesystem_argv(Path("a"), Path("tree"), label="x", size_bytes=2 * MIB, uuid=uuid, journal=journal)
        for journal in (False, True)
    )

    assert "^has_journal" in slot[slot.index("-O") + 1].split(",")
    assert "^has_journal" not in data[data.index("-O") + 1].split(",")
    assert "2048k" == slot[-1]
    assert "size=64" == data[data.index("-J") + 1]
    assert "-J" not in slot
    assert all("4096" == argv[argv.index("-b") + 1] for argv in (slot, data)), "a small one would get small blocks, for good"
    assert str(uuid) == slot[slot.index("-U") + 1]
    assert f"hash_seed={uuid}" in slot[slot.index("-E") + 1]
    assert data[data.index("-E") + 1].endswith(",resize=1073741824"), "4 TiB"


@pytest.mark.parametrize(("architecture", "platform"), [("amd64", "x86_64-efi"), ("arm64", "arm64-efi")])
def test_the_loader_is_made_for_the_processors(architecture: str, platform: str) -> None:
    """It can read the choice, the partitions and the kernel, and looks for its configuration beside itself."""
    argv = commands.loader_argv(target(architecture=architecture), Path("BOOT.EFI"), modules=Path("/usr/lib/grub"))

    assert f"--format={platform}" in argv
    assert "--prefix=/EFI/BOOT" in argv
    assert {"loadenv", "ext2", "fat", "part_gpt", "linux", "regexp"} <= set(argv)


def test_a_partition_is_copied_to_its_place_without_filling_holes() -> None:
    """The position is counted in the block that is copied by."""
    _, slot, *_ = layout.partitions(target(esp=64 * MIB))

    argv = commands.place_argv(Path("root.ext4"), Path("disk.img"), slot)

    assert ["dd", "if=root.ext4", "of=disk.img", "bs=1M", "seek=65", "conv=sparse,notrunc", "status=none"] == argv


def test_images_go_into_one_archive() -> None:
    """What they share lies in it once; the order is always the same."""
    argv = commands.archive_argv(["windlass/b:2", "windlass/a:1"], Path("x.tar.zst"))

    assert ["archive", "x.tar.zst", "docker", "save", "windlass/a:1", "windlass/b:2"] == argv[-6:]


def test_the_box_is_told_what_it_is() -> None:
    """Its scripts read its name, what updates must be for, and how much swap it wants."""
    assert "TARGET=pc\nCOMPATIBLE=windlass-pc\nSWAP_BYTES=1048576\n" == target(swap=MIB).variables()
