"""A switch between releases, whatever becomes of it: the real scripts, and stand-ins for systemd, the engine and the network."""

import fcntl
import itertools
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.stack import PROJECT

RELEASE = PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass" / "release"
STAND_IN = Path(__file__).with_name("stand-in")
OLD, NEW = "1.0", "2.0-7-gabc"
CHANGING = ("systemctl", "docker", "curl", "mv", "ln", "rm", "sync", "cp", "mkdir", "install", "sleep", "timeout")
"""What the scripts call to change something, or to wait for something; the world of the stand-ins."""
AWAY = "the controller did not answer health within 3 s"
"""As a gateway says it (controller.gateway.lease)."""
KILLED = -9
LEAST_CUTS = 30
"""A switch that could be cut in fewer places would not be the one that is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """
    A box that has been switched on and serves the old release, and has the new one staged.

    Attributes:
        world: what the stand-ins have done.
        folder: all of it.

    """

    world: Path
    folder: Path

    @property
    def releases(self) -> Path:
        """Where the releases lie."""
        return self.folder / "home" / "releases"

    def run(self, *argv: str, cut: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the script; before the change of this number the power is cut."""
        for name, content in {"cut": cut, "count": 0}.items():
            (self.world / name).write_text(f"{content}\n")
        environ = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "WORLD": str(self.world),
            "WINDLASS_HOME": str(self.folder / "home"),
            "WINDLASS_RUN": str(self.folder / "run"),
            "WINDLASS_SHIPPED": str(self.folder / "shipped"),
            "WINDLASS_FACTS": str(self.folder / "facts"),
            "WINDLASS_CONFIG": str(self.folder / "appliance.toml"),
            "WINDLASS_WATCH_S": "1",
            "WINDLASS_START_S": "1",
            "WINDLASS_TRIAL_S": "30",
        }
        # A group of its own, which the stand-ins end as a whole.
        shell = ["bash", "-c", 'echo $$ >"$WORLD/group"; exec "$@"', "-", str(RELEASE), *argv]
        return subprocess.run(shell, env=environ, capture_output=True, text=True, check=False, start_new_session=True, timeout=60)

    def units(self) -> set[str]:
        """Return the units that are active, without the parts that are the same for all."""
        return {path.name.removeprefix("windlass-").removesuffix(".service") for path in (self.world / "units").iterdir()}

    def link(self, name: str) -> str:
        """Return the version that a link stands for; empty if there is none."""
        path = self.releases / name
        return str(path.readlink()) if path.is_symlink() else ""

    def verdict(self, version: str) -> str:
        """Return what was found of a release."""
        file = self.releases / version / "verdict"
        return file.read_text().strip() if file.exists() else ""

    def make(self, name: str) -> None:
        """Have the world be so."""
        (self.world / name).touch()

    def leave_kib(self, available_kib: int) -> None:
        """Have so much memory of 8 GB be available."""
        file = self.folder / "facts" / "proc" / "meminfo"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n")

    def reboot(self) -> subprocess.CompletedProcess[str]:
        """Switch it off and on again: what ran and what lay in memory is gone."""
        shutil.rmtree(self.folder / "run-box", ignore_errors=True)
        for unit in (self.world / "units").iterdir():
            unit.unlink()
        (self.world / "restarts").unlink(missing_ok=True)
        (self.world / "switch-wanted").unlink(missing_ok=True)
        return self.run("boot")

    def resume(self) -> subprocess.CompletedProcess[str] | None:
        """Do what systemd does for the switch that a boot has asked for."""
        wanted = self.world / "switch-wanted"
        return self.run("switch", wanted.read_text().strip()) if wanted.exists() else None


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return a box that serves the old release."""
    made = Box(world=tmp_path / "world", folder=tmp_path)
    (made.world / "units").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in CHANGING:
        (tmp_path / "bin" / name).symlink_to(STAND_IN)
    (tmp_path / "shipped" / "models" / "windlass-mini").mkdir(parents=True)
    (tmp_path / "appliance.toml").touch()
    for version in (OLD, NEW):
        folder = made.releases / version
        folder.mkdir(parents=True)
        lines = [f"WINDLASS_VERSION={version}", f"WINDLASS_IMAGE_CONTROLLER=c:{version}", "WINDLASS_IMAGE_LLAMA_CPP=l:1"]
        (folder / "release.env").write_text("\n".join(lines) + "\n")
        for name in ("appliance.yaml", "box.yaml"):
            (folder / name).write_text("{}")
    (made.folder / "home" / "state.db").write_text("keys")
    made.leave_kib(4_000_000)
    (made.world / "home").symlink_to(made.folder / "home")
    (made.releases / OLD / "verdict").write_text("good\n")
    (made.releases / "current").symlink_to(OLD)
    booted = made.run("boot")
    assert booted.returncode == 0, booted.stderr
    assert is_whole(made, OLD)
    return made


def is_whole(box: Box, version: str) -> bool:
    """Say whether this release and nothing else runs, and would after a reboot."""
    return box.units() == {f"controller@{version}", f"gateway@{version}"} and box.link("current") == version


def test_a_good_release_takes_over(box: Box) -> None:
    """It is tried, takes over, is watched, and what it relieved can be rolled back to."""
    done = box.run("switch", NEW)

    assert (0, "good", OLD) == (done.returncode, box.verdict(NEW), box.link("previous")), done.stderr
    assert is_whole(box, NEW)
    assert not (box.releases / "switching").exists()
    assert "keys" == (box.releases / "state.db.saved").read_text()


def changes(box: Box) -> list[str]:
    """Return what systemd was asked to do with controllers, in that order."""
    asked = (box.world / "asked-of-systemctl").read_text().splitlines()
    return [line for line in asked if line.startswith(("start", "stop")) and "controller@" in line]


def test_a_controller_begins_beside_the_one_that_serves(box: Box) -> None:
    """Callers wait from one to the other, and not while the new one is made."""
    (box.world / "asked-of-systemctl").unlink()
    box.run("switch", NEW)
    old, new = (f"windlass-controller@{version}.service" for version in (OLD, NEW))

    assert [f"start --no-block {new}", f"stop {old}", f"start {new}"] == changes(box)


def test_a_controller_that_cannot_begin_costs_nobody_anything(box: Box) -> None:
    """The old one has never ended."""
    (box.world / "asked-of-systemctl").unlink()
    box.make(f"no-controller-{NEW}")
    done = box.run("switch", NEW)

    assert 3 == done.returncode, done.stderr
    assert f"stop windlass-controller@{OLD}.service" not in changes(box)
    assert is_whole(box, OLD)


@pytest.mark.parametrize(("current", "switching", "asked"), [(OLD, f"{NEW} {OLD} -", OLD), ("", f"{NEW} - -", NEW), ("", "", "")])
def test_the_first_release_is_asked_while_it_takes_over(box: Box, current: str, switching: str, asked: str) -> None:
    """The owner's key is made by it, before its gateway may start, and nothing is current until both serve."""
    if not current:
        (box.releases / "current").unlink()
    if switching:
        (box.releases / "switching").write_text(f"{switching}\n")
    shell = ["bash", "-c", f". {RELEASE.with_name('place')} && asked_release"]
    environ = {**os.environ, "WINDLASS_HOME": str(box.folder / "home")}

    assert asked == subprocess.run(shell, env=environ, capture_output=True, text=True, check=True).stdout


def test_a_gateway_that_drains_is_not_waited_for(box: Box) -> None:
    """A long stream keeps the old gateway, and the switch ends all the same."""
    box.make("long-stream")
    done = box.run("switch", NEW)

    assert 0 == done.returncode, done.stderr
    assert {f"controller@{NEW}", f"gateway@{NEW}", f"gateway@{OLD}"} == box.units()


@pytest.mark.parametrize(
    ("fault", "code", "verdict"),
    [
        ("no-trial", 1, "failed: its containers could not be made"),
        ("ends-on-trial", 1, "failed: a process of it ended at once: trial-controller-1: Exited (2)"),
        ("no-controller", 3, "bad: its controller did not start within 1 s"),
        ("no-gateway", 3, "bad: its gateway did not start within 1 s"),
        ("unwell", 3, "bad: with its controller the gateway at http://box is not well: bad503"),
        ("crashing", 3, "bad: a process of it ended by itself while it was watched"),
    ],
)
def test_a_bad_release_leaves_the_old_one(box: Box, fault: str, code: int, verdict: str) -> None:
    """Whatever is wrong with it, the old release runs in the end, and the new one is known for what it is."""
    box.make(f"{fault}-{NEW}")
    done = box.run("switch", NEW)

    assert (code, verdict) == (done.returncode, box.verdict(NEW)), done.stderr
    assert is_whole(box, OLD)
    assert "" == box.link("previous")
    assert not (box.releases / "switching").exists()


def test_a_bad_release_leaves_the_old_one_where_nothing_can_be_written_down(box: Box) -> None:
    """A full disk may be what it ended by."""
    (box.releases / NEW / "verdict.new").mkdir()
    box.make(f"crashing-{NEW}")
    done = box.run("switch", NEW)

    assert 3 == done.returncode, done.stderr
    assert is_whole(box, OLD)
    assert not (box.releases / "switching").exists()


def test_what_was_bad_is_not_started_again_by_itself(box: Box) -> None:
    """It is refused until somebody says otherwise."""
    box.make(f"crashing-{NEW}")
    box.run("switch", NEW)
    refused = box.run("switch", NEW)
    (box.world / f"crashing-{NEW}").unlink()
    (box.world / "restarts").unlink()
    box.run("forgive", NEW)
    done = box.run("switch", NEW)

    assert 1 == refused.returncode
    assert "forgive" in refused.stderr
    assert 0 == done.returncode, done.stderr
    assert is_whole(box, NEW)


def test_going_back_while_the_old_gateway_drains(box: Box) -> None:
    """The old gateway listens no more: another one of the same release does, and the stream goes on in the first."""
    box.make("long-stream")
    box.make(f"crashing-{NEW}")
    done = box.run("switch", NEW)

    assert 3 == done.returncode, done.stderr
    assert {f"controller@{OLD}", f"gateway@{OLD}", f"gateway@{OLD}:2", f"gateway@{NEW}"} == box.units()


def test_a_start_beside_a_switch_waits_for_it(box: Box) -> None:
    """It would take the trial away, and call the switch cut."""
    state = f"{NEW} {OLD} -\n"
    (box.releases / "switching").write_text(state)
    with (box.folder / "run-box" / "switch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = box.run("boot")

    assert 4 == refused.returncode
    assert state == (box.releases / "switching").read_text()


def test_what_drains_goes_on_draining_when_the_service_is_started_again(box: Box) -> None:
    """A gateway that is relieved and is not known for it any more would be started again when it ends."""
    box.make("long-stream")
    box.run("switch", NEW)
    assert 0 == box.run("boot").returncode

    assert (box.folder / "run-box" / "draining" / f"gateway-{OLD}").exists()
    assert {f"controller@{NEW}", f"gateway@{NEW}", f"gateway@{OLD}"} == box.units()


def test_a_rollback_that_cannot_begin_is_none(box: Box) -> None:
    """Systemd has no status of a service that it has not started."""
    assert 0 == box.run("switch", NEW).returncode
    box.make(f"no-switch-{OLD}")

    assert 1 == box.run("rollback").returncode


def test_what_a_host_is_is_known_before_the_controller_ends(box: Box) -> None:
    """To find it out takes a container, and callers wait while no controller is there: also without a trial, after a start."""
    (box.releases / NEW / "verdict").write_text("good\n")
    box.make(f"no-controller-{NEW}")
    box.run("switch", NEW)

    assert (box.folder / "run-box" / "host" / f"{NEW}.yaml").exists()


@pytest.mark.parametrize(
    ("old_trouble", "new_trouble", "code", "runs"),
    [
        ("the disk is slow", "the disk is slow", 0, NEW),
        ("the disk is slow", "it forgets models", 3, OLD),
        (AWAY, AWAY, 3, OLD),
        (AWAY, "the disk is slow", 3, OLD),
    ],
)
def test_a_release_is_not_blamed_for_what_was_wrong_before(
    box: Box, old_trouble: str, new_trouble: str, code: int, runs: str
) -> None:
    """Only for what is new, which how long somebody has waited is not; and for a controller of its own that does not answer."""
    (box.world / f"troubled-{OLD}").write_text(old_trouble)
    (box.world / f"troubled-{NEW}").write_text(new_trouble)
    done = box.run("switch", NEW)

    assert code == done.returncode, done.stderr
    assert is_whole(box, runs)
    assert not (box.releases / "switching").exists()


def test_a_full_box_is_left_alone(box: Box) -> None:
    """A trial would cost somebody a busy model; what is refused may be tried again."""
    (box.releases / NEW / "verdict").write_text("failed: it gave no answer\n")
    box.leave_kib(500_000)
    refused = box.run("switch", NEW)
    none_tried = not (box.world / "tried").exists()
    box.leave_kib(663_000)

    assert (1, "") == (refused.returncode, box.verdict(NEW))  # and what an earlier trial had found is not said of this one
    assert "wants 646 MiB of memory to be available, and 488 MiB are: end a model" in refused.stderr
    assert none_tried
    assert is_whole(box, OLD)
    assert 0 == box.run("switch", NEW).returncode


def test_a_missing_image_is_found_first(box: Box) -> None:
    """A release that is not whole changes nothing."""
    (box.world / "missing").write_text(f"c:{NEW}\n")
    refused = box.run("switch", NEW)

    assert 1 == refused.returncode
    assert f"image c:{NEW} of the release is not on this box" in refused.stderr
    assert is_whole(box, OLD)


def test_what_is_neither_current_nor_previous_is_removed(box: Box) -> None:
    """After a third release the first one is gone."""
    third = box.releases / "3.0"
    shutil.copytree(box.releases / NEW, third)
    (third / "release.env").write_text((third / "release.env").read_text().replace(NEW, "3.0"))
    box.run("switch", NEW)
    (box.releases / NEW / "verdict").write_text("good\n")
    shutil.copytree(box.releases / NEW, third, dirs_exist_ok=True)
    (third / "release.env").write_text((third / "release.env").read_text().replace(NEW, "3.0"))
    done = box.run("switch", "3.0")

    assert 0 == done.returncode, done.stderr
    assert {"3.0", NEW} == {path.parent.name for path in box.releases.glob("*/release.env") if not path.parent.is_symlink()}


def test_a_release_stays_while_its_gateway_drains(box: Box) -> None:
    """Its image could not be removed yet, and nobody would know of it later."""
    box.make("long-stream")
    box.run("switch", NEW)
    shutil.copytree(box.releases / NEW, box.releases / "3.0")
    assert 0 == box.run("switch", "3.0").returncode
    while_it_drains = (box.releases / OLD).exists()
    (box.world / "units" / f"windlass-gateway@{OLD}.service").unlink()
    box.run("prune")

    assert while_it_drains
    assert not (box.releases / OLD).exists()


def start_slot(box: Box, slot: str, version: str) -> None:
    """Start the system in a slot, which has brought a release along."""
    facts, release = box.folder / "facts", box.folder / "shipped" / "release"
    (facts / "etc" / "rauc").mkdir(parents=True, exist_ok=True)
    (facts / "proc").mkdir(exist_ok=True)
    (facts / "etc" / "rauc" / "system.conf").write_text("[system]\nbootloader=grub\ngrubenv=/nowhere\n")
    (facts / "proc" / "cmdline").write_text(f"quiet rauc.slot={slot} ro\n")
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(box.releases / NEW, release)
    (release / "verdict").unlink(missing_ok=True)
    (release / "release.env").write_text((release / "release.env").read_text().replace(NEW, version))
    booted = box.reboot()
    assert booted.returncode == 0, booted.stderr


def test_each_slot_has_its_release(box: Box) -> None:
    """A slot that was written anew begins with what it brought; what was deployed to one since comes back with it."""
    start_slot(box, "A", "5.0")
    first = box.link("current")
    assert 0 == box.run("switch", NEW).returncode
    start_slot(box, "B", "6.0")
    second = box.link("current")
    start_slot(box, "A", "5.0")

    assert ("5.0", "6.0", NEW) == (first, second, box.link("current"))
    assert (NEW, "6.0") == (box.link("current.A"), box.link("current.B"))
    assert is_whole(box, NEW)


def test_a_slot_that_is_written_anew_with_the_same_system_begins_with_its_release(box: Box) -> None:
    """What is forgotten of a slot before it is written is enough for that."""
    start_slot(box, "B", "6.0")
    assert 0 == box.run("switch", NEW).returncode
    for name in ("current.B", "shipped.B"):
        (box.releases / name).unlink()
    start_slot(box, "B", "6.0")

    assert "6.0" == box.link("current")


@pytest.mark.parametrize("mark", ["", "releases/loading", "incoming/deploy/loading"])
def test_images_whose_loading_was_cut_are_given_up_and_loaded_anew(box: Box, mark: str) -> None:
    """The engine calls layers whole that are not on the disk; what another release stands on has come before, and stays."""
    (box.folder / "shipped" / "images").mkdir()
    subprocess.run(["zstd", "-q", "-o", box.folder / "shipped" / "images" / "images.tar.zst"], input=b"layers", check=True)
    if mark:
        (box.folder / "home" / mark).parent.mkdir(parents=True, exist_ok=True)
        (box.folder / "home" / mark).touch()
    start_slot(box, "B", "6.0")

    again = ["image rm --force c:6.0", "load --quiet"] if mark else []
    assert ["load --quiet", *again] == loads(box)
    assert not (box.folder / "home" / (mark or "releases/loading")).exists()
    assert "6.0" == box.link("current")


def loads(box: Box) -> list[str]:
    """Return what the engine was asked to load and to give up."""
    return [line for line in (box.world / "asked-of-docker").read_text().splitlines() if line.startswith(("load", "image rm"))]


def test_what_a_deploy_was_loading_is_given_up_once(box: Box) -> None:
    """Taken once more as far as it has come, and removed where no release stands on it; the next system finds nothing of it."""
    deploy = box.folder / "home" / "incoming" / "deploy"
    (deploy / "9.0" / "images").mkdir(parents=True)
    (deploy / "layers").mkdir()
    (deploy / "layers" / "one.tar").write_text("a layer")
    for name, content in {"manifest.json": "[]", "sums": "0123 one.tar\n", "tags": f"m:9\nc:{OLD}\n"}.items():
        (deploy / "9.0" / "images" / name).write_text(content)
    (deploy / "loading").write_text("9.0\n1.0\n")
    (box.folder / "shipped" / "images").mkdir()
    subprocess.run(["zstd", "-q", "-o", box.folder / "shipped" / "images" / "images.tar.zst"], input=b"layers", check=True)
    start_slot(box, "B", "6.0")
    first = loads(box)
    (box.world / "asked-of-docker").unlink()
    start_slot(box, "B", "7.0")

    assert ["load --quiet"] * 2 + ["image rm --force c:6.0", "image rm --force m:9", "load --quiet"] == first
    assert ["load --quiet"] == loads(box)
    with tarfile.open(box.world / "loaded-2") as archive:
        assert {".", "./manifest.json", "one.tar"} == set(archive.getnames())


@pytest.mark.parametrize("fault", ["", "crashing"])
@pytest.mark.parametrize(("again", "first"), [("reboot", 1), ("switch", 2)])
@pytest.mark.timeout(600)
def test_a_power_cut_leaves_a_whole_release(box: Box, tmp_path: Path, fault: str, again: str, first: int) -> None:
    """Cut before every third change, another third each way, it comes up with a whole release, and a switch goes through."""
    if fault:
        box.make(f"{fault}-{NEW}")
    start = tmp_path / "start"
    start.mkdir()
    for name in ("home", "world"):
        shutil.copytree(box.folder / name, start / name, symlinks=True)
    wrong = []
    for cut in itertools.count(first, 3):
        for name in ("home", "world", "run-box"):
            shutil.rmtree(box.folder / name, ignore_errors=True)
        for name in ("home", "world"):
            shutil.copytree(start / name, box.folder / name, symlinks=True)
        ended = box.run("switch", NEW, cut=cut)
        if ended.returncode != KILLED:
            break  # it was over before
        if problem := check(box, again, fault):
            wrong.append(f"{cut}: {problem}")

    assert not wrong, "\n".join(wrong)
    assert cut > LEAST_CUTS


def check(box: Box, again: str, fault: str) -> str:
    """Say what is wrong with a box after a cut; empty if nothing is."""
    if again == "reboot":
        booted = box.reboot()
        if booted.returncode or not any(is_whole(box, version) for version in (OLD, NEW)):
            return f"after the reboot there are {sorted(box.units())}, current is {box.link('current')}: {booted.stderr}"
        box.resume()
        if not any(is_whole(box, version) for version in (OLD, NEW)):
            return f"after the watch there are {sorted(box.units())}, current is {box.link('current')}"
    again_done = box.run("switch", NEW)
    expected = OLD if fault else NEW
    if not is_whole(box, expected):
        return f"switched again, there are {sorted(box.units())}, current is {box.link('current')}: {again_done.stderr}"
    return "it is still under way" if (box.releases / "switching").exists() else ""
