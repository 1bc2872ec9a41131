"""Conversations on the disk: what is believed, what is removed, and who can tell what."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.errors import StoreError
from controller.store.conversations import FOLDER, Conversations, Kept, Limits
from controller.store.database import Database, open_database

LIMITS = Limits(budget_bytes=1000, file_bytes=600, age_s=100.0)


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an empty state database."""
    opened = open_database(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path, database: Database, clock: Clock) -> Conversations:
    """Return a store with nothing in it."""
    return Conversations(database, tmp_path, limits=LIMITS, wall=clock)


def keep(store: Conversations, tmp_path: Path, name: str = "n", *, size: int = 100, **changes: Any) -> Kept:  # noqa: ANN401
    """Have a worker write a conversation, and keep it."""
    written = tmp_path / "written"
    written.write_bytes(name.encode()[:1] * size)
    return store.keep(written, **{"owner": "o", "name": name, "model": "m", "fingerprint": "f", "tokens": 70} | changes)


def files(tmp_path: Path) -> set[str]:
    """Return the names of the files that are kept."""
    return {path.name for path in (tmp_path / FOLDER).iterdir()}


def found(store: Conversations, *names: str, owner: str = "o", fingerprint: str = "f") -> bool:
    """Say whether one of these conversations is there."""
    return store.find(owner, names, fingerprint) is not None


def test_what_was_kept_is_lent_byte_for_byte(store: Conversations, tmp_path: Path) -> None:
    """It leaves the worker's directory, and comes back under another name."""
    kept = keep(store, tmp_path)
    assert not (tmp_path / "written").exists()

    store.lend(kept, tmp_path / "lent")
    assert b"n" * 100 == (tmp_path / "lent").read_bytes()
    assert (1, 100, 70) == (store.count, store.size_bytes, kept.tokens)


def test_only_the_worker_and_root_may_read_it(store: Conversations, tmp_path: Path) -> None:
    """The file is its owner's alone, and nobody else enters the folder."""
    (tmp_path / "written").touch(mode=0o666)
    kept = keep(store, tmp_path)

    assert 0o600 == stat.S_IMODE((tmp_path / FOLDER / kept.id).stat().st_mode)
    assert 0o700 == stat.S_IMODE((tmp_path / FOLDER).stat().st_mode)


def test_names_tell_nothing(tmp_path: Path, clock: Clock) -> None:
    """Another installation calls the same conversation otherwise, and neither owner nor name are in a file's name or a row."""
    ids = []
    for place in ("one", "two"):
        folder = tmp_path / place
        folder.mkdir()
        opened = open_database(folder / "state.db")
        ids.append(keep(Conversations(opened, folder, limits=LIMITS, wall=clock), folder, "anna's", owner="anna").id)
        rows = repr(opened.read("SELECT * FROM conversations"))
        opened.close()
        assert "anna" not in rows

    assert ids[0] != ids[1]


def test_nobody_finds_anothers(store: Conversations, tmp_path: Path) -> None:
    """Owner, name and what it was computed with must all be the same."""
    keep(store, tmp_path)

    assert found(store, "n")
    assert found(store, "other", "n")
    assert not found(store, "n", owner="p")
    assert not found(store, "n", fingerprint="g")
    assert not found(store)
    assert not found(store, "on", owner="")
    assert [] == store.of_owner("p")


def test_a_conversation_replaces_what_it_goes_on_from(store: Conversations, tmp_path: Path) -> None:
    """One conversation has one file, however often its name changes, and one of the same name is written over."""
    keep(store, tmp_path, "first")
    keep(store, tmp_path, "second", instead_of="first")
    keep(store, tmp_path, "second", instead_of="second", size=120)

    assert not found(store, "first")
    assert 120 == store.size_bytes
    assert 1 == len(files(tmp_path))


def test_the_ones_used_longest_ago_make_room(store: Conversations, tmp_path: Path, clock: Clock) -> None:
    """The budget holds, and reading one counts as using it."""
    kept = {}
    for name in "abc":
        clock.now_s += 1
        kept[name] = keep(store, tmp_path, name, size=300)
    clock.now_s += 1
    store.lend(kept["a"], tmp_path / "lent")
    keep(store, tmp_path, "d", size=400)

    assert ["a", "c", "d"] == [name for name in "abcd" if found(store, name)]
    assert store.size_bytes <= LIMITS.budget_bytes
    assert {store.find("o", [name], "f").id for name in "acd"} == files(tmp_path)  # type: ignore[union-attr]


def test_one_that_is_written_over_makes_its_own_room(store: Conversations, tmp_path: Path) -> None:
    """Nobody else has to go for it."""
    keep(store, tmp_path, "a", size=500)
    keep(store, tmp_path, "b", size=400)
    keep(store, tmp_path, "a", size=600)

    assert found(store, "b")
    assert 1000 == store.size_bytes


def test_one_that_is_too_large_is_not_kept(store: Conversations, tmp_path: Path) -> None:
    """It is said before it is written where it can be told, and found when it was; it leaves nothing behind."""
    keep(store, tmp_path, "a")
    assert "" == store.refusal(600)
    assert "max_size" in store.refusal(601)

    with pytest.raises(StoreError, match="at most 600 B"):
        keep(store, tmp_path, "b", size=601)
    assert not found(store, "b")
    assert not (tmp_path / "written").exists()
    assert 1 == len(files(tmp_path))


def test_an_old_one_is_not_found_and_goes(store: Conversations, tmp_path: Path, clock: Clock) -> None:
    """Its age counts from its last use."""
    keep(store, tmp_path)
    clock.now_s += LIMITS.age_s
    assert found(store, "n")
    assert 0 == store.tidy()
    clock.now_s += 1

    assert not found(store, "n")
    assert 1 == store.tidy()
    assert set() == files(tmp_path)


def test_a_restart_finds_them_again(store: Conversations, tmp_path: Path, database: Database, clock: Clock) -> None:
    """With the order in which they were used."""
    for name in "ab":
        clock.now_s += 1
        keep(store, tmp_path, name, size=400)
    clock.now_s += 1
    store.lend(store.find("o", ["a"], "f"), tmp_path / "lent")  # type: ignore[arg-type]
    store.tidy()
    again = Conversations(database, tmp_path, limits=LIMITS, wall=clock)
    keep(again, tmp_path, "c", size=400)

    assert ["a", "c"] == [name for name in "abc" if found(again, name)]


def test_a_smaller_budget_holds_from_the_start(store: Conversations, tmp_path: Path, database: Database, clock: Clock) -> None:
    """What does not fit any more is gone before anything is written."""
    keep(store, tmp_path, "a", size=500)
    again = Conversations(database, tmp_path, limits=Limits(budget_bytes=400, file_bytes=400, age_s=100.0), wall=clock)

    assert (0, set()) == (again.count, files(tmp_path))


def test_a_start_sweeps_away_what_is_not_whole(store: Conversations, tmp_path: Path, database: Database, clock: Clock) -> None:
    """A file that nobody knows, one of another size, one that is no file, and a row without a file."""
    kept = {name: keep(store, tmp_path, name) for name in "abcd"}
    folder = tmp_path / FOLDER
    (folder / "0123.arriving").write_bytes(b"half")
    (folder / "4567.arriving" / "inner").mkdir(parents=True)
    (folder / kept["b"].id).write_bytes(b"short")
    (folder / kept["c"].id).unlink()
    (folder / kept["d"].id).unlink()
    (folder / kept["d"].id).symlink_to(tmp_path / "state.db")
    again = Conversations(database, tmp_path, limits=LIMITS, wall=clock)

    assert ["a"] == [name for name in "abcd" if found(again, name)]
    assert {kept["a"].id} == files(tmp_path)
    assert (tmp_path / "state.db").exists()


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_one_is_never_lent(store: Conversations, tmp_path: Path, damage: str) -> None:
    """It is removed, and the worker does not see it."""
    kept = keep(store, tmp_path)
    path = tmp_path / FOLDER / kept.id
    match damage:
        case "changed":
            path.write_bytes(b"n" * 99 + b"m")
        case "cut":
            os.truncate(path, 50)
        case _:
            path.unlink()

    with pytest.raises(StoreError, match="damaged"):
        store.lend(kept, tmp_path / "lent")
    assert not (tmp_path / "lent").exists()
    assert not found(store, "n")
    assert set() == files(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_a_worker_cannot_have_something_else_kept(store: Conversations, tmp_path: Path, kind: str) -> None:
    """What it has made of the name it was given is looked at only when it cannot be exchanged any more, and not followed."""
    written, secret = tmp_path / "written", tmp_path / "secret"
    secret.write_bytes(b"root's")
    secret.chmod(0o644)
    match kind:
        case "link":
            written.symlink_to(secret)
        case "pipe":
            os.mkfifo(written)
        case "folder":
            written.mkdir()
        case _:
            pass

    with pytest.raises(StoreError):
        store.keep(written, owner="o", name="n", model="m", fingerprint="f", tokens=70)
    assert not found(store, "n")
    assert 0o644 == stat.S_IMODE(secret.stat().st_mode)
    assert set() == files(tmp_path)


def test_an_owners_are_forgotten_one_or_all(store: Conversations, tmp_path: Path) -> None:
    """By what they are called here, for every model, and nobody else's with them."""
    keep(store, tmp_path, "a")
    keep(store, tmp_path, "a", model="l", fingerprint="g")
    keep(store, tmp_path, "b")
    keep(store, tmp_path, "a", owner="p")

    assert 0 == store.forget(owner="p", talk=store.talk("o", "a"))
    assert 2 == store.forget(owner="o", talk=store.talk("o", "a"))
    assert 1 == store.forget(owner="o")
    assert found(store, "a", owner="p")
    assert 1 == store.forget()
    assert set() == files(tmp_path)


def test_what_was_computed_otherwise_is_retired(store: Conversations, tmp_path: Path) -> None:
    """Other weights, another engine, another context, or no such model any more."""
    keep(store, tmp_path, "a")
    keep(store, tmp_path, "b", fingerprint="old")
    keep(store, tmp_path, "c", model="gone")

    assert 2 == store.retire({"m": "f"}.get)
    assert found(store, "a")
    assert 1 == len(files(tmp_path))


def test_the_list_shows_the_last_used_first(store: Conversations, tmp_path: Path, clock: Clock) -> None:
    """An owner sees its own, with the id by which each can be deleted."""
    for name in "ab":
        clock.now_s += 1
        keep(store, tmp_path, name)

    assert [store.talk("o", "b"), store.talk("o", "a")] == [kept.talk for kept in store.of_owner("o")]


def test_a_disk_that_is_nearly_full_takes_none(store: Conversations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What can be computed again is not what fills it."""
    free = [0]
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(free[0]))
    assert "free" in store.refusal(10)

    free[0] = 2**40
    assert "" == store.refusal(10)


class _Usage:
    """What `shutil.disk_usage` returns."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_a_database_that_is_not_kept_keeps_no_conversations(tmp_path: Path, clock: Clock) -> None:
    """After the next start nobody would know whose they are."""
    (tmp_path / "state.db").mkdir()
    database = open_database(tmp_path / "state.db")
    store = Conversations(database, tmp_path, limits=LIMITS, wall=clock)

    assert not database.persistent
    assert store.refusal(10)
    database.close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, database: Database, clock: Clock) -> None:
    """It says what was wanted."""
    (tmp_path / FOLDER).write_bytes(b"")

    with pytest.raises(StoreError, match="folder of the conversations"):
        Conversations(database, tmp_path, limits=LIMITS, wall=clock)
