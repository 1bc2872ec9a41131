"""Bundles: what is packed arrives as it was, whatever is cut on the way."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from controller.bundles.arrival import Arrival
from controller.bundles.export import Packer
from controller.bundles.judging import Wish
from controller.bundles.manifest import FILE_NAME, read_bundle
from controller.bundles.packing import find_sources
from controller.bundles.reporting import State
from controller.bundles.showing import show
from controller.errors import BundleRefusedError
from tests.unit.bundles import (
    FILES,
    NOISE,
    SMALL_PARTS,
    Meter,
    PowerCutError,
    contents,
    home,
    other,
    pack,
    put,
    root,
    take,
)

__all__ = ["home", "other", "root"]


def times(folder: Path) -> dict[str, int]:
    """Return when each file of a folder was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_packed_arrives_as_it_was(home: Path, root: Path, other: Path) -> None:
    """Files, folders, times to the nanosecond; what is hidden stays at home, and a second time there is nothing to do."""
    put(home / "models" / "one", {".cache/x": b"x"})
    os.utime(home / "models" / "one" / "weights.gguf", ns=(1, 1_700_000_000_123_456_789))

    packed, packed_again = pack(home, root), pack(home, root)
    taken = [one.state for one in take(other, root)]
    taken_again = [one.state for one in take(other, root)]

    assert [packed, packed_again] == [[State.COPIED] * 2, [State.THERE] * 2]
    assert [taken, taken_again] == [[State.COPIED] * 2, [State.THERE] * 2]
    assert FILES == contents(other / "models" / "one")
    assert times(home / "models" / "two") == times(other / "models" / "two")
    assert 1_700_000_000_123_456_789 == (other / "models" / "one" / "weights.gguf").stat().st_mtime_ns
    assert ["one", "two"] == sorted(path.name for path in (other / "models").iterdir())


def test_a_worker_may_read_what_arrives(home: Path, root: Path, other: Path) -> None:
    """Modes do not depend on who imports, or from what kind of file system."""
    pack(home, root)
    before = os.umask(0o077)
    try:
        take(other, root)
    finally:
        os.umask(before)

    modes = {path.stat().st_mode & 0o777 for path in (other / "models" / "one").rglob("*") if path.is_file()}
    assert {0o644} == modes
    assert 0o755 == (other / "models" / "one" / "adapter").stat().st_mode & 0o777


def test_no_file_is_larger_than_a_part(home: Path, root: Path, other: Path) -> None:
    """A large file lies in numbered parts, which one after the other are the file."""
    pack(home, root, "one")
    parts = [root / "models" / "one" / f"weights.gguf.00{number}" for number in (1, 2, 3, 4)]

    assert SMALL_PARTS == max(path.stat().st_size for path in (root / "models").rglob("*"))
    assert b"".join(path.read_bytes() for path in parts) == NOISE


def test_a_bundle_grows(home: Path, root: Path, other: Path) -> None:
    """What is exported later lies beside what is there, and one of them can be taken alone."""
    pack(home, root, "two")
    pack(home, root, "one")

    taken = {one.at: one.state for one in take(other, root, wish=Wish(only=frozenset({"two"})))}

    assert {"models/one": State.LEFT, "models/two": State.COPIED} == taken
    assert ["two"] == [path.name for path in (other / "models").iterdir()]


@pytest.mark.parametrize("cut_after", range(9))
def test_an_export_that_is_cut_goes_on(home: Path, root: Path, other: Path, cut_after: int) -> None:
    """Cut anywhere, the manifest names only what is whole; what is there is not written again, and the end is the same."""
    with pytest.raises(PowerCutError):
        pack(home, root, progress=Meter(cut_after=cut_after))
    known = read_bundle(root)
    damaged = [one.problem for one in show(root, verify=True, progress=Meter()) if one.problem] if known else []
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.gguf.00?") if path.stat().st_size == SMALL_PARTS}
    pack(home, root)

    assert not damaged
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert not [one.problem for one in show(root, verify=True, progress=Meter()) if one.problem]
    take(other, root)
    assert contents(other / "models") == contents(home / "models")


@pytest.mark.parametrize("cut_after", range(9))
def test_an_import_that_is_cut_goes_on(home: Path, root: Path, other: Path, cut_after: int) -> None:
    """Cut anywhere, what has a name is whole; the next one finishes it, and leaves nothing beside it."""
    pack(home, root)
    with pytest.raises(PowerCutError):
        take(other, root, progress=Meter(cut_after=cut_after))
    for folder in (other / "models").glob("[!.]*"):
        assert contents(folder) == contents(home / "models" / folder.name)
    take(other, root)

    assert contents(other / "models") == contents(home / "models")
    assert ["one", "two"] == sorted(path.name for path in (other / "models").iterdir())


def test_what_was_copied_is_not_read_again(home: Path, root: Path, other: Path) -> None:
    """An import goes on with what it has, even where the stick has lost that by now."""
    pack(home, root, "one")
    with pytest.raises(PowerCutError):
        take(other, root, progress=Meter(cut_after=6))
    arriving = next((other / "models").glob(".arriving-one-*")) / "weights.gguf"
    whole_parts = arriving.stat().st_size // SMALL_PARTS
    for number in range(1, whole_parts + 1):
        (root / "models" / "one" / f"weights.gguf.00{number}").unlink()

    taken = take(other, root)

    assert whole_parts
    assert [State.COPIED] == [one.state for one in taken]
    assert FILES == contents(other / "models" / "one")


def test_what_a_cut_has_spoilt_is_copied_again(home: Path, root: Path, other: Path) -> None:
    """What lies there from before is hashed: where the disk has lost it, it is not believed."""
    pack(home, root, "one")
    with pytest.raises(PowerCutError):
        take(other, root, progress=Meter(cut_after=6))
    arriving = next((other / "models").glob(".arriving-one-*"))
    size = (arriving / "weights.gguf").stat().st_size
    (arriving / "weights.gguf").write_bytes(bytes(size))
    (arriving / "stranger").symlink_to("/etc/hostname")

    take(other, root)

    assert FILES == contents(other / "models" / "one")


def test_what_a_cut_has_spoilt_on_the_stick_is_written_again(home: Path, root: Path) -> None:
    """An export compares what is there with the source, and mends what differs."""
    pack(home, root, "one")
    part = root / "models" / "one" / "weights.gguf.002"
    part.write_bytes(bytes(SMALL_PARTS))
    (root / "models" / "one" / "left.over").write_bytes(b"x")
    before = [bool(one.problem) for one in show(root, verify=True, progress=Meter())]
    pack(home, root, "one")

    assert [True] == before
    assert [""] == [one.problem for one in show(root, verify=True, progress=Meter())]
    assert not (root / "models" / "one" / "left.over").exists()


@pytest.mark.parametrize("cut_after", [*range(9), 1000])
def test_what_is_moved_is_in_one_place(home: Path, root: Path, other: Path, cut_after: int) -> None:
    """Cut anywhere, every byte is in the bundle or in the home; at the end the bundle is empty, but for what stayed there."""
    pack(home, root)
    with contextlib.suppress(PowerCutError):
        take(other, root, move=True, progress=Meter(cut_after=cut_after), wish=Wish(only=frozenset({"one"})))
    if not (other / "models" / "one").exists():
        take(other, root, move=True, wish=Wish(only=frozenset({"one"})))

    assert FILES == contents(other / "models" / "one")
    assert ["models/two/weights.gguf", FILE_NAME] == sorted(contents(root))
    assert ["models/two"] == [one.at for one in show(root, verify=True, progress=Meter()) if not one.problem]
    take(other, root, move=True)
    assert [FILE_NAME] == sorted(contents(root))
    assert not list(root.glob("[em]*"))


def test_what_is_moved_needs_no_disk_twice(home: Path, root: Path, other: Path) -> None:
    """On one disk there need be room for the largest part alone; where files stay in the bundle, for all of them."""
    pack(home, root)
    text, third = (root / FILE_NAME).read_text(), int(shutil.disk_usage(root).free * 0.4)
    (root / FILE_NAME).write_text(text.replace(f'"size_bytes": {SMALL_PARTS}', f'"size_bytes": {third}'))
    with pytest.raises(BundleRefusedError, match=r"wanted .* of free disk"):
        take(other, root)
    moved = {one.at: one for one in take(other, root, move=True)}

    assert (State.FAILED, State.COPIED) == (moved["models/one"].state, moved["models/two"].state)
    assert f"wanted {third} bytes, got {SMALL_PARTS}" in moved["models/one"].reason


def test_a_cut_after_the_exchange_leaves_nothing_for_ever(home: Path, root: Path, other: Path) -> None:
    """What was exchanged and not yet removed is removed by the next import, which finds the new one there."""
    pack(home, root, "one")
    take(other, root)
    digest = next(item for _, item in read_bundle(root).items()).digest  # type: ignore[union-attr]
    put(other / "models" / f".arriving-one-{digest[:12]}", {"weights.gguf": b"the old one"})

    assert [State.THERE] == [one.state for one in take(other, root)]
    assert ["one"] == [path.name for path in (other / "models").iterdir()]


def test_the_same_content_is_there_whatever_its_times(home: Path, root: Path, other: Path) -> None:
    """A model that was copied by hand is not copied again: its content is compared."""
    pack(home, root, "one")
    put(other / "models" / "one", FILES)

    assert [State.THERE] == [one.state for one in take(other, root)]


def test_a_link_inside_is_the_file_it_leads_to(home: Path, root: Path, other: Path) -> None:
    """As checkpoints are kept whose weights have a second name."""
    (home / "models" / "two" / "same.gguf").symlink_to("weights.gguf")
    pack(home, root, "two")
    take(other, root)

    arrived = other / "models" / "two" / "same.gguf"
    assert not arrived.is_symlink()
    assert b"two" * 100 == arrived.read_bytes()


def test_a_dry_run_changes_nothing(home: Path, root: Path, other: Path) -> None:
    """It says what would be done, both ways."""
    sources = find_sources(home, ["one", "two"], with_engine_files=True)
    would_pack = Packer(root=root, progress=Meter()).pack(sources, dry_run=True)
    assert not root.exists()
    pack(home, root)
    would_take = Arrival(home=other, wish=Wish(), progress=Meter()).take([root], dry_run=True)

    assert [State.COPIED] * 2 == [one.state for one in would_pack] == [one.state for one in would_take]
    assert not other.exists()
