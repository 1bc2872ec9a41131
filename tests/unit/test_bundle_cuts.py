"""The power is cut before every single thing that an export or an import does to the disk."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.bundles.judging import Wish
from controller.bundles.reporting import State
from controller.bundles.showing import show
from controller.errors import BundleError
from tests.unit.bundles import Meter, PowerCutError, build, contents, key, pack, put, take, write_mini

OLD = {"weights.gguf": b"old" * 3000}
NEW = {"weights.gguf": b"new" * 3000, "model.toml": b"", "a/adapter_config.json": b"{}"}
EVENTS = ("open", "os.", "shutil.", "fcntl.", "ctypes.dlsym")
"""What Python tells an audit hook before it does it, of all that changes a disk."""
MEMORY = "/dev/shm"
"""Thousands of times something is put on the disk: one that is none takes no time for that."""
Deed = Callable[[Path], object]


class Fuse:
    """Cuts the power before the n-th event; it hangs in the interpreter for good, and does nothing unless it is told to."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or not event.startswith(EVENTS):
            return
        if self.left == 0:
            raise PowerCutError
        self.left -= 1

    def cuts(self, deed: Callable[[], object], after: int) -> bool:
        """Do something, and say whether the power was cut before it ended."""
        self.left = after
        try:
            deed()
        except PowerCutError:
            return True
        finally:
            self.left = None
        return False


FUSE = Fuse()


def worlds() -> Iterator[Path]:
    """Yield new worlds: a home with two models and an engine file, and a bundle of it."""
    while True:
        with tempfile.TemporaryDirectory(prefix="wl-", dir=MEMORY) as folder:
            top = Path(folder)
            put(top / "home" / "models" / "one", NEW)
            build(top / "home", key(source=write_mini(top / "home")))
            pack(top / "home", top / "stick")
            yield top


def left(world: Path) -> dict[str, str]:
    """Return how the other home differs from the first one, and what is left beside the folders."""
    home, other = world / "home", world / "other"
    kinds = [kind for kind in ("models", "engines") if (other / kind).exists()]
    differs = {kind: "differs" for kind in kinds if contents(home / kind) != contents(other / kind)}
    return differs | {path.name: "is left" for kind in kinds for path in (other / kind).glob(".*")}


def cut_everywhere(deed: Deed, prepare: Deed, check: Callable[[Path], None], fault: Callable[[Path], object] = left) -> int:
    """Do it in a new world for every place where it can be cut, check what is there, do it again; return how many there are."""
    for after, world in enumerate(worlds()):
        prepare(world)
        was_cut = FUSE.cuts(lambda: deed(world), after)  # noqa: B023 -- called here
        check(world)
        deed(world)
        check(world)
        assert not fault(world), f"cut before event {after}"
        if not was_cut:
            return after
    raise AssertionError("worlds do not end")


def nothing(world: Path) -> None:
    """Leave the world as it is."""


def only_whole_folders(world: Path) -> None:
    """What has its name in the other home is what it is in the first one, or what it was before."""
    for kind in ("models", "engines"):
        for folder in (world / "other" / kind).glob("[!.]*"):
            assert contents(folder) in ([contents(world / "home" / kind / folder.name)] + ([OLD] if folder.name == "one" else []))


@pytest.mark.timeout(300)
def test_an_import() -> None:
    """Every folder is there whole or not at all, and the next import ends it."""
    cuts = cut_everywhere(lambda world: take(world / "other", world / "stick"), nothing, only_whole_folders)

    assert cuts > 50


@pytest.mark.timeout(300)
def test_an_import_that_replaces() -> None:
    """At every moment the old model is there or the new one, never neither and never a mixture."""

    def has_one(world: Path) -> None:
        assert contents(world / "other" / "models" / "one") in (OLD, NEW)
        only_whole_folders(world)

    cut_everywhere(
        lambda world: take(world / "other", world / "stick", wish=Wish(replace=True)),
        lambda world: put(world / "other" / "models" / "one", OLD),
        has_one,
    )


@pytest.mark.timeout(300)
def test_an_import_that_moves() -> None:
    """Nothing is lost: what is not in the home yet can still be taken from the bundle."""

    def again(world: Path) -> None:
        try:
            outcomes = take(world / "other", world / "stick", move=True)
        except BundleError as exc:
            assert "its export has not come to an end" in str(exc)  # noqa: PT017 -- only what is said is looked at
        else:
            assert State.FAILED not in {one.state for one in outcomes}

    cut_everywhere(again, nothing, only_whole_folders)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("before", ["nothing", "an older one"])
def test_an_export(before: str) -> None:
    """What the manifest names is whole; the next export ends it, and what comes out is the same to the byte."""

    def prepare(world: Path) -> None:
        if before == "an older one":
            put(world / "old" / "models" / "one", OLD)
            pack(world / "old", world / "second")

    def check(world: Path) -> None:
        if (world / "second" / "windlass-bundle.json").exists():
            assert not [one.problem for one in show(world / "second", verify=True, progress=Meter()) if one.problem]

    def deed(world: Path) -> None:
        pack(world / "home", world / "second")

    def fault(world: Path) -> bool:
        return contents(world / "second") != contents(world / "stick")

    cut_everywhere(deed, prepare, check, fault)
