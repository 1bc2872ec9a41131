"""
Which system GRUB starts: its own configuration, run for every state that its variables can be in.

GRUB's language is near enough to a shell's that a shell can run the file, where the commands that only GRUB has are functions.
That GRUB itself agrees is seen in a machine, in tests/appliance.
"""

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).resolve().parents[2] / "appliance" / "os" / "grub" / "grub.cfg"

SHELL = r"""
set() { printf -v "${1%%=*}" '%s' "${1#*=}"; }
load_env() { eval "$state"; }
save_env() { for name in "$@"; do saved+="$name=\"${!name}\" "; done; }
serial() { false; }
regexp() { disk=hd0; }
probe() { part_uuid=uuid-of-$partition; }
source() { echo "$chosen|$partition|$arguments|$saved"; exit; }
root="hd0,gpt1" cmdpath="(hd0,gpt1)/EFI/BOOT"
while read -r state; do
    (saved=''; . "$CONFIGURATION" </dev/null)
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What GRUB knows of a slot."""

    ok: int
    tries: int
    sure: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What GRUB's variables say."""

    order: str
    a: Slot
    b: Slot

    def slot(self, name: str) -> Slot:
        """Return one of the two."""
        return self.a if name == "A" else self.b

    def line(self) -> str:
        """Write it for the shell."""
        slots = " ".join(
            f"{name}_OK={slot.ok} {name}_TRY={slot.tries} {name}_SURE={slot.sure}"
            for name, slot in (("A", self.a), ("B", self.b))
        )
        return f'ORDER="{self.order}" {slots}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What was started, and what the variables say then."""

    chosen: str
    partition: str
    trial: bool
    left: State


def start(*states: str) -> list[Start]:
    """Start from each of these states."""
    shell = SHELL.replace(". ", "builtin source ").replace("$CONFIGURATION", str(CONFIGURATION))
    done = subprocess.run(["bash", "-c", shell], input="\n".join(states) + "\n", capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(states) == len(lines), done.stderr
    return [_read(line) for line in lines]


def _read(line: str) -> Start:
    chosen, partition, arguments, saved = line.split("|")
    values = dict(item.split("=", 1) for item in saved.replace('" ', '"\n').replace('"', "").splitlines() if item)
    slots = {
        name: Slot(ok=int(values[f"{name}_OK"]), tries=int(values[f"{name}_TRY"]), sure=int(values[f"{name}_SURE"]))
        for name in "AB"
    }
    words = arguments.split()
    assert f"rauc.slot={chosen}" in words
    assert f"root=PARTUUID=uuid-of-{partition}" in words
    assert "panic=10" in words
    left = State(order=values["ORDER"], a=slots["A"], b=slots["B"])
    return Start(chosen=chosen, partition=partition, trial="windlass.trial" in words, left=left)


def in_turn(state: State, times: int) -> str:
    """Start so many times, with nobody who ever says that it went well."""
    chosen = ""
    for _ in range(times):
        (one,) = start(state.line())
        chosen, state = chosen + one.chosen, one.left
    return chosen


SURE = Slot(ok=1, tries=0, sure=1)
NEW = Slot(ok=1, tries=0, sure=0)
NONE = Slot(ok=0, tries=0, sure=0)


def test_a_new_disk_starts_its_only_system() -> None:
    """And starts it again, whatever becomes of it."""
    assert "AAAAAA" == in_turn(State(order="A B", a=SURE, b=NONE), 6)


def test_what_was_written_has_one_start() -> None:
    """Then the old system comes, with the starts of one that has answered before."""
    assert "BAAA" == in_turn(State(order="B A", a=SURE, b=NEW), 4)


def test_a_trial_is_told_to_the_system() -> None:
    """It knows that it must prove itself without reading any disk."""
    trial, usual = start(State(order="B A", a=SURE, b=NEW).line(), State(order="B A", a=SURE, b=SURE).line())

    assert ("B", "gpt3", True) == (trial.chosen, trial.partition, trial.trial)
    assert ("B", "gpt3", False) == (usual.chosen, usual.partition, usual.trial)


def test_a_plug_that_is_pulled_twice_does_not_bring_last_years_system() -> None:
    """A sure system has three starts; only then comes the other one."""
    assert "BBBAAAB" == in_turn(State(order="B A", a=SURE, b=SURE), 7)


@pytest.mark.parametrize("state", ["", "ORDER=", "ORDER=nonsense A_OK=7 A_TRY=x"])
def test_variables_that_are_lost_start_what_was_there_first(state: str) -> None:
    """A block that cannot be read must not end in a prompt."""
    (one,) = start(state)

    assert "A" == one.chosen


def test_in_every_state_the_right_system_is_started() -> None:
    """
    All 512 states: never one that is bad while another is good, never an unproven one twice while a sure one is there.

    And what is started is counted, so that the next start knows.
    """
    slots = [Slot(ok=ok, tries=tries, sure=sure) for ok, tries, sure in itertools.product((0, 1), range(4), (0, 1))]
    states = [State(order=order, a=a, b=b) for order, a, b in itertools.product(("A B", "B A"), slots, slots)]

    for state, one in zip(states, start(*(state.line() for state in states)), strict=True):
        was, other = state.slot(one.chosen), state.slot("B" if one.chosen == "A" else "A")
        if other.ok:
            assert was.ok, state
        if other.ok and other.sure:
            assert was.sure or was.tries == 0, state
        if was.ok:
            assert one.left.slot(one.chosen).tries in (1, was.tries + 1), state
        assert one.trial == (was.sure == 0), state
        assert state.order == one.left.order
