"""GRUB's variables, written by the grub-editenv of the box around GRUB's own: no machine is needed for these."""

import fcntl
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.appliance

EDITENV = Path(__file__).resolve().parents[2] / "appliance/box/tree/usr/lib/windlass/bin/grub-editenv"


def edit(*argv: str) -> str:
    """Run it."""
    return subprocess.run([EDITENV, *argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """Make a block of variables."""
    file = tmp_path / "grubenv"
    edit(str(file), "create")
    edit(str(file), "set", "ORDER=A B", "A_OK=1")
    return file


def test_the_block_is_written_over_and_never_emptied(block: Path) -> None:
    """A file that the kernel lets nobody shorten is no obstacle, so that no moment exists in which there are no variables."""
    sealed = os.memfd_create("grubenv", os.MFD_ALLOW_SEALING)
    os.write(sealed, block.read_bytes())
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    file = f"/proc/{os.getpid()}/fd/{sealed}"

    edit(file, "set", "A_OK=0")

    assert "ORDER=A B\nA_OK=0\n" == edit(file, "list")
    usual = subprocess.run(["/usr/bin/grub-editenv", file, "set", "A_OK=1"], capture_output=True, check=False)
    assert usual.returncode, "GRUB's own tool does not empty the file any more: ours may go"


def test_two_that_write_at_once_lose_nothing_of_each_other(block: Path) -> None:
    """RAUC and the scripts of the box both write."""
    names = [f"V{number}" for number in range(12)]

    with ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(lambda name: edit(str(block), "set", f"{name}=1"), names))

    assert {f"{name}=1" for name in names} <= set(edit(str(block), "list").splitlines())


@pytest.mark.parametrize("left", [b"", b"#" * 1024])
def test_a_block_that_was_lost_is_made_again(block: Path, left: bytes) -> None:
    """A file of no bytes is what the usual tool leaves when the power goes at the wrong moment, and a bad disk anything."""
    block.write_bytes(left)

    edit(str(block), "set", "A_OK=1")

    assert (1024, "A_OK=1\n") == (block.stat().st_size, edit(str(block), "list"))


def test_nothing_is_written_where_nothing_changes(block: Path) -> None:
    """Every start confirms its slot, and a disk does not like to be written for nothing."""
    before = block.stat().st_mtime_ns

    edit(str(block), "set", "A_OK=1")

    assert before == block.stat().st_mtime_ns
