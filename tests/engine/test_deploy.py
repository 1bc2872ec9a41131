"""A release goes onto a box over real ssh and rsync: what is sent, what is refused, and what a cut leaves."""

import asyncio
import contextlib
import secrets
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from controller.ops.deploy import fleet, stock
from controller.ops.deploy.cargo import Wish, compose_release
from controller.ops.deploy.errors import (
    DeployError,
    LockedError,
    TrialError,
    UnfitError,
    UnreachableBoxError,
    WentBackError,
)
from controller.ops.deploy.link import Link
from controller.ops.deploy.lock import holding
from controller.ops.deploy.rehearsal import Rehearsal
from controller.ops.deploy.steps import Boat, look
from controller.ops.steps import console
from controller.ops.targets import CPU
from tests.engine.box import StandInBox, standin_box
from tests.engine.private_engine import missing
from tests.fakeworker import image as fake
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

Maker = Callable[[str], str]

LAYER_BYTES = 12_000_000
"""Of chance, so that compression saves nothing and bytes on the wire are bytes of layers."""


@pytest.fixture(scope="module")
def base(engine: docker.APIClient) -> str:
    """Return the image that the box has already."""
    return fake.base_image(engine)


@pytest.fixture(scope="module")
def box(base: str) -> Iterator[StandInBox]:
    """Run a box whose engine has nothing but the base."""
    if said := missing():
        pytest.fail(said)
    with standin_box(base) as here:
        yield here


@pytest.fixture
def make_image(base: str, tmp_path: Path) -> Iterator[Maker]:
    """Return what makes an image of two layers on the base; both are new."""
    made = []

    def make(name: str) -> str:
        tag = f"windlass/{name}:{secrets.token_hex(6)}"
        context = tmp_path / tag.replace("/", "-").replace(":", "-")
        context.mkdir()
        for layer in ("one", "two"):
            (context / layer).write_bytes(secrets.token_bytes(LAYER_BYTES))
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY one /one\nCOPY two /two\n")
        subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(context)], check=True, capture_output=True)
        made.append(tag)
        return tag

    yield make
    for tag in made:
        subprocess.run(["docker", "rmi", "--force", tag], check=False, capture_output=True)


@pytest.fixture
def wish(make_image: Maker, tmp_path: Path) -> Wish:
    """Return a release of one new image."""
    return wish_for(make_image("controller"), tmp_path)


def wish_for(tag: str, folder: Path) -> Wish:
    """Return a release of one image."""
    release = compose_release(
        tag.rpartition(":")[2],
        {"WINDLASS_IMAGE_CONTROLLER": tag},
        settings={"WINDLASS_USE_GPU": "false"},
        files={"appliance.yaml": "services: {}\n", "box.yaml": "services: {}\n"},
    )
    return Wish(release=release, images=stock.find_images([tag]), target=CPU, folder=folder / "deploy")


@contextlib.contextmanager
def connected(box: StandInBox, name: str = "box") -> Iterator[Link]:
    """Connect to the box."""
    with Link(name, environ={"WINDLASS_SSH": box.ssh}) as link:
        yield link


def deploy(box: StandInBox, wish: Wish) -> None:
    """Deploy as the command does."""
    with connected(box) as link:
        Boat(link, wish).deploy()


def status(box: StandInBox) -> dict[str, Any]:
    """Return what the box says of its releases."""
    with connected(box) as link:
        found = look(link).status
    assert found is not None
    return dict(found)


def test_only_missing_layers_are_sent(box: StandInBox, make_image: Maker, tmp_path: Path) -> None:
    """The base lies there already and is not sent; the same release again sends next to nothing; a second image only itself."""
    first = wish_for(make_image("controller"), tmp_path)
    before = box.wire.sent_bytes
    deploy(box, first)
    sent_bytes = box.wire.sent_bytes - before

    assert first.release.version == status(box)["current"]
    assert 2 * LAYER_BYTES < sent_bytes < 2.1 * LAYER_BYTES

    before = box.wire.sent_bytes
    deploy(box, first)

    assert box.wire.sent_bytes - before < 100_000

    before = box.wire.sent_bytes
    deploy(box, wish_for(make_image("controller"), tmp_path))

    assert box.wire.sent_bytes - before < 2.1 * LAYER_BYTES
    assert first.release.version == status(box)["previous"]
    assert "" == box.shell("ls /var/lib/windlass/incoming")


def test_a_cut_link_is_taken_up_where_it_was(box: StandInBox, wish: Wish) -> None:
    """A connection cut in the middle of the copy comes back by itself, and what has come is not sent again."""
    box.wire.after = (box.wire.sent_bytes + int(1.5 * LAYER_BYTES), box.wire.cut)
    before, connections = box.wire.sent_bytes, box.wire.connections
    with console.capture() as shown:
        deploy(box, wish)

    assert wish.release.version == status(box)["current"]
    assert box.wire.connections > connections + 1, "the wire was not cut"
    assert "lost" in shown.get()
    assert box.wire.sent_bytes - before < 2.2 * LAYER_BYTES


def test_a_killed_deploy_is_run_again(box: StandInBox, wish: Wish) -> None:
    """What a deploy that died in the middle has left on the box is used by the next one."""
    box.wire.after = (box.wire.sent_bytes + int(1.5 * LAYER_BYTES), box.wire.cut)
    with connected(box) as link, pytest.raises(UnreachableBoxError):
        Boat(link, wish, tries=1).deploy()
    arrived = int(box.shell("du --bytes --summarize /var/lib/windlass/incoming | cut -f 1"))
    before = box.wire.sent_bytes
    deploy(box, wish)

    assert arrived > LAYER_BYTES
    assert box.wire.sent_bytes - before < 2.1 * LAYER_BYTES - arrived + 200_000
    assert wish.release.version == status(box)["current"]


CUT_AFTER_LOADING = """\
#!/bin/sh
if [ $# -gt 0 ] || [ ! -e /var/lib/windlass/incoming/deploy/loading ]; then exec /usr/bin/sync "$@"; fi
kill -9 $PPID
"""
"""A `sync` before which the loading is cut."""


def test_layers_that_a_cut_has_emptied_are_loaded_anew(box: StandInBox, wish: Wish) -> None:
    """The engine counts them as whole: what was being loaded is given up, and comes again from what lies there already."""

    def files() -> set[Path]:
        return {path for path in box.engine.log.parent.glob("data/overlay2/*/diff/*") if path.name in {"one", "two"}}

    before = files()
    box.shell(f"printf %s {shlex.quote(CUT_AFTER_LOADING)} >/usr/local/bin/sync; chmod 755 /usr/local/bin/sync")
    with pytest.raises(DeployError, match="loading images"):
        deploy(box, wish)
    box.shell("rm /usr/local/bin/sync")
    loaded = files() - before
    for path in loaded:
        path.write_bytes(b"")
    sent = box.wire.sent_bytes
    with console.capture() as shown:
        deploy(box, wish)

    assert 2 == len(loaded)
    assert "loaded anew" in shown.get()
    assert [LAYER_BYTES] * 2 == [path.stat().st_size for path in files() - before]
    assert box.wire.sent_bytes - sent < 200_000, "what has come was sent again"
    assert wish.release.version == status(box)["current"]
    assert "" == box.shell("ls /var/lib/windlass/incoming")


def test_an_image_of_known_layers(box: StandInBox, wish: Wish, base: str) -> None:
    """An image that differs by its configuration alone costs no layer."""
    tag = f"{wish.images[0].tag}-label"
    recipe = f"FROM {base}\nLABEL windlass.test={tag}\n"
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, "-"], input=recipe, text=True, check=True, capture_output=True)
    before = box.wire.sent_bytes
    try:
        deploy(box, wish_for(tag, wish.folder))
    finally:
        subprocess.run(["docker", "rmi", "--force", tag], check=False, capture_output=True)

    assert box.wire.sent_bytes - before < 100_000


def test_a_damaged_layer_is_sent_again(box: StandInBox, wish: Wish) -> None:
    """A file that a power cut has filled with zeros under its whole length is noticed before the engine sees it."""
    store = wish.folder / "layers"
    layer = wish.images[0].layers[-1]
    stock.pack(wish.images, [layer], store)
    file = store / f"{layer.removeprefix('sha256:')}.tar"
    seconds = int(file.stat().st_mtime)
    box.shell(
        "mkdir -p /var/lib/windlass/incoming/deploy/layers; cd /var/lib/windlass/incoming/deploy/layers; "
        f"truncate --size={file.stat().st_size} {file.name}; touch --date=@{seconds} {file.name}"
    )
    deploy(box, wish)

    assert wish.release.version == status(box)["current"]


def test_a_lock_is_respected(box: StandInBox, wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's lock is refused with who, what and since when; it ends with its connection; it can be broken."""
    monkeypatch.setenv("LOGNAME", "ada")
    with connected(box) as theirs, holding(theirs, "v7", break_lock=False) as check:
        monkeypatch.setenv("LOGNAME", "bob")
        with pytest.raises(LockedError, match=r"ada@.* has been deploying v7 since 20\d\d-.*BREAK_LOCK=1"):
            deploy(box, wish)
        check()
        deploy(box, replace(wish, break_lock=True))
        with pytest.raises(UnreachableBoxError, match="broke it"):
            asyncio.run(until("the broken lock is noticed", lambda: check() or False))
    deploy(box, wish)


def test_a_lock_ends_with_its_connection(box: StandInBox) -> None:
    """A cut connection leaves no lock behind."""
    with contextlib.suppress(UnreachableBoxError), connected(box) as link, holding(link, "v7", break_lock=False):
        box.wire.cut()
    with connected(box) as link, holding(link, "v8", break_lock=False):
        pass


@pytest.mark.parametrize(("fate", "error"), [("failed", TrialError), ("bad", WentBackError)])
def test_a_bad_release_is_told(box: StandInBox, make_image: Maker, tmp_path: Path, fate: str, error: type[DeployError]) -> None:
    """A release that fails its trial, or does not hold, is an error of its own kind that says why and what serves now."""
    good = wish_for(make_image("controller"), tmp_path)
    deploy(box, good)
    box.fate(fate)
    try:
        with pytest.raises(error, match=f"{good.release.version} goes on serving"):
            deploy(box, wish_for(make_image("controller"), tmp_path))
    finally:
        box.fate("good")

    assert good.release.version == status(box)["current"]


def test_a_switch_goes_on_without_us(box: StandInBox, wish: Wish) -> None:
    """A link cut while the box switches is taken up again, and the switch is followed to its end without a second one."""
    box.fate("good", pause_s=3)
    failures: list[Exception] = []

    def run() -> None:
        try:
            deploy(box, wish)
        except Exception as exc:  # noqa: BLE001 -- shown below
            failures.append(exc)

    thread = threading.Thread(target=run)
    try:
        thread.start()
        switches = "ls /run/standin/*.pid 2>/dev/null || true"
        asyncio.run(until("the switch has begun", lambda: box.shell(switches), deadline_s=60))
        box.wire.cut()
        thread.join(60)
    finally:
        box.fate("good")

    assert [] == failures
    assert wish.release.version == status(box)["current"]
    assert 1 == box.shell("cat /run/standin/*.log").count(f"{wish.release.version} is tried")


def test_another_switch_is_not_disturbed(box: StandInBox, wish: Wish, make_image: Maker, tmp_path: Path) -> None:
    """While the box switches to another release, a deploy is refused."""
    with connected(box) as link:
        box.fate("good", pause_s=5)
        box.shell("mkdir -p /var/lib/windlass/releases/slow; systemctl start --no-block windlass-switch@slow.service")
        try:
            with pytest.raises(LockedError, match="switching to slow"):
                Boat(link, wish).deploy()
        finally:
            box.fate("good")
            asyncio.run(until("it has ended", lambda: not look(link).switching, deadline_s=20))
    box.shell("rm -r /var/lib/windlass/releases/slow")


def test_other_processors_are_refused(box: StandInBox, wish: Wish) -> None:
    """Images for other processors are refused before anything is locked or copied."""
    foreign = tuple(replace(image, architecture="arm64") for image in wish.images)
    with pytest.raises(UnfitError, match="is for arm64 and the box is amd64"):
        deploy(box, replace(wish, images=foreign))

    assert "" == box.shell("ls /var/lib/windlass/incoming 2>/dev/null || true")


def test_an_image_that_nobody_has_is_refused(box: StandInBox, wish: Wish) -> None:
    """A release whose image is neither here nor there is refused by its name."""
    with pytest.raises(UnfitError, match=r"windlass/controller:.* is neither here nor on the box"):
        deploy(box, replace(wish, images=()))


def test_a_full_disk_is_told_before_the_copy(box: StandInBox, wish: Wish) -> None:
    """Layers that do not fit are not begun."""
    box.shell("fallocate --length 200M /var/lib/windlass/ballast")
    before = box.wire.sent_bytes
    try:
        with pytest.raises(UnfitError, match=r"the disk for models has .* free: wanted"):
            deploy(box, wish)
    finally:
        box.shell("rm /var/lib/windlass/ballast")

    assert box.wire.sent_bytes - before < LAYER_BYTES


def test_a_disk_that_fills_meanwhile_is_told(box: StandInBox, wish: Wish) -> None:
    """A disk that is full in the middle of the copy is an error that says so, and keeps what has come."""

    def fill() -> None:
        free = int(box.shell("df --block-size=1 --output=avail /var/lib/windlass | tail -n 1"))
        box.shell(f"fallocate --length {free - 1_000_000} /var/lib/windlass/ballast")

    box.wire.after = (box.wire.sent_bytes + LAYER_BYTES // 2, fill)
    try:
        with pytest.raises(DeployError, match="the disk of box is full"):
            deploy(box, wish)
    finally:
        box.shell("rm /var/lib/windlass/ballast")
    deploy(box, wish)

    assert wish.release.version == status(box)["current"]


def test_who_cannot_be_reached_is_told(box: StandInBox) -> None:
    """A box that is off, and one whose key nobody knows, are told apart, each with what to do."""
    with pytest.raises(UnreachableBoxError, match=r"off cannot be reached.*no ssh server listens"), connected(box, "off"):
        pass
    with pytest.raises(UnreachableBoxError, match=r"unknown cannot be reached.*connect once by hand"), connected(box, "unknown"):
        pass


def test_several_boxes_one_after_the_other(box: StandInBox, wish: Wish) -> None:
    """The first failure ends it, and it is said which boxes are done, which failed and which were not touched."""
    reached = []

    def act(link: Link) -> None:
        reached.append(link.route.name)
        Boat(link, wish).deploy()

    with console.capture() as shown, pytest.raises(UnreachableBoxError, match="off cannot be reached"):
        fleet.each(["box", "off", "twin"], act, link=lambda name: Link(name, environ={"WINDLASS_SSH": box.ssh}))

    assert ["box"] == reached
    assert "done: box; failed: off; untouched: twin" in shown.get()
    assert wish.release.version == status(box)["current"]


def test_a_rehearsal_changes_nothing(box: StandInBox, wish: Wish) -> None:
    """With DRY_RUN every command is shown in its order, and the box stays as it is."""
    before = status(box)
    with console.capture() as shown, Rehearsal("box", environ={"WINDLASS_SSH": box.ssh}) as link:
        Boat(link, wish).deploy()
    words = [
        "lock.sh", "mkdir --parents", "rsync", "docker save", "load.sh", "release stage",
        f"systemctl start --no-block windlass-switch@{wish.release.version}.service", "follow.sh", "rm --recursive",
    ]  # fmt: skip
    places = [shown.get().find(word) for word in words]

    assert -1 not in places, shown.get()
    assert sorted(places) == places
    assert before == status(box)
    assert "" == box.shell("ls /var/lib/windlass/incoming 2>/dev/null || true")
