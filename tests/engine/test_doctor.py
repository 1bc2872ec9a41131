"""`windlass doctor` on a real kernel: what switches swap off switches it off."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.ops.doctor import Deed, LocalHands, State, treat
from controller.ops.remedy import Lacks, Remedy, Run
from controller.probes.condition import read_condition
from controller.probes.system import LocalSystem
from controller.units import MIB

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.geteuid() != 0, reason="only root may change swap")]


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """Make a small swap file and put it into use; whatever becomes of it, it is out of use in the end."""
    path = tmp_path / "swap"
    path.write_bytes(bytes(4 * MIB))
    path.chmod(0o600)
    subprocess.run(["mkswap", str(path)], check=True, capture_output=True)
    subprocess.run(["swapon", str(path)], check=True)
    yield path
    subprocess.run(["swapoff", str(path)], check=False, capture_output=True)


def test_swap_is_off_afterwards_and_a_second_round_finds_it_so(area: Path) -> None:
    """The kernel names it before and does not after, and the state that is judged has it no more."""
    system = LocalSystem([Path("/")])
    assert str(area) in [swap.name for swap in read_condition(system).swaps]
    remedy = Remedy(
        name="swap",
        steps=(Run(argv=("swapoff", str(area))),),
        proofs=(Lacks(path="/proc/swaps", text=str(area)),),
        undo=f"sudo swapon {area}",
    )
    planned = Deed(remedy=remedy, about="a swap file", state=State.PLANNED)

    first = treat(planned, system=system, hands=LocalHands())
    again = treat(planned, system=system, hands=LocalHands())

    assert (State.DONE, State.ALREADY) == (first.state, again.state), first.why
    assert str(area) not in [swap.name for swap in read_condition(system).swaps]


def test_what_the_kernel_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """A file that is no swap cannot be switched off, and nothing claims that it was."""
    (tmp_path / "none").touch()
    remedy = Remedy(
        name="swap",
        steps=(Run(argv=("swapoff", str(tmp_path / "none"))),),
        proofs=(Lacks(path="/proc/swaps", text="Filename"),),
        undo="nothing",
    )
    ended = treat(Deed(remedy=remedy, about="", state=State.PLANNED), system=LocalSystem(), hands=LocalHands())

    assert State.FAILED is ended.state
    assert "swapoff" in ended.why
