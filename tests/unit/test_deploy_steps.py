"""What a deploy does with what a box answers, with a connection of the test's."""

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from controller.ops.deploy.cargo import Wish, compose_release
from controller.ops.deploy.commands import Route
from controller.ops.deploy.errors import DeployError, UnfitError
from controller.ops.deploy.host import Host
from controller.ops.deploy.layers import Image, layer_file
from controller.ops.deploy.link import Answer, Link
from controller.ops.deploy.steps import Boat
from controller.ops.targets import CPU
from controller.units import GIB

IMAGE = Image(tag="windlass/controller:1", layers=("sha256:" + "a" * 64,), architecture="amd64")
HOST = Host(machine="x86_64", data_free_bytes=GIB, engine_free_bytes=GIB)


class Answering(Link):
    """A connection to a box that does everything, and whose engine says this of what it is to load."""

    rehearses = False

    def __init__(self, loaded: Answer) -> None:
        self.route = Route(name="box", control="")
        self.asked: list[tuple[str, ...]] = []
        self._loaded = loaded

    def must(self, what: str, argv: object) -> str:
        """Do it."""
        return ""

    def copy(self, sources: object, folder: PurePosixPath) -> int:
        """Copy nothing."""
        return 0

    def script(self, name: str, *arguments: str, as_root: bool = True) -> Answer:
        """Answer, and note it."""
        self.asked.append((name, *arguments))
        return self._loaded


@pytest.fixture
def wish(tmp_path: Path) -> Wish:
    """Return a release of one image, which was taken apart before."""
    store = tmp_path / "layers"
    store.mkdir()
    (store / "configurations.json").write_text(json.dumps({f"{IMAGE.tag} {IMAGE.layers[0]}": "c.json"}))
    (store / "c.json").write_text("{}")
    (store / layer_file(IMAGE.layers[0])).write_bytes(b"layer")
    release = compose_release("1", {"WINDLASS_IMAGE_CONTROLLER": IMAGE.tag}, settings={}, files={})
    return Wish(release=release, images=(IMAGE,), target=CPU, folder=tmp_path)


def send(link: Link, wish: Wish, host: Host = HOST) -> None:
    """Copy what a box lacks, and have its engine load it."""
    Boat(link, wish)._send(host, lambda: None)


def test_an_engine_without_room_is_told_so(wish: Wish) -> None:
    """It is not asked again with more of the same."""
    link = Answering(Answer(code=66, out="", err="write /usr/lib/x: no space left on device\n"))
    with pytest.raises(UnfitError, match=r"^box: the disk of its container engine is full: remove models"):
        send(link, wish)

    assert 1 == len(link.asked)


class Forgetful(Answering):
    """A box whose engine had the image, and has given it up."""

    def script(self, name: str, *arguments: str, as_root: bool = True) -> Answer:
        """Answer what it is."""
        self.asked.append((name, *arguments))
        said = "machine\tx86_64\nuid\t0\nengine\t29.1.3\ncompose\t2\nrsync\t3\npackage\t1\n" if name == "probe" else ""
        return Answer(code=0, out=said, err="")


def test_an_image_that_only_the_box_had_is_wanted_here_once_it_is_given_up(wish: Wish) -> None:
    """It is said at once, and not found missing when the release is staged."""
    link = Forgetful(Answer(code=0, out="", err=""))
    with pytest.raises(UnfitError, match="windlass/controller:1 is neither here nor on the box"):
        send(link, replace(wish, images=()), replace(HOST, loading=True))

    assert ["load", "probe"] == [name for name, *_ in link.asked]


def test_what_cannot_be_given_up_ends_a_deploy(wish: Wish) -> None:
    """Before anything is compared with images that may be empty."""
    link = Answering(Answer(code=1, out="", err="image is being used by running container"))
    with pytest.raises(DeployError, match="giving up half loaded images on box: image is being used"):
        send(link, wish, Host(machine="x86_64", loading=True))

    assert [("load", "/var/lib/windlass/incoming/deploy")] == link.asked
