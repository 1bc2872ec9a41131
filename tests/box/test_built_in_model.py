"""The model that a box brings along: there after a start, whole, whatever the start before it was cut at."""

import itertools
import shutil

from tests.box.test_switch import KILLED, Box, box

__all__ = ["box"]  # the fixture

WEIGHTS = b"weights"


def empty(box: Box) -> None:
    """Take the model away, as on a box that was never switched on, and put weights into what is shipped."""
    shutil.rmtree(box.folder / "home" / "models")
    (box.folder / "shipped" / "models" / "windlass-mini" / "mini.gguf").write_bytes(WEIGHTS)


def taken(box: Box) -> dict[str, bytes]:
    """Return the files of the model, as the controller sees them; empty where there is no such folder."""
    folder = box.folder / "home" / "models" / "windlass-mini"
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_a_box_without_it_takes_it(box: Box) -> None:
    """The first start puts it into its place, and leaves nothing beside it."""
    empty(box)

    box.reboot()

    assert {"mini.gguf": WEIGHTS} == taken(box)
    assert ["windlass-mini"] == [path.name for path in (box.folder / "home" / "models").iterdir()]


def test_what_its_owner_changed_stays(box: Box) -> None:
    """A folder that is there is nobody's but its owner's."""
    empty(box)
    folder = box.folder / "home" / "models" / "windlass-mini"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_bytes(b"pinned = true")

    box.reboot()

    assert {"model.toml": b"pinned = true"} == taken(box)


def test_a_start_that_is_cut_anywhere_leaves_all_of_it_or_nothing(box: Box) -> None:
    """Half of it is never in its place, and the next start brings it there."""
    for cut in itertools.count(1):
        empty(box)
        done = box.run("boot", cut=cut)

        assert taken(box) in ({}, {"mini.gguf": WEIGHTS})
        if done.returncode != KILLED:
            break
        box.reboot()
        assert {"mini.gguf": WEIGHTS} == taken(box)

    assert cut > 5
