"""A laptop brings releases to a booted machine over ssh: good ones, bad ones, with a cut link, against a lock, and back."""

import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from bench.stack import BUILD
from controller.ops.deploy import stock
from controller.ops.deploy.cargo import Wish, compose_release
from controller.ops.deploy.errors import TrialError, UnreachableBoxError, WentBackError
from controller.ops.deploy.link import Link
from controller.ops.deploy.lock import holding
from controller.ops.deploy.steps import Boat, look
from controller.ops.images import read_tags
from controller.ops.release import COMPOSE_FILES, PROJECT
from controller.ops.targets import CPU
from tests.appliance.box import HOME, NAME, Box
from tests.system.talk import LONG, Stream, whole

pytestmark = pytest.mark.appliance

WATCH_S: Final = 30
"""Instead of 90: what goes wrong here does so at once."""
STREAM_S: Final = 120.0
"""How long an answer takes that is on its way while a release takes over."""
CORES: Final = 2.0

# What a release is made of beside the controller that this checkout has.
ANOTHER: Final = ""
MUTE: Final = 'ENTRYPOINT ["sh", "-c", "[ $1 = box ] && exec python3 -m controller \\"$@\\"", "-"]\n'
"""It takes the box's configuration, and never serves."""
FRAIL: Final = """\
ENTRYPOINT ["sh", "-c", "if [ -n \\"$WATCHDOG_USEC\\" ]; then (sleep 20; kill 1) & fi; exec python3 -m controller \\"$@\\"", "-"]
"""
"""It serves at its trial and, where somebody watches over it, ends by itself after a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """
    Releases of this checkout's images, each with a controller's image of its own.

    Attributes:
        tags: this checkout's images, by the variables that carry them.
        folder: where layers lie on their way.
        made: the images that are to be removed again.

    """

    tags: dict[str, str]
    folder: Path
    made: list[str] = field(default_factory=list)

    def make(self, more: str) -> Wish:
        """Make a release whose controller is as this checkout's, with *more* in its Dockerfile."""
        tag = f"windlass/controller:{secrets.token_hex(6)}"
        base = self.tags["WINDLASS_IMAGE_CONTROLLER"]
        recipe = f"FROM {base}\nLABEL windlass.test={tag}\nRUN head -c 3000000 /dev/urandom >/chance\n{more}"
        argv = ["docker", "build", "--quiet", "--network", "none", "--tag", tag, "-"]
        subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True)
        self.made.append(tag)
        tags = self.tags | {"WINDLASS_IMAGE_CONTROLLER": tag}
        release = compose_release(
            f"test-{tag.rpartition(':')[2]}", tags, settings={"WINDLASS_USE_GPU": "false"}, files=self.files
        )
        return Wish(release=release, images=stock.find_images(release.tags), target=CPU, folder=self.folder)

    @property
    def files(self) -> dict[str, str]:
        """The Compose files."""
        return {name: (PROJECT / "compose" / name).read_text(encoding="utf-8") for name in COMPOSE_FILES}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    """Return what makes releases, of the images that the machine has as far as possible."""
    known = read_tags(BUILD / "images.env")
    names = ("WINDLASS_IMAGE_CONTROLLER", "WINDLASS_IMAGE_LLAMA_CPP")
    made = Releases(tags={name: known[name] for name in names}, folder=tmp_path_factory.mktemp("deploy"))
    yield made
    subprocess.run(["docker", "rmi", "--force", *made.made], check=False, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def _impatient(box: Box) -> None:
    """Have switches watched for a shorter time."""
    box.vm.shell(
        "mkdir -p /run/systemd/system/windlass-switch@.service.d && cd /run/systemd/system/windlass-switch@.service.d && "
        f"printf '[Service]\\nEnvironment=WINDLASS_WATCH_S={WATCH_S}\\n' >watch.conf && systemctl daemon-reload"
    )


def environ(box: Box) -> dict[str, str]:
    """Return the environment in which ssh knows the machine."""
    return {"WINDLASS_SSH": f"ssh -F {box.vm.shell.config}"}


@contextmanager
def connected(box: Box) -> Iterator[Link]:
    """Connect to the machine as the command does."""
    with Link("box", environ=environ(box)) as link:
        yield link


def deploy(box: Box, wish: Wish) -> None:
    """Deploy as the command does."""
    with connected(box) as link:
        Boat(link, wish).deploy()


def command(box: Box, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command as `make` does."""
    return subprocess.run(
        [sys.executable, "-m", "controller.ops.deploy", *argv, "--host", "box"],
        cwd=PROJECT, env=os.environ | environ(box), capture_output=True, text=True, check=False,
    )  # fmt: skip


def status(box: Box) -> dict[str, Any]:
    """Return what the machine says of its releases."""
    with connected(box) as link:
        found = look(link).status
    assert found is not None
    return dict(found)


def workers(box: Box) -> str:
    """Return which workers run, and since when."""
    running = "docker ps --quiet --no-trunc --filter label=windlass.owner=windlass"
    return box.vm.shell(
        f"{running} | xargs --no-run-if-empty docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' | sort"
    )


def text(box: Box) -> str:
    """Return what the built-in model says."""
    with box.caller() as caller:
        return caller.text(NAME, tokens=8)


class LongAnswer(threading.Thread):
    """An answer that is on its way while a release takes over."""

    def __init__(self, box: Box) -> None:
        super().__init__(daemon=True)
        self.box = box
        self.events: Stream | None = None
        self.began_s = self.ended_s = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        """Wait for the moment, then ask and read."""
        try:
            while not self.box.vm.shell(f"ls {HOME}/releases/switching 2>/dev/null || true"):
                time.sleep(0.5)
            self.began_s = time.monotonic()
            with self.box.caller() as caller, caller.stream(NAME, tokens=LONG) as stream:
                self.events = stream
                stream.rest()
            self.ended_s = time.monotonic()
        except Exception as exc:  # noqa: BLE001 -- the test shows it
            self.error = exc


def slow_down(box: Box) -> None:
    """Give the built-in model's worker so little of the processors that a long answer takes long enough."""
    began_s = time.monotonic()
    with box.caller() as caller:
        caller.text(NAME, tokens=64)
    long_s = (time.monotonic() - began_s) * LONG / 64
    if long_s < STREAM_S:
        cpus = max(0.05, CORES * long_s / STREAM_S)
        box.vm.shell(f"docker ps --quiet --filter label=windlass.model={NAME} | xargs docker update --cpus {cpus:.2f}")


def when(look_at: Callable[[], object], seen: list[float]) -> threading.Thread:
    """Note the moment at which something is true."""

    def watch() -> None:
        while not look_at():
            time.sleep(0.5)
        seen.append(time.monotonic())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_good_release(box: Box, releases: Releases) -> None:
    """It takes over: an answer on its way is delivered whole by the gateway that leaves, and no model is loaded anew."""
    said, before = text(box), status(box)["current"]
    wish = releases.make(ANOTHER)
    slow_down(box)
    loaded = workers(box)
    answer, taken = LongAnswer(box), list[float]()
    answer.start()
    watching = when(lambda: box.vm.shell(f"readlink {HOME}/releases/current") == wish.release.version, taken)
    deploy(box, wish)
    watching.join(60)
    answer.join(300)

    assert answer.error is None
    assert answer.events is not None
    assert whole(answer.events)
    assert answer.began_s < taken[0] < answer.ended_s, "the answer was not on its way when the release took over"
    assert (wish.release.version, before) == (status(box)["current"], status(box)["previous"])
    assert "" != loaded == workers(box)
    assert said == text(box)
    assert "" == box.vm.shell(f"ls {HOME}/incoming")


def test_a_held_lock(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second is told who is there, and touches nothing."""
    before = status(box)
    monkeypatch.setenv("LOGNAME", "ada")
    with connected(box) as theirs, holding(theirs, "v7", break_lock=False):
        monkeypatch.setenv("LOGNAME", "bob")
        refused = command(box, "rollback")

    assert 5 == refused.returncode, refused.stdout
    assert re.search("ada@.* has been deploying v7 since", refused.stdout)
    assert before == status(box)


def test_a_cut_link(box: Box, releases: Releases) -> None:
    """The switch goes on when the connection is cut for good, and the same command finds it and waits for its end."""
    wish = releases.make(ANOTHER)
    switching = "systemctl is-active 'windlass-switch@*' || true"
    with connected(box) as link:
        began = when(lambda: box.vm.shell(switching) == "activating", [])

        def cut_then() -> None:
            began.join(600)
            link.close()

        cut = threading.Thread(target=cut_then)
        cut.start()
        with pytest.raises(UnreachableBoxError):
            Boat(link, wish, tries=1).deploy()
        cut.join(600)
    invocation = box.vm.shell(f"systemctl show --property InvocationID --value windlass-switch@{wish.release.version}")
    deploy(box, wish)

    assert wish.release.version == status(box)["current"]
    assert invocation
    journal = box.vm.shell(f"journalctl --output cat --unit windlass-switch@{wish.release.version}")
    assert 1 == journal.count("is tried beside")


def test_a_release_that_does_not_serve(box: Box, releases: Releases) -> None:
    """It is found at its trial, and what serves has never stopped."""
    before, loaded = status(box)["current"], workers(box)
    with pytest.raises(TrialError, match=f"{before} goes on serving"):
        deploy(box, releases.make(MUTE))

    assert before == status(box)["current"]
    assert "" != loaded == workers(box)


def test_a_release_that_ends_after_a_while(box: Box, releases: Releases) -> None:
    """It takes over, is watched, and is left again; the old release is back, the models stay loaded, and a retry is refused."""
    said, before, loaded = text(box), status(box)["current"], workers(box)
    wish = releases.make(FRAIL)
    with pytest.raises(WentBackError, match=f"{before} goes on serving"):
        deploy(box, wish)

    assert before == status(box)["current"]
    assert "" != loaded == workers(box)
    assert said == text(box)
    with pytest.raises(TrialError, match="was found bad"):
        deploy(box, wish)


def test_back_to_the_release_before(box: Box) -> None:
    """`rollback` changes the two last releases over, and the models stay loaded."""
    before, loaded = status(box), workers(box)
    done = command(box, "rollback")

    assert 0 == done.returncode, done.stdout
    assert (before["previous"], before["current"]) == (status(box)["current"], status(box)["previous"])
    assert "" != loaded == workers(box)
