"""The store of engine files: whole or not there, as the manifest says or not served."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from controller.engines.builds import BuildRecipe, BuildStep
from controller.errors import StoreError
from controller.store import engine_files
from controller.store.database import Database, open_database
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.fingerprint import ANY_DEVICE, BuildKey

GGUF = PurePosixPath("model.gguf")


def key(**changes: object) -> BuildKey:
    """Describe what a file is built from."""
    wanted: dict[str, object] = {
        "source": "abc",
        "engine": "llama-cpp",
        "quantization": "q8_0",
        "options": (("quantize", "q8_0"),),
        "images": {"llama-cpp": "windlass/llama-cpp:1"},
        "device": "cpu",
    }
    return BuildKey(**{**wanted, **changes})  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Open a state database."""
    return open_database(tmp_path / "state.db")


@pytest.fixture
def files(tmp_path: Path, database: Database) -> EngineFiles:
    """Open a store."""
    return EngineFiles(tmp_path / "engines", database)


def built(files: EngineFiles, wanted: BuildKey | None = None, *, data: bytes = b"weights" * 1000) -> EngineFile:
    """Build one."""
    wanted = wanted or key()
    (files.begin(wanted.fingerprint) / GGUF).write_bytes(data)
    return files.commit(wanted, GGUF, model="mini", seconds=2.0)


def names(files: EngineFiles) -> list[str]:
    """Return what lies in the folder of the store."""
    return sorted(path.name for path in files.folder.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "abd"},
        {"engine": "transformers"},
        {"quantization": "q4_0"},
        {"options": (("quantize", "q4_0"),)},
        {"images": {"llama-cpp": "windlass/llama-cpp:2"}},
        {"device": "orin"},
    ],
)
def test_whatever_a_file_depends_on_is_in_its_fingerprint(changes: dict[str, object]) -> None:
    """Any other ingredient is another file, and the same ones are the same file; only images leave the lineage as it is."""
    assert key().fingerprint == key().fingerprint != key(**changes).fingerprint
    assert (key().lineage == key(**changes).lineage) is ("images" in changes)


@pytest.mark.parametrize(("gpu", "device"), [(True, "sm87"), (False, ANY_DEVICE)])
def test_only_what_was_compiled_for_a_device_is_of_that_device(gpu: bool, device: str) -> None:
    """A file that no GPU had a part in is the same one for every box: a laptop builds it for a Jetson."""
    steps = [BuildStep(title="t", image="llama-cpp", argv=("a",), memory_bytes=1, gpu=one) for one in (False, gpu)]
    recipe = BuildRecipe(
        engine="llama-cpp", quantization=None, steps=tuple(steps), output=GGUF, estimate_bytes=1, scratch_bytes=1
    )

    assert device == BuildKey.of(recipe, source="s", images={"llama-cpp": "i"}, device="sm87").device


def test_what_was_built_is_found_with_its_manifest(files: EngineFiles) -> None:
    """It has its name, its size and its hash, it counts as verified, and nothing of the build is left."""
    made = built(files)

    found = files.find(key().fingerprint)
    assert found == made
    assert found is not None
    assert found.verified
    assert (found.size_bytes, found.manifest.model, found.manifest.seconds) == (7000, "mini", 2.0)
    assert [entry.name for entry in found.manifest.files] == ["model.gguf"]
    assert names(files) == [key().fingerprint]


def test_a_folder_can_be_an_output(files: EngineFiles) -> None:
    """A checkpoint is kept file by file, without what lies beside it."""
    out = files.begin(key().fingerprint)
    (out / "model").mkdir()
    (out / "model" / "config.json").write_text("{}")
    (out / "model" / "model.safetensors").write_bytes(b"x" * 10)
    (out / "scratch").write_bytes(b"x" * 10)

    made = files.commit(key(), PurePosixPath("model"), model="mini", seconds=1.0)

    assert [entry.name for entry in made.manifest.files] == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in Path(made.folder).iterdir()) == ["config.json", "manifest.json", "model.safetensors"]


@pytest.mark.parametrize("spoil", ["missing", "empty", "link", "nested", "pipe"])
def test_what_a_build_did_not_make_is_not_kept(files: EngineFiles, spoil: str) -> None:
    """No output, an empty one, a link or anything but plain files is an error, and no engine file."""
    out = files.begin(key().fingerprint)
    wanted = PurePosixPath("model") if spoil in ("nested", "pipe") else GGUF
    if spoil == "empty":
        (out / GGUF).touch()
    elif spoil == "link":
        (out / GGUF).symlink_to("/etc/hostname")
    elif spoil == "nested":
        (out / "model" / "inner").mkdir(parents=True)
    elif spoil == "pipe":
        (out / "model").mkdir()
        os.mkfifo(out / "model" / "weights")

    with pytest.raises(StoreError):
        files.commit(key(), wanted, model="mini", seconds=1.0)

    assert files.find(key().fingerprint) is None


def truncate(folder: Path) -> None:
    """Cut the last byte off."""
    os.truncate(folder / GGUF, 6999)


def lose(folder: Path) -> None:
    """Remove the weights."""
    (folder / GGUF).unlink()


def lose_manifest(folder: Path) -> None:
    """Remove the manifest."""
    (folder / "manifest.json").unlink()


def garble_manifest(folder: Path) -> None:
    """Write something else over the manifest."""
    (folder / "manifest.json").write_text("{")


def swap_manifest(folder: Path) -> None:
    """Put the manifest of another file in its place."""
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(key().fingerprint, "0" * 24))


@pytest.mark.parametrize("spoil", [truncate, lose, lose_manifest, garble_manifest, swap_manifest])
def test_a_wrong_size_is_seen_at_once(tmp_path: Path, database: Database, spoil: Callable[[Path], None]) -> None:
    """Whatever does not have the sizes of its manifest, or has none, goes into quarantine when it is looked up."""
    made = built(EngineFiles(tmp_path / "engines", database))
    spoil(Path(made.folder))
    files = EngineFiles(tmp_path / "engines", database)

    assert files.find(made.fingerprint) is None
    assert names(files)[0].startswith(".quarantine-")
    assert files.quarantined() == names(files)


def test_a_changed_file_is_not_served_before_its_hash_is_compared(files: EngineFiles) -> None:
    """Another content of the same size is found by its hash and put away; the same content is found right again."""
    made = built(files)
    weights = Path(made.folder) / GGUF
    weights.write_bytes(b"weights" * 1000)
    touched = files.find(made.fingerprint)
    same = files.verify(made.fingerprint)
    after = files.find(made.fingerprint)
    weights.write_bytes(b"weighty" * 1000)
    spoiled = files.find(made.fingerprint)
    other = files.verify(made.fingerprint)

    assert touched is not None
    assert after is not None
    assert spoiled is not None
    assert [touched.verified, same, after.verified, spoiled.verified, other] == [False, True, True, False, False]
    assert files.find(made.fingerprint) is None
    assert len(files.quarantined()) == 1


def test_what_was_verified_is_remembered_across_a_restart(tmp_path: Path, database: Database) -> None:
    """The next controller need not read what has not changed, and trusts nothing that another database knows."""
    made = built(EngineFiles(tmp_path / "engines", database))

    again = EngineFiles(tmp_path / "engines", database).find(made.fingerprint)
    elsewhere = EngineFiles(tmp_path / "engines", open_database(tmp_path / "other.db")).find(made.fingerprint)

    assert again == made
    assert elsewhere is not None
    assert not elsewhere.verified


def test_a_start_removes_what_is_half_made(files: EngineFiles) -> None:
    """Builds that nobody goes on with are gone, one that still runs stays, and what is whole stays."""
    made = built(files)
    for name in ("one", "two"):
        (files.begin(name) / "part").write_bytes(b"x" * 100)

    removed = files.recover(keep=["two"])

    assert removed == 1
    assert names(files) == sorted([f"{engine_files.BUILDING}two", made.fingerprint])
    assert files.building_bytes("two") == 100
    assert files.out("one") is None
    assert files.out("two") is not None


def test_an_older_file_may_stand_in(files: EngineFiles) -> None:
    """A file made by other images stands in, one of another source or quantisation does not; a verified one comes first."""
    newest = key(images={"llama-cpp": "windlass/llama-cpp:9"})
    assert files.find_older(newest) is None
    built(files, key(quantization="q4_0"))
    older = built(files)

    assert files.find_older(newest) == older
    assert files.find_older(key()) is None
    (Path(older.folder) / GGUF).write_bytes(b"weights" * 1000)
    touched = files.find_older(newest)
    assert touched is not None
    assert not touched.verified
    another = built(files, key(images={"llama-cpp": "windlass/llama-cpp:0"}))
    assert files.find_older(newest) == another


def test_removing_leaves_nothing(files: EngineFiles) -> None:
    """A removed file is gone, and what is in quarantine can be removed as well; other names are not touched."""
    made = built(files)
    truncate(Path(built(files, key(source="other")).folder))
    assert len(files.all()) == 1

    files.remove(made.fingerprint)
    files.remove_quarantined(made.fingerprint)
    for name in files.quarantined():
        files.remove_quarantined(name)

    assert names(files) == []
