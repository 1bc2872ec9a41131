"""What `make flash` decides, without a board, a disk or a file system."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from controller.errors import ConfigError
from controller.ops.flash import payload
from controller.ops.flash.archives import ArchiveError, Archives, Hashes, judge, read_sums
from controller.ops.flash.boards import choose_board, choose_release, read_boards
from controller.ops.flash.commands import Command, Step, run, write_script
from controller.ops.flash.disk import Disk, DiskError, read_disk, refuse
from controller.ops.flash.gather import PROJECT
from controller.ops.flash.host import Host, find_hints, find_problems, mounts_below
from controller.ops.flash.journal import Done, fingerprints, remaining
from controller.ops.flash.layout import add_data
from controller.ops.flash.recovery import IN_RECOVERY, NotInRecoveryError, UsbDevice, find_board
from controller.units import GIB
from tests.flash.standin import LICENCE, write_layout

BOARDS = PROJECT / "appliance" / "boards"


def test_every_board() -> None:
    """Each file describes a board by USB ids of recovery mode, and boards with one id agree about its module."""
    boards = read_boards(BOARDS)

    assert {"jetson-orin-nano", "jetson-orin-nx-16gb", "jetson-agx-orin-64gb", "jetson-agx-thor"} <= set(boards)
    assert all(set(board.usb) <= IN_RECOVERY for board in boards.values())
    modules: dict[str, set[str]] = {}
    for board in boards.values():
        for product in board.usb:
            modules.setdefault(product, set()).add(board.module)
    assert [] == [product for product, found in modules.items() if len(found) > 1]


def test_every_board_is_flashed_or_refused() -> None:
    """A board is either known well enough, or says what is not known."""
    boards = read_boards(BOARDS)

    refused = {name for name, board in boards.items() if board.unknown}

    assert {"jetson-agx-thor"} == refused
    with pytest.raises(ConfigError, match="Thor Developer Kit is not flashed: nobody has found out"):
        choose_board(boards, "jetson-agx-thor")
    assert [] == [name for name in set(boards) - refused if choose_board(boards, name).name != name]


def test_a_release_by_its_number() -> None:
    """With or without NVIDIA's R, the default one without a number, and none that does not exist."""
    assert "39.2.0" == choose_release(BOARDS, "R39.2.0").version
    assert "39.2.1" == choose_release(BOARDS, "").version
    with pytest.raises(ConfigError, match=r"has no release '36\.4\.7'; it has 39\.2\.1, 39\.2\.0"):
        choose_release(BOARDS, "36.4.7")


def test_a_layout_gets_one_more_partition() -> None:
    """It is the last one, takes the rest of the disk, and begins with our image; all others and the licence stay as they are."""
    before = write_layout()

    after = add_data(before, image="windlass-data.img")

    old, new = (ET.fromstring(text).find("device") for text in (before, after))  # noqa: S314 # written here
    assert old is not None
    assert new is not None
    names = [part.get("name") for part in new]
    assert [*(part.get("name") for part in old)][:-1] == names[:-2]
    assert ["data", "secondary_gpt"] == names[-2:]
    told = {part.tag: (part.text or "").strip() for part in new[-2]}
    assert ("0x808", "windlass-data.img", f"{GIB}") == (told["allocation_attribute"], told["filename"], told["size"])
    kept = [ET.tostring(part).strip() for part in new if part.get("name") != "data"]
    assert [ET.tostring(part).strip() for part in old] == kept
    assert after.startswith(f'<?xml version="1.0"?>\n{LICENCE}\n<partition_layout version="01.00.0000">')
    assert "<!-- of APP_b -->" in after


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("</partition_layout>", "", "what is not XML"),
        ('type="external"', 'type="spi"', "one external disk"),
        ('name="APP_b"', 'name="APP_c"', "no partition APP_b"),
        ('name="UDA"', 'name="data"', "has a partition 'data' already"),
        (
            "<allocation_attribute> 8 </allocation_attribute>",
            "<allocation_attribute> 0x808 </allocation_attribute>",
            "takes the rest",
        ),
    ],
)
def test_a_layout_of_another_kind(old: str, new: str, said: str) -> None:
    """What is not a disk with two root file systems and room behind them is refused and not guessed at."""
    with pytest.raises(ConfigError, match=said):
        add_data(write_layout().replace(old, new), image="x.img")


def test_commands_are_written_as_a_shell_reads_them() -> None:
    """Quotes, a folder, variables, and no secret."""
    command = Command(
        argv=("tool", "-p", "a b", "pass"), folder=PurePosixPath("/x y"), environ={"A": "1"}, secrets=frozenset({"pass"})
    )

    assert "cd '/x y' && A=1 tool -p 'a b' ****" == str(command)
    assert ["# do", "ls /"] == write_script([Step(name="one", says="do", commands=(run("ls", "/"),))])


STEPS = (
    Step(name="one", says="", commands=(run("a"),)),
    Step(name="two", says="", commands=(run("b"),), restart_from="one"),
    Step(name="three", says="", commands=(run("c"),), inputs=("x",)),
)


def names(done: Done, steps: tuple[Step, ...] = STEPS) -> list[str]:
    """Return the names of what is left."""
    return [step.name for step in remaining(steps, done)]


def test_where_a_run_goes_on() -> None:
    """At the first step that is not done; a step that was cut begins where it says."""
    prints = fingerprints(STEPS)

    assert ["one", "two", "three"] == names(Done())
    assert ["two", "three"] == names(Done(ended={"one": prints["one"]}))
    assert ["one", "two", "three"] == names(Done(ended={"one": prints["one"]}, began="two"))
    assert ["three"] == names(Done(ended={"one": prints["one"], "two": prints["two"]}, began="three"))
    assert [] == names(Done(ended=prints))
    assert [] == names(Done(ended=prints, began="another plan's step"))


def test_what_has_changed_is_done_again() -> None:
    """A command or an input that is another one counts for its step and for all behind it."""
    ended = Done(ended=fingerprints(STEPS))
    other_input = (*STEPS[:2], Step(name="three", says="", commands=(run("c"),), inputs=("y",)))
    other_command = (STEPS[0], Step(name="two", says="", commands=(run("B"),), restart_from="one"), STEPS[2])

    assert ["three"] == names(ended, other_input)
    assert ["one", "two", "three"] == names(ended, other_command)
    assert [] == names(ended, tuple(Step(name=s.name, says="other words", commands=s.commands, inputs=s.inputs) for s in STEPS))


def test_a_hash_that_matches() -> None:
    """The best ground is named; what nothing vouches for, or only SHA-1, is recorded."""
    hashes = Hashes(sha256="a" * 64, sha1="b" * 40)

    known = judge("f", hashes, known="A" * 64, recorded="", listed="")
    recorded = judge("f", hashes, known="", recorded="a" * 64, listed="")
    listed = judge("f", hashes, known="", recorded="", listed="B" * 40)
    trusted = judge("f", hashes, known="", recorded="", listed="")

    assert [False, False, True, True] == [one.record for one in (known, recorded, listed, trusted)]
    assert "as NVIDIA's list says" in listed.says
    assert "nothing vouches for it" in trusted.says


@pytest.mark.parametrize("ground", ["known", "recorded", "listed"])
def test_a_hash_that_does_not(ground: str) -> None:
    """One ground that disagrees is enough, whatever the others say."""
    grounds = {"known": "a" * 64, "recorded": "a" * 64, "listed": "b" * 40, ground: "c" * 64}

    with pytest.raises(ArchiveError, match=f"wanted {'c' * 64}"):
        judge("f", Hashes(sha256="a" * 64, sha1="b" * 40), **grounds)


def test_the_makers_list() -> None:
    """Names are compared in small letters, and folders before them do not count."""
    text = f"SHA-1\n{'A' * 40}  Jetson_Linux_R39.tbz2\n{'b' * 40} *release/rootfs.tbz2\nnonsense\n"

    assert {"jetson_linux_r39.tbz2": "a" * 40, "rootfs.tbz2": "b" * 40} == read_sums(text)


def host(**changes: object) -> Host:
    """Return a machine that can flash, but for *changes*."""
    values = {
        "root": True,
        "machine": "x86_64",
        "system": "ubuntu 24.04",
        "free_bytes": 100 * GIB,
        "ipv6": True,
        "contained": False,
        "devices": (),
        **changes,
    }
    return Host(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"root": False}, "run it with sudo"),
        ({"machine": "aarch64"}, "take a PC"),
        ({"system": "debian 12"}, "from ubuntu 22.04 and ubuntu 24.04, and this is debian 12"),
        ({"free_bytes": GIB}, "45 GiB are needed for the work and 1 GiB are free"),
        ({"ipv6": False}, "over IPv6"),
        ({"mounts": ("/w/rootfs/dev",)}, "/w/rootfs/dev is still mounted"),
    ],
)
def test_a_machine_that_can_flash_or_not(changes: dict[str, object], said: str) -> None:
    """Each reason has its sentence, and a machine that is as NVIDIA wants it has none."""
    found = find_problems(host(**changes), choose_release(BOARDS, ""), needed_bytes=45 * GIB)

    assert bool(said) == bool(found)
    assert said in " ".join(found)


def test_any_machine_if_a_person_says_so() -> None:
    """Another system is the person's own risk; root, room and IPv6 are not."""
    release = choose_release(BOARDS, "")

    assert () == find_problems(host(system="debian 12", machine="aarch64"), release, needed_bytes=1, any_host=True)
    assert 1 == len(find_problems(host(root=False), release, needed_bytes=1, any_host=True))
    assert 1 == len(find_hints(host(contained=True)))


def test_mounts_in_a_folder() -> None:
    """The kernel writes a blank as an octal number, and a name that only begins alike is another one."""
    lines = ["a /w/my\\040work/rootfs/dev t rw", "b /w/my\\040work2 t rw", "c / t rw", ""]

    assert ["/w/my work/rootfs/dev"] == mounts_below(lines, PurePosixPath("/w/my work"))  # type: ignore[arg-type]


DISK = Disk(path="/dev/sdb", kind="disk", size_bytes=64 * GIB, name="Stick 1", read_only=False, mounts=(), holders=())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "part", "path": "/dev/sdb1"}, "is a part and not a whole disk"),
        ({"mounts": ("/boot", "/media")}, "the system this machine runs from"),
        ({"mounts": ("[SWAP]",)}, r"is in use at \[SWAP\]"),
        ({"holders": ("/dev/mapper/x",)}, "is part of /dev/mapper/x"),
        ({"read_only": True}, "write-protected"),
        ({"size_bytes": 7 * GIB}, "has 7 GiB, and 8 GiB are needed"),
    ],
)
def test_a_disk_that_must_not_be_written(changes: dict[str, object], said: str) -> None:
    """Each reason has its sentence."""
    values = {name: getattr(DISK, name) for name in DISK.__dataclass_fields__}

    refuse(DISK, image_bytes=GIB, least_bytes=8 * GIB)
    with pytest.raises(DiskError, match=said):
        refuse(Disk(**{**values, **changes}), image_bytes=GIB, least_bytes=8 * GIB)


def test_a_disk_larger_than_the_least_and_smaller_than_the_image() -> None:
    """The image must fit, whatever else is asked for."""
    with pytest.raises(DiskError, match="70 GiB are needed"):
        refuse(DISK, image_bytes=70 * GIB, least_bytes=8 * GIB)


def test_what_lies_on_a_disk() -> None:
    """Mounts of its parts, and of what is built on them, count; so do open volumes without a mount."""
    volume = {"path": "/dev/mapper/v", "type": "lvm", "mountpoints": ["/srv"]}
    part = {"path": "/dev/sdb1", "type": "part", "mountpoints": [None], "children": [volume]}
    top = {"path": "/dev/sdb", "type": "disk", "size": 10, "ro": False, "model": " A ", "serial": None, "children": [part]}

    found = read_disk(json.dumps({"blockdevices": [top]}), "/dev/sdb")

    assert (("/srv",), ("/dev/mapper/v",), "A") == (found.mounts, found.holders, found.name)
    with pytest.raises(DiskError, match="is 2"):
        read_disk(json.dumps({"blockdevices": [top, top]}), "/dev/sdb")
    with pytest.raises(DiskError, match="nothing that can be read"):
        read_disk("", "/dev/sdb")


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ((), "no Jetson is connected: wanted Jetson Orin Nano 8 GB Developer Kit"),
        (("7020",), "a Jetson runs"),
        (("1234",), "a Jetson is connected"),
        (("7323",), "BOARD=jetson-orin-nx-16gb"),
        (("7523", "7523"), "2 boards are in recovery mode"),
    ],
)
def test_a_board_that_is_not_flashed(products: tuple[str, ...], said: str) -> None:
    """What hangs on the cable instead is named, and what to do about it."""
    boards = read_boards(BOARDS)
    devices = [UsbDevice(path=f"1-{number}", product=product) for number, product in enumerate(products)]

    with pytest.raises(NotInRecoveryError, match=said):
        find_board(boards["jetson-orin-nano"], devices, boards)


def test_the_board_that_is_flashed() -> None:
    """It is the one in recovery mode, whatever else of NVIDIA's is connected."""
    boards = read_boards(BOARDS)
    there = UsbDevice(path="1-2", product="7523")

    assert there == find_board(boards["jetson-orin-nano"], [UsbDevice(path="1-1", product="7020"), there], boards)


def test_the_readme() -> None:
    """Every board and every setting is in its tables, and nothing else."""
    text = (PROJECT / "appliance" / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## PCs") : text.index("## Tests")]
    boards = re.findall(r"(?m)^\| `((?:jetson-|pc)[\w-]*)` \| (.*?) \|", section)
    settings = {name for row in re.findall(r"(?m)^\| (`[A-Z].*?) \|", section) for name in re.findall(r"`([A-Z_0-9]+)=1?`", row)}
    code = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "controller/ops/flash").glob("*.py"))
    read = set(re.findall(r'inquiry\.(?:text|flag|path)\("([A-Z_0-9]+)"', code)) | {"OFFLINE"}

    assert {**{name: board.title for name, board in read_boards(BOARDS).items()}, "pc": "anything with UEFI"} == dict(boards)
    assert read - {"SUDO_USER"} == settings - {"BOARD"}  # which heads a table


def test_archives_that_cannot_be_remembered_are_not_used(tmp_path: Path) -> None:
    """A folder that is read-only keeps no record of what was trusted; where to put them is said."""
    (tmp_path / "bsp.tbz2").write_bytes(b"archive")
    (tmp_path / ".windlass-hashes.json.half").mkdir()
    with pytest.raises(ArchiveError, match=r"cannot be written to .*: copy the archives to a folder of your own"):
        Archives(tmp_path, fetch=None).take("bsp.tbz2", source="https://nvidia.invalid", known="")


def test_what_a_step_calls_ends_with_a_sentence(tmp_path: Path) -> None:
    """A folder that is not there, or that nobody may write to, is no fault of ours."""
    argv = ["controller.ops.flash.kit", "/nowhere", "--boards", str(BOARDS), "--board", "jetson-orin-nano", "--l4t", ""]
    done = subprocess.run(
        [sys.executable, "-m", *argv, "--version", "1"], cwd=PROJECT, env={}, capture_output=True, text=True, check=False
    )

    assert (1, "") == (done.returncode, done.stderr)
    assert "No such file or directory: '/nowhere/board.env'" in done.stdout


def test_a_payload_replaces_nothing_else(tmp_path: Path) -> None:
    """A folder that holds anything but an earlier payload stays as it is."""
    (tmp_path / "thesis.tex").touch()
    done = CliRunner().invoke(payload.app, [str(tmp_path)])

    assert 2 == done.exit_code
    assert "holds other things than a payload" in " ".join(done.output.replace("│", " ").split())
    assert (tmp_path / "thesis.tex").exists()
