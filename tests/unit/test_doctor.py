"""What `windlass doctor` does: nothing unasked, nothing twice, and never without a look at whether it worked."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from controller.errors import ConfigError
from controller.ops.check.rules import findings
from controller.ops.check.values import Facts
from controller.ops.doctor import Deed, LocalHands, State, holds, plan, treat
from controller.ops.doctor_lines import deed_lines
from controller.ops.remedy import Holds, Lacks, Need, Proof, Remedy, Run, Says, Write
from controller.probes.system import LocalSystem, Outcome, RecordedSystem
from tests.devices import recorded
from tests.devices.facts import facts

FRESH = facts(recorded("orin-nano-jp6.2.1"))
ISO = facts(recorded("orin-nano-jp7.2-iso"))

SYSTEMCTL = """#!/bin/sh
state=$(dirname "$0")/../state
case "$*" in
  get-default) cat "$state/target" ;;
  "set-default "*) echo "$2" > "$state/target" ;;
  "is-enabled nvzramconfig") cat "$state/zram"; test "$(cat "$state/zram")" = enabled ;;
  "disable nvzramconfig") echo disabled > "$state/zram" ;;
  daemon-reload) echo again > "$state/reloaded" ;;
  *) exit 4 ;;
esac
"""
SWAPOFF = """#!/bin/sh
state=$(dirname "$0")/..
for area; do sed -i "\\\\|^$area |d" "$state/root/proc/swaps"; done
"""
NVPMODEL = """#!/bin/sh
state=$(dirname "$0")/../state
if [ "$1" = -q ]; then echo "NVPM WARN: fan mode is not set to cool"; cat "$state/mode"; exit; fi
if [ -e "$state/busy" ]; then
  echo "NVPM WARN: Golden image context is already created"
  echo "NVPM WARN: Reboot required for changing to this power mode: $2"
  echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
  read -r answer || exit 9
  echo "$answer" > "$state/answered"
  echo "NVPM ERROR: optMask is 1, no request for power mode"
  exit 1
fi
printf 'NV Power Mode: MAXN_SUPER\\n%s\\n' "$2" > "$state/mode"
"""
TOOLKIT = """#!/bin/sh
root=$(dirname "$0")/../root
[ "$*" = "runtime configure --runtime=docker" ] || exit 2
mkdir -p "$root/etc/docker"
echo '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}' > "$root/etc/docker/daemon.json"
"""


@dataclass
class Hospital:
    """A box in a folder, with stand-ins for the tools that change one; both seams are at work on it, with real processes."""

    place: Path
    taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.place / "state").mkdir()
        (self.place / "bin").mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("swapoff", SWAPOFF), ("nvpmodel", NVPMODEL), ("nvidia-ctk", TOOLKIT)):
            tool = self.place / "bin" / name
            tool.write_text(text, encoding="utf-8")
            tool.chmod(0o755)
        for name, text in (("target", "graphical.target"), ("zram", "enabled"), ("mode", "NV Power Mode: 15W\n0")):
            (self.place / "state" / name).write_text(text + "\n", encoding="utf-8")
        recorded("orin-nano-jp6.2.1").unpack(self.place / "root")

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self.place / "root"

    def state(self, name: str) -> str:
        """Return what a tool has left behind."""
        return (self.place / "state" / name).read_text(encoding="utf-8").strip()

    def read(self, path: str) -> str | None:
        """Return the text of a file of the box."""
        return LocalSystem([self.root]).read(path)

    def names(self, folder: str) -> tuple[str, ...]:
        """Return what is in a folder of the box."""
        return LocalSystem([self.root]).names(folder)

    def group(self, node: str) -> int | None:
        """Return who may open a node of the box."""
        return LocalSystem([self.root]).group(node)

    def run(self, what: Sequence[str] | Run) -> Outcome | None:
        """Look, if it is a command, or act, if it is a step: the two seams have a verb of one name."""
        if isinstance(what, Run):
            self.taken.append(what.command)
            return LocalHands().run(replace(what, argv=(str(self.place / "bin" / what.argv[0]), *what.argv[1:])))
        return LocalSystem().run((str(self.place / "bin" / what[0]), *what[1:]))

    def write(self, step: Write) -> None:
        """Write a file of the box."""
        self.taken.append(step.path)
        LocalHands().write(replace(step, path=str(self.root) + step.path))


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    """Take a box in."""
    return Hospital(tmp_path)


def deeds(seen: Facts, *names: str) -> tuple[Deed, ...]:
    """Plan what can be done about a box."""
    return plan(findings(seen), names)


def treated(hospital: Hospital, seen: Facts, *names: str) -> list[Deed]:
    """Do it."""
    return [treat(deed, system=hospital, hands=hospital) for deed in deeds(seen, *names)]


def test_a_fresh_board_is_cured_of_what_is_safe_and_asked_about_the_rest(hospital: Hospital) -> None:
    """Compressed swap is off and the desktop will not start again; the power mode is somebody's choice."""
    done = treated(hospital, FRESH)

    assert [("zram", State.DONE), ("desktop", State.DONE), ("power-mode", State.ASKS)] == [(d.remedy.name, d.state) for d in done]
    assert ("multi-user.target", "disabled") == (hospital.state("target"), hospital.state("zram"))
    assert "/dev/zram" not in (hospital.root / "proc/swaps").read_text(encoding="utf-8")
    assert "15W" in hospital.state("mode")
    assert [
        "sudo systemctl disable nvzramconfig",
        "sudo swapoff " + " ".join(f"/dev/zram{n}" for n in range(6)),
        "sudo systemctl set-default multi-user.target",
    ] == hospital.taken


def test_what_was_done_is_not_done_again(hospital: Hospital) -> None:
    """A second round looks and takes no step; what is still found waits for what must follow."""
    treated(hospital, FRESH)
    hospital.taken.clear()
    again = treated(hospital, FRESH)

    assert [] == hospital.taken
    assert [State.ALREADY, State.ALREADY, State.ASKS] == [deed.state for deed in again]
    assert [Need.NOTHING, Need.REBOOT, Need.NOTHING] == [deed.need for deed in again]


def test_a_mode_is_set_when_it_is_named(hospital: Hospital) -> None:
    """The tool says so afterwards, below whatever it warns of."""
    (deed,) = treated(hospital, FRESH, "power-mode")

    assert State.DONE is deed.state
    assert "MAXN_SUPER" in hospital.state("mode")


def test_a_mode_that_needs_a_restart_is_left_to_a_person(hospital: Hospital) -> None:
    """Where the GPU is in use the tool asks whether to restart the box at once; it hears no, and the mode stays as it is."""
    (hospital.place / "state/busy").touch()
    (deed,) = treated(hospital, FRESH, "power-mode")

    assert (State.YOURS, Need.NOTHING) == (deed.state, deed.need)
    assert ("no", "NV Power Mode: 15W\n0") == (hospital.state("answered"), hospital.state("mode"))
    assert "    it is done only by restarting the box at once: sudo nvpmodel -m 2   and answer YES" in deed_lines([deed])


def test_the_runtime_is_configured_and_the_engine_is_left_alone(hospital: Hospital) -> None:
    """A restart of the engine ends its containers, so it is said and not done."""
    with_toolkit = replace(ISO, condition=replace(ISO.condition, toolkit="1.19.1"))
    (deed,) = treated(hospital, with_toolkit, "nvidia-runtime")

    assert (State.DONE, Need.ENGINE) == (deed.state, deed.need)
    assert "nvidia-container-runtime" in (hospital.read("/etc/docker/daemon.json") or "")
    assert not any("restart" in taken for taken in hospital.taken)


def test_a_file_is_written_whole_and_the_system_told(hospital: Hospital) -> None:
    """In the folder of the engine's service, which may not exist, and readable for everybody."""
    seen = facts(recorded("orin-nano-jp6.2.2"))
    (deed,) = treated(hospital, seen, "raw-table")
    path = hospital.root / "etc/systemd/system/docker.service.d/windlass-raw-table.conf"

    assert (State.DONE, "again") == (deed.state, hospital.state("reloaded"))
    assert '[Service]\nEnvironment="DOCKER_INSECURE_NO_IPTABLES_RAW=1"\n' == path.read_text(encoding="utf-8")
    assert [path] == list(path.parent.iterdir())
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_is_to_be_typed_writes_the_same_file(tmp_path: Path) -> None:
    """A shell that is given the line makes what the step makes."""
    step = Write(path=f"{tmp_path}/a folder/x.conf".replace(" ", "_"), text='[S]\nE="100%\\n"\n')
    subprocess.run(["sh", "-c", step.command.replace("sudo ", "")], check=True, capture_output=True)

    assert step.text == Path(step.path).read_text(encoding="utf-8")


def remedy(*steps: Run | Write, proofs: tuple[Proof, ...] = (Lacks(path="/f", text="bad"),)) -> Remedy:
    """Make a remedy."""
    return Remedy(name="cure", steps=steps, proofs=proofs, undo="undo it")


def deed(*steps: Run | Write, proofs: tuple[Proof, ...] = (Lacks(path="/f", text="bad"),)) -> Deed:
    """Plan one."""
    return Deed(remedy=remedy(*steps, proofs=proofs), about="it is bad", state=State.PLANNED)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Run(argv=("no-such-tool-anywhere",)), "no-such-tool-anywhere is not there"),
        (Run(argv=("sh", "-c", "echo first; echo last >&2; exit 3")), "ended with status 3: last"),
        (Run(argv=("false",)), "ended with status 1: it wrote nothing"),
        (Run(argv=("true",)), "every step was taken, and still it is not so that /f names no bad"),
        (Write(path="/proc/nobody/writes/here", text=""), "/proc/nobody/writes/here cannot be written"),
    ],
)
def test_what_fails_is_told_with_the_reason(step: Run | Write, why: str) -> None:
    """A tool that is missing, one that fails, and one that does nothing."""
    ended = treat(deed(step, Run(argv=("true",))), system=RecordedSystem(files={"/f": "bad"}), hands=LocalHands())

    assert (State.FAILED, Need.NOTHING) == (ended.state, ended.need)
    assert why in ended.why


def test_no_step_is_taken_after_one_that_failed(tmp_path: Path) -> None:
    """The second may count on the first."""
    mark = tmp_path / "mark"
    treat(
        deed(Run(argv=("false",)), Run(argv=("touch", str(mark)))),
        system=RecordedSystem(files={"/f": "bad"}),
        hands=LocalHands(),
    )

    assert not mark.exists()


@pytest.mark.parametrize(
    ("proof", "so"),
    [
        (Says(argv=("q",), text="yes"), True),
        (Says(argv=("q",), text="ye"), False),
        (Says(argv=("q",), text="2"), True),
        (Says(argv=("other",), text="yes"), False),
        (Says(argv=("silent",), text="yes"), False),
        (Holds(path="/f", text="bad"), True),
        (Holds(path="/f", text="good"), False),
        (Holds(path="/none", text="bad"), False),
        (Lacks(path="/f", text="good"), True),
        (Lacks(path="/f", text="bad"), False),
        (Lacks(path="/none", text="bad"), False),
    ],
)
def test_what_cannot_be_looked_at_is_no_proof(proof: Proof, so: bool) -> None:
    """A command says it in a line of its own, whatever its exit code; a file holds or lacks it."""
    system = RecordedSystem(
        files={"/f": "bad"}, commands={"q": Outcome(code=1, out="yes\n2\n"), "silent": Outcome(code=0, out="")}
    )

    assert so is holds(proof, system)
    assert str(proof)


def test_only_what_is_named_is_planned() -> None:
    """And a name that nothing has says which there are."""
    assert ["desktop"] == [deed.remedy.name for deed in deeds(FRESH, "desktop")]
    assert [State.PLANNED] == [deed.state for deed in deeds(FRESH, "power-mode")]
    with pytest.raises(ConfigError, match="wanted one of zram, desktop, power-mode"):
        deeds(FRESH, "desktop", "fan")
    with pytest.raises(ConfigError, match="nothing was found"):
        deeds(facts(recorded("no-gpu")), "fan")


def test_people_see_what_would_be_done() -> None:
    """The steps, how they are checked, what must follow, how to go back, and what is not done unasked."""
    text = "\n".join(deed_lines(deeds(FRESH)))

    for line in (
        "    sudo systemctl disable nvzramconfig",
        "    then `systemctl is-enabled nvzramconfig` says disabled",
        "    then /proc/swaps names no /dev/zram",
        "    afterwards a restart of the box is needed",
        "    to undo it: sudo systemctl set-default graphical.target",
        "    not done unless it is named: a stronger mode draws more than a small supply or a battery gives, and makes more heat",
        "    sudo windlass doctor --fix power-mode",
        "nothing was changed; `sudo windlass doctor --fix` does it",
    ):
        assert line in text.splitlines()


def test_people_see_what_was_done_and_what_must_follow(hospital: Hospital) -> None:
    """A reboot is said once, with whom it is for; a failure with its reason; and nothing to do in one line."""
    done = deed_lines(treated(hospital, FRESH))
    failed = deed_lines([treat(deed(Run(argv=("false",))), system=RecordedSystem(files={"/f": "bad"}), hands=LocalHands())])

    assert ["desktop: a restart of the box is still needed", "    sudo reboot"] == done[-2:]
    assert not any("nothing was changed" in line for line in done)
    assert "    `sudo false` ended with status 1: it wrote nothing" in failed
    assert "nothing was found that could be acted on" in deed_lines([])[0]


def test_a_deed_is_json_for_programs() -> None:
    """Under names that stay."""
    (zram, *_) = deeds(FRESH)

    assert {"name", "state", "about", "commands", "undo", "consent", "need", "why"} == set(zram.as_json())
    assert ("zram", "planned", "nothing") == (zram.as_json()["name"], zram.as_json()["state"], zram.as_json()["need"])


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="the tool itself is tried where there is one")
def test_the_real_tool_changes_the_target_of_a_system(tmp_path: Path) -> None:
    """In a root of its own, which is as good as another box."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for name in ("graphical.target", "multi-user.target"):
        (units / name).write_text("[Unit]\nDescription=x\n[Install]\nAlias=default.target\n", encoding="utf-8")
    tool = ("systemctl", f"--root={tmp_path}")
    proof = Says(argv=(*tool, "get-default"), text="multi-user.target")
    LocalHands().run(Run(argv=(*tool, "set-default", "graphical.target")))
    assert not holds(proof, LocalSystem())

    ended = treat(
        deed(Run(argv=(*tool, "set-default", "multi-user.target")), proofs=(proof,)), system=LocalSystem(), hands=LocalHands()
    )

    assert ended.state is State.DONE
    assert (tmp_path / "etc/systemd/system/default.target").readlink().name == "multi-user.target"


def test_a_tool_speaks_the_language_that_is_looked_for() -> None:
    """Whatever the language of whoever runs it."""
    told = LocalHands().run(Run(argv=("env",)))

    assert told
    assert "LC_ALL=C" in told.out.splitlines()


def test_a_question_of_a_tool_is_answered_and_never_waits() -> None:
    """Without an answer its input is empty, so that it cannot wait for a person."""
    answered = LocalHands().run(Run(argv=("cat",), answer="no\n"))
    silent = LocalHands().run(Run(argv=("cat",)))

    assert (Outcome(code=0, out="no\n"), Outcome(code=0, out="")) == (answered, silent)
