"""Bundles: what is damaged, in the way, or cannot be, is named, and nothing else suffers."""

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.bundles.judging import Wish
from controller.bundles.layout import MOST_PARTS, PART_BYTES
from controller.bundles.manifest import FILE_NAME, FORMAT, read_bundle
from controller.bundles.reporting import State
from controller.bundles.showing import show
from controller.errors import BundleError, BundleRefusedError
from tests.unit.bundles import (
    SMALL_PARTS,
    Meter,
    contents,
    home,
    other,
    pack,
    put,
    root,
    take,
)

__all__ = ["home", "other", "root"]


@pytest.mark.parametrize("spoil", ["a byte", "short", "long", "gone", "link", "pipe", "linked folder"])
def test_damage_is_named_and_does_not_arrive(home: Path, root: Path, other: Path, spoil: str, tmp_path: Path) -> None:
    """The file that is wrong is named, its model does not appear, and every other one does."""
    pack(home, root)
    part = root / "models" / "one" / "weights.gguf.003"
    data = bytearray(part.read_bytes())
    part.unlink()
    match spoil:
        case "a byte":
            data[17] ^= 1
            part.write_bytes(data)
        case "short":
            part.write_bytes(data[:-1])
        case "long":
            part.write_bytes(data + b"x")
        case "link":
            (tmp_path / "elsewhere").write_bytes(data)
            part.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(part)
        case "linked folder":
            part.write_bytes(data)
            (root / "models" / "one").rename(tmp_path / "moved")
            (root / "models" / "one").symlink_to(tmp_path / "moved")

    shown = {one.at: one.problem for one in show(root, verify=True, progress=Meter())}
    taken = {one.at: one for one in take(other, root)}

    first_file = "adapter_config.json" if spoil == "linked folder" else "weights.gguf.003"
    assert first_file in taken["models/one"].reason
    assert first_file in shown["models/one"]
    assert (State.FAILED, State.COPIED) == (taken["models/one"].state, taken["models/two"].state)
    assert ["two"] == [path.name for path in (other / "models").glob("[!.]*")]
    pack(home, root) if spoil not in ("link", "pipe", "linked folder") else None
    if spoil not in ("link", "pipe", "linked folder"):
        assert [State.COPIED, State.THERE] == [one.state for one in take(other, root)]


def test_another_model_of_that_name_is_not_touched(home: Path, root: Path, other: Path) -> None:
    """It is refused by name before anything is copied, and takes its place only where somebody says so, in one step."""
    pack(home, root)
    put(other / "models" / "one", {"weights.gguf": b"mine"})
    with pytest.raises(BundleRefusedError, match="models/one: a model of this name with other content is there"):
        take(other, root)
    untouched = contents(other / "models")
    replaced = [one.state for one in take(other, root, wish=Wish(replace=True))]

    assert {"one/weights.gguf": b"mine"} == untouched
    assert [State.REPLACED, State.COPIED] == replaced
    assert contents(home / "models") == contents(other / "models")


def test_two_bundles_with_one_name(home: Path, root: Path, other: Path, tmp_path: Path) -> None:
    """The same content is taken once; other content under one name is refused."""
    pack(home, root)
    pack(home, tmp_path / "again", "two")
    put(tmp_path / "third" / "models" / "two", {"weights.gguf": b"third"})
    pack(tmp_path / "third", tmp_path / "differs")
    with pytest.raises(BundleRefusedError, match="models/two: another of the bundles has other content"):
        take(other, root, tmp_path / "differs")
    assert not list((other / "models").iterdir())

    taken = [one.state for one in take(other, root, tmp_path / "again")]

    assert [State.COPIED, State.COPIED, State.THERE] == taken


@pytest.mark.parametrize("move", [False, True])
def test_what_one_bundle_has_damaged_another_one_gives(home: Path, root: Path, other: Path, tmp_path: Path, move: bool) -> None:
    """A folder that is in two bundles arrives if it is whole in one of them, and no whole one is thrown away."""
    pack(home, root, "two")
    pack(home, tmp_path / "again", "two")
    (root / "models" / "two" / "weights.gguf").write_bytes(b"own" * 100)

    assert [State.FAILED, State.COPIED] == [one.state for one in take(other, root, tmp_path / "again", move=move)]
    assert {"two/weights.gguf": b"two" * 100} == contents(other / "models")


def test_too_little_disk_is_refused(home: Path, root: Path, other: Path) -> None:
    """Both ways with what is wanted and what is there; what was copied before counts as there."""
    huge = home / "models" / "huge" / "weights.gguf"
    huge.parent.mkdir()
    with huge.open("wb") as file:
        file.truncate(3 << 40)
    with pytest.raises(BundleRefusedError, match=r"wanted .* of free disk, there are .*pack fewer"):
        pack(home, root, "huge", part_bytes=PART_BYTES)
    assert not root.exists()
    os.truncate(huge, MOST_PARTS * PART_BYTES + 1)
    with pytest.raises(BundleRefusedError, match="larger than"):
        pack(home, root, "huge", part_bytes=PART_BYTES)
    huge.unlink()
    huge.parent.rmdir()
    pack(home, root)
    text = (root / FILE_NAME).read_text()
    (root / FILE_NAME).write_text(text.replace(f'"size_bytes": {SMALL_PARTS}', f'"size_bytes": {1 << 60}', 1))
    with pytest.raises(BundleRefusedError, match=r"wanted .* of free disk, there are .*--only"):
        take(other, root)
    assert not list((other / "models").iterdir())


def test_what_is_no_bundle_is_refused(home: Path, root: Path, other: Path) -> None:
    """No folder, no manifest, another format, no JSON: each says what it is."""
    with pytest.raises(BundleRefusedError, match="wanted the folder of a bundle"):
        take(other, root)
    root.mkdir(parents=True)
    with pytest.raises(BundleRefusedError, match="its export has not come to an end"):
        take(other, root)
    (root / FILE_NAME).write_text("{")
    with pytest.raises(BundleError, match="wanted JSON"):
        take(other, root)
    (root / FILE_NAME).write_text(json.dumps({"format": FORMAT + 1, "models": "of another kind"}))
    with pytest.raises(BundleRefusedError, match=f"wanted format {FORMAT}, got {FORMAT + 1}: it was made by a newer version"):
        take(other, root)
    (root / FILE_NAME).unlink()
    pack(home, root)
    with pytest.raises(BundleRefusedError, match="wanted three"):
        take(other, root, wish=Wish(only=frozenset({"one", "three"})))


@pytest.mark.parametrize("spoil", ["no model", "link out", "chain", "pipe", "letters", "colon", "part", "empty"])
def test_what_no_stick_or_worker_takes_is_not_packed(home: Path, root: Path, spoil: str, tmp_path: Path) -> None:
    """Each is refused with its name before anything is written."""
    folder = home / "models" / "one"
    match spoil:
        case "link out":
            (folder / "x.gguf").symlink_to("/etc/hostname")
        case "chain":
            (folder / ".hidden").symlink_to("/etc/hostname")
            (folder / "x.gguf").symlink_to(".hidden")
        case "pipe":
            os.mkfifo(folder / "x.gguf")
        case "letters":
            put(folder, {"WEIGHTS.gguf": b"x"})
        case "colon":
            put(folder, {"a:b.gguf": b"x"})
        case "part":
            put(folder, {"Weights.gguf/inner": b"x"})
        case "empty":
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    with pytest.raises(BundleRefusedError):
        pack(home, root, "three" if spoil == "no model" else "one")
    assert not root.exists()


def test_a_source_that_changes_is_not_packed(home: Path, root: Path) -> None:
    """Half of the old and half of the new would be neither."""

    class Meddler(Meter):
        def moved(self, count_bytes: int) -> None:
            os.utime(home / "models" / "two" / "weights.gguf")

    with pytest.raises(BundleError, match=r"weights\.gguf was changed while it was packed"):
        pack(home, root, "two", progress=Meddler())
    assert read_bundle(root) is None


def test_a_full_stick_keeps_its_manifest(home: Path, root: Path) -> None:
    """A disk that takes only the beginning of a new manifest keeps the old one, and nobody is told that all went well."""
    pack(home, root, "two")
    before = (root / FILE_NAME).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    put(home / "models" / "tiny", {"weights.gguf": b"tiny"})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(BundleError, match="mend that and run it again"):
            pack(home, root, "tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert before == (root / FILE_NAME).read_bytes()


def test_one_at_a_time(home: Path, root: Path, other: Path) -> None:
    """A second export into a folder is refused while one is under way, and so is a second import into a home."""

    class Second(Meter):
        def __init__(self, again: Callable[[], object]) -> None:
            super().__init__()
            self._again = again

        def moved(self, count_bytes: int) -> None:
            with pytest.raises(BundleRefusedError, match=r"another (export|import) is under way"):
                self._again()
            self.moved_bytes += 1

    exporting, importing = Second(lambda: pack(home, root)), Second(lambda: take(other, root))
    pack(home, root, "two", progress=exporting)
    take(other, root, progress=importing)

    assert (1, 1) == (exporting.moved_bytes, importing.moved_bytes)


def test_a_manifest_that_nobody_would_read_is_not_written(home: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was packed before is still named, and can be taken."""
    pack(home, root, "two")
    limit = (root / FILE_NAME).stat().st_size
    monkeypatch.setattr("controller.bundles.manifest.MAX_BYTES", limit)
    with pytest.raises(BundleError, match=f"wanted at most {limit} bytes, got .*: export fewer models"):
        pack(home, root, "one")

    bundle = read_bundle(root)
    assert bundle is not None
    assert ["two"] == [item.name for item in bundle.models]
