"""Bundles: what is packed arrives as it was, whatever is cut on the way, and nothing else does."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.bundles.arrival import Arrival
from controller.bundles.export import Packer
from controller.bundles.judging import Wish
from controller.bundles.layout import MOST_PARTS, PART_BYTES
from controller.bundles.manifest import FILE_NAME, FORMAT, read_bundle
from controller.bundles.packing import find_sources
from controller.bundles.reporting import State
from controller.bundles.showing import show
from controller.errors import BundleError, BundleRefusedError
from controller.store.folder import list_files
from controller.store.manifest import read_manifest
from controller.store.planning import source_digests
from tests.unit.bundles import SMALL_PARTS, Meter, PowerCutError, build, contents, key, pack, put, shelf, take

PROJECT = Path(__file__).parents[2]
MINI = PROJECT / "images" / "windlass-mini" / "gguf"
NOISE = b"".join(number.to_bytes(4) for number in range(SMALL_PARTS * 3 // 4 + 25))
FILES = {"weights.gguf": NOISE, "empty": b"", "adapter/adapter_config.json": b"{}", "model.toml": b'tags = ["code"]\n'}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home with two models."""
    put(tmp_path / "home" / "models" / "one", FILES)
    put(tmp_path / "home" / "models" / "two", {"weights.gguf": b"two" * 100})
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Say where the bundle is made."""
    return tmp_path / "stick" / "windlass"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Say where the other home is."""
    return tmp_path / "other"


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
    with pytest.raises(BundleRefusedError, match="wanted three"):
        pack_one(home, root, other)


def pack_one(home: Path, root: Path, other: Path) -> None:
    """Ask for a model that is not in the bundle."""
    (root / FILE_NAME).unlink()
    pack(home, root)
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


def test_a_link_inside_is_the_file_it_leads_to(home: Path, root: Path, other: Path) -> None:
    """As checkpoints are kept whose weights have a second name."""
    (home / "models" / "two" / "same.gguf").symlink_to("weights.gguf")
    pack(home, root, "two")
    take(other, root)

    arrived = other / "models" / "two" / "same.gguf"
    assert not arrived.is_symlink()
    assert b"two" * 100 == arrived.read_bytes()


def test_a_source_that_changes_is_not_packed(home: Path, root: Path) -> None:
    """Half of the old and half of the new would be neither."""

    class Meddler(Meter):
        def moved(self, count_bytes: int) -> None:
            os.utime(home / "models" / "two" / "weights.gguf")

    with pytest.raises(BundleError, match=r"weights\.gguf was changed while it was packed"):
        pack(home, root, "two", progress=Meddler())
    assert read_bundle(root) is None


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


def mini(home: Path) -> str:
    """Put the built-in model into a home, and return what its engine files call it."""
    folder = put(home / "models" / "mini", {path.name: path.read_bytes() for path in MINI.iterdir()})
    (digest,) = names(folder)
    return digest


def names(folder: Path) -> frozenset[str]:
    """Return what a model's folder is called by the engine files built of it."""
    return source_digests(folder, list_files(folder), read_manifest(folder))


def test_engine_files_come_with_their_model(home: Path, root: Path, other: Path) -> None:
    """Those built of it, of each kind the newest; the other box finds them, and believes nothing that it has not hashed."""
    digest = mini(home)
    made = build(home, key(source=digest))
    build(home, key(source=digest, images={"llama-cpp": "windlass/llama-cpp:0"}))
    text = home / "engines" / key(source=digest, images={"llama-cpp": "windlass/llama-cpp:0"}).fingerprint / "manifest.json"
    text.write_text(text.read_text().replace('"built_at": "2', '"built_at": "1'))
    build(home, key(source="another"))
    states = pack(home, root, "mini", part_bytes=1 << 20)
    take(other, root)

    arrived = shelf(other).find(made.fingerprint)
    assert [State.COPIED, State.COPIED] == states
    assert [made.fingerprint] == [path.name for path in (other / "engines").iterdir()]
    assert arrived is not None
    assert not arrived.verified
    assert shelf(other).verify(made.fingerprint)
    assert frozenset({digest}) == names(other / "models" / "mini")


def test_engine_files_for_another_device_are_left(home: Path, root: Path, other: Path) -> None:
    """What was compiled for one device is taken by that device alone; what was not, by all."""
    digest = mini(home)
    compiled = build(home, key(source=digest, device="sm87_p3767-0003_l4t36.4.7_trt10.3.0"))
    portable = build(home, key(source=digest))
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = {one.at: one for one in take(other, root, wish=Wish(device="cpu"))}

    left = taken[f"engines/{compiled.fingerprint}"]
    assert (State.LEFT, True) == (left.state, "built for sm87_p3767-0003_l4t36.4.7_trt10.3.0, and this box is cpu" in left.reason)
    assert State.COPIED == taken[f"engines/{portable.fingerprint}"].state
    assert [portable.fingerprint] == [path.name for path in (other / "engines").iterdir()]


def test_engine_files_can_stay_where_they_are(home: Path, root: Path, other: Path) -> None:
    """Neither packed nor taken where nobody wants them."""
    digest = mini(home)
    build(home, key(source=digest))
    assert ["models/mini"] == [one.at for one in find_sources(home, ["mini"], with_engine_files=False)]
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = [one.state for one in take(other, root, wish=Wish(engine_files=False))]

    assert [State.LEFT, State.COPIED] == taken


def test_a_spoilt_engine_file_is_not_packed(home: Path, root: Path) -> None:
    """Its own manifest knows its hash."""
    made = build(home, key(source=mini(home)))
    weights = Path(made.folder) / "model.gguf"
    weights.write_bytes(b"ENGINE" * 1000)

    with pytest.raises(BundleError, match="is not what its manifest says"):
        pack(home, root, "mini", part_bytes=1 << 20)


@pytest.mark.parametrize("field", ["device", "source", "lineage"])
def test_an_engine_file_that_lies_about_itself_does_not_arrive(home: Path, root: Path, other: Path, field: str) -> None:
    """Its name follows from what it says it was built from, and a name that does not is not believed."""
    made = build(home, key(source=mini(home), device="sm87"))
    path = Path(made.folder) / "manifest.json"
    said = json.loads(path.read_text())
    lied = {**said, field: "sm110" if field == "device" else "0" * 24} if field != "source" else {**said, "images": {"x": "y"}}
    path.write_text(json.dumps(lied))
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = {one.at: one for one in take(other, root)}

    assert State.FAILED == taken[f"engines/{made.fingerprint}"].state
    assert State.COPIED == taken["models/mini"].state
    assert not list((other / "engines").glob("[!.]*"))


def test_a_dry_run_changes_nothing(home: Path, root: Path, other: Path) -> None:
    """It says what would be done, both ways."""
    sources = find_sources(home, ["one", "two"], with_engine_files=True)
    would_pack = Packer(root=root, progress=Meter()).pack(sources, dry_run=True)
    assert not root.exists()
    pack(home, root)
    would_take = Arrival(home=other, wish=Wish(), progress=Meter()).take([root], dry_run=True)

    assert [State.COPIED] * 2 == [one.state for one in would_pack] == [one.state for one in would_take]
    assert not other.exists()
