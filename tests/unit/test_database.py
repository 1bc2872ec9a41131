"""The state database: what is written stays, and no file keeps the controller from starting."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import StoreError
from controller.store.database import MIGRATIONS, Database, open_database
from controller.store.keys import Keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database is."""
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """Open a new one."""
    database = open_database(path)
    yield database
    database.close()


def _reopened(path: Path) -> Database:
    database = open_database(path)
    database.close()
    return database


def test_what_was_written_is_there_after_a_restart(path: Path, database: Database) -> None:
    """A key made before a restart is good after it."""
    made = Keys(database).create()
    database.close()
    again = open_database(path)

    assert (made.key,) == Keys(again).active()
    again.close()


def test_what_was_written_is_there_after_a_crash(path: Path, tmp_path: Path, database: Database) -> None:
    """The files as they lie on the disk between two calls are enough, without an orderly end."""
    made = Keys(database).create()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("state.db*"):
        (crashed / file.name).write_bytes(file.read_bytes())
    found = open_database(crashed / "state.db")

    assert (made.key,) == Keys(found).active()
    found.close()


def test_writes_wait_for_the_disk(database: Database) -> None:
    """The log is written ahead, and every transaction is synced."""
    assert [("wal",)] == database.read("PRAGMA journal_mode")
    assert [(2,)] == database.read("PRAGMA synchronous")


def test_new_database_has_every_table_step(database: Database) -> None:
    """The schema is as new as this program."""
    assert [(len(MIGRATIONS),)] == database.read("PRAGMA user_version")
    assert (True, "") == (database.persistent, database.problem)


def test_database_of_a_newer_program_is_read(path: Path, database: Database) -> None:
    """After an update is rolled back, the older program keeps the keys that were made in between."""
    made = Keys(database).create()
    database.write("ALTER TABLE keys ADD COLUMN colour TEXT")
    database.write(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    again = open_database(path)

    assert (made.key,) == Keys(again).active()
    again.close()


@pytest.mark.parametrize(
    "raw", [b"this is no database, and it is long enough to look like one" * 40, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_corrupt_file_is_moved_aside(path: Path, raw: bytes) -> None:
    """A file that is no database is kept under another name, and a new one works."""
    path.write_bytes(raw)
    database = open_database(path)
    Keys(database).create()
    (aside,) = path.parent.glob("state.db.corrupt-*")

    assert (True, raw) == (database.persistent, aside.read_bytes())
    assert str(aside) in database.problem
    database.close()


def test_damaged_pages_are_noticed(path: Path, database: Database) -> None:
    """A page overwritten in the middle is found when the database is opened, not when a key is asked for."""
    database.write("INSERT INTO keys VALUES (?, '', ?, '', NULL, '', NULL)", [(f"{n:040}", f"{n:064}") for n in range(2000)])
    database.close()
    raw = bytearray(path.read_bytes())
    raw[8192:-8192] = b"\xa5" * (len(raw) - 16384)
    path.write_bytes(raw)
    again = open_database(path)

    assert "was corrupt" in again.problem
    assert () == Keys(again).all()
    again.close()


def test_log_of_a_corrupt_file_is_not_replayed(path: Path) -> None:
    """The old file's log does not become the new file's."""
    path.write_bytes(b"no database at all, truly not" * 100)
    path.with_name("state.db-wal").write_bytes(b"log of the old file")
    _reopened(path)

    assert ["state.db"] == sorted(file.name for file in path.parent.iterdir() if "corrupt" not in file.name)


def test_full_disk_is_an_error_of_ours(database: Database) -> None:
    """A write that does not fit raises, leaves what was there, and the next one that fits succeeds."""
    (pages,) = database.read("PRAGMA page_count")[0]
    database.read(f"PRAGMA max_page_count = {pages}")
    keys = Keys(database)
    before = keys.create().key
    too_much = [(f"{n:040}", f"{n:064}") for n in range(2000)]

    with pytest.raises(StoreError, match="could not write the state database: database or disk is full"):
        database.write("INSERT INTO keys VALUES (?, '', ?, '', NULL, '', NULL)", too_much)

    assert (before,) == keys.all()
    database.read("PRAGMA max_page_count = 1000000")
    after = keys.create().key
    assert {before.id, after.id} == {key.id for key in keys.active()}


def test_place_that_cannot_be_written_is_worked_around(tmp_path: Path) -> None:
    """Without a file the controller works from memory and says so; what must be kept is refused."""
    database = open_database(tmp_path / "missing/state.db")

    assert not database.persistent
    assert "cannot be written" in database.problem
    with pytest.raises(StoreError, match="would not be kept"):
        Keys(database).create()
    database.close()


def test_keys_are_good_even_when_nothing_can_be_written(path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart on a full disk must not lock everybody out: what is there is read, and a revocation holds for now."""
    made = Keys(database).create()
    database.close()
    real = sqlite3.connect

    def full(target: str | Path, *args: object, **options: object) -> sqlite3.Connection:
        if target == path:
            raise sqlite3.OperationalError("database or disk is full")
        return real(target, *args, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", full)
    reading = open_database(path)

    assert (made.key,) == Keys(reading).active()
    with pytest.raises(StoreError, match="until the next start only"):
        Keys(reading).revoke(made.key.id)
    assert () == Keys(reading).active()
    reading.close()


def test_closed_database_is_an_error_of_ours(database: Database) -> None:
    """Asking after the end raises what callers expect."""
    database.close()

    with pytest.raises(StoreError, match="could not read"):
        database.read("SELECT 1")
