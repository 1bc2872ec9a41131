"""The kit flashes a board where there is neither this checkout nor a network."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.ops.flash.recovery import NotInRecoveryError
from tests.flash import standin
from tests.flash.conftest import Bench

CONFIG = "jetson-orin-nano-devkit-super"
THERE = ("bash", "uname", "sha256sum", "cat", "rm", "tar", "gzip", "dirname")
NEEDED = ("xmlstarlet", "sshpass", "exportfs", "ip", "udevadm", "python3", "abootimg", "zstd", "ping6")


@pytest.fixture
def unpacked(bench: Bench) -> Path:
    """Make a kit and unpack it as its reader would."""
    bench.kit()
    (archive,) = bench.place.build.glob("*.tar")
    summed = subprocess.run(
        ["sha256sum", "--check", f"{archive.name}.sha256"], cwd=archive.parent, check=False, capture_output=True
    )
    assert 0 == summed.returncode
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["tar", "xf", archive], cwd=elsewhere, check=True)
    return elsewhere / archive.stem


def use(kit: Path, bench: Bench, *argv: str, without: str = "", typed: str = "") -> subprocess.CompletedProcess[str]:
    """Call the kit's script on a machine with what it needs, or without one program."""
    programs = bench.folder / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    for name in (*THERE, *NEEDED):
        if name != without:
            (programs / name).symlink_to(str(shutil.which(name) if name in THERE else "/bin/true"))
    bus = str(bench.place.usb)
    environ = {"PATH": str(programs), "USB_DEVICES": bus, "STANDIN_USB": bus}
    return subprocess.run([str(kit / "flash"), *argv], env=environ, input=typed, capture_output=True, text=True, check=False)


def test_a_kit_is_made_without_a_board(bench: Bench, unpacked: Path) -> None:
    """The board's identity is told to NVIDIA's tool, and the kit holds its images, a script and how to use it."""
    last = bench.calls()[-1]

    assert {"BOARDID": "3767", "BOARDSKU": "0005", "FAB": "300"}.items() <= last["environ"].items()
    assert ["--no-flash", "--massflash", "1", "--network", "usb0", "jetson-orin-nano-devkit-super", "external"] == last["argv"][
        -7:
    ]
    assert bench.flashed() is None
    images = f"mfi_{CONFIG}.tar.gz"
    assert sorted(["HOW-TO.txt", "SHA256SUMS", "board.env", "flash", images]) == sorted(one.name for one in unpacked.iterdir())
    assert "Jetson Orin Nano 8 GB Developer Kit" in (unpacked / "HOW-TO.txt").read_text()


def test_a_kit_flashes(bench: Bench, unpacked: Path) -> None:
    """Its script asks, and calls NVIDIA's tool for exactly this board."""
    bench.plug_in("7523")

    done = use(unpacked, bench, typed="flash\n")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert '"product": "7523"' in (unpacked / "flashed.json").read_text()
    (call,) = (json.loads(line) for line in (unpacked / "calls.jsonl").read_text().splitlines())
    assert ["--flash-only", "--massflash", "1", "--network", "usb0", CONFIG] == call["argv"]


def test_a_kit_refuses(bench: Bench, unpacked: Path) -> None:
    """No board, one that runs, another one, two, a missing program, another answer, a damaged file: each has its sentence."""
    for products, said in (
        ((), "no Jetson is connected: wanted Jetson Orin Nano 8 GB Developer Kit"),
        (("7020",), "a Jetson is connected (0955:7020) but is not in recovery mode"),
        (("7323",), "and the board that is connected is 0955:7323"),
        (("7523", "7323"), "2 boards are in recovery mode"),
    ):
        bench.plug_in(*products)
        done = use(unpacked, bench, "--yes")
        assert (1, True) == (done.returncode, said in done.stderr), done.stderr

    bench.plug_in("7523")
    assert "apt-get install sshpass" in use(unpacked, bench, "--yes", without="sshpass").stderr
    assert "nothing was written" in use(unpacked, bench, typed="yes\n").stderr
    with (unpacked / f"mfi_{CONFIG}.tar.gz").open("ab") as images:
        images.write(b"x")
    assert "the kit is damaged" in use(unpacked, bench, "--yes").stderr
    assert not (unpacked / "flashed.json").exists()


def test_a_kit_for_a_board_whose_revision_nobody_knows(bench: Bench) -> None:
    """Its images are made as a connected board needs them, so one has to be there, before anything is done."""
    with pytest.raises(NotInRecoveryError, match="no Jetson is connected"):
        bench.kit("jetson-orin-nx-8gb")
    assert [] == bench.calls()

    standin.plug_in(bench.place.usb, "7423")
    bench.kit("jetson-orin-nx-8gb")

    assert "BOARDID" not in bench.calls()[-1]["environ"]
    assert 1 == len(list(bench.place.build.glob("windlass-*-jetson-orin-nx-8gb-l4t-39.2.1.tar")))
