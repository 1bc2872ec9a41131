"""
The state database: one SQLite file. A power cut, a full disk or a bad sector must not make a controller that does not start.

- Write-ahead log with `synchronous=FULL`: what was written is on the disk when the call returns. Writes are rare (a key made, a
  ledger flushed), so nothing is gained by less.
- A file that is no database, or whose pages contradict each other, is moved aside as `state.db.corrupt-<UTC>` and replaced.
- A file that cannot be written is read into memory, and work goes on from there without being kept; `problem` says so.
- Schema changes only ever add: after an update is rolled back, the older program reads what the newer one wrote.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.errors import StoreError

Row = tuple[str | int | float | None, ...]
Parameters = Sequence[str | int | float | None]

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE ledger (
        engine TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL, context_tokens INTEGER NOT NULL,
        parallel INTEGER NOT NULL, device TEXT NOT NULL,
        anon_bytes INTEGER NOT NULL, peak_bytes INTEGER NOT NULL, longest_tokens INTEGER NOT NULL,
        out_of_memory_bytes INTEGER NOT NULL, load_s REAL NOT NULL, load_worst_s REAL NOT NULL, tokens_per_s REAL NOT NULL,
        loads INTEGER NOT NULL, requests INTEGER NOT NULL,
        PRIMARY KEY (engine, image, digest, context_tokens, parallel, device)
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
        rate_limit_per_min INTEGER, created_at TEXT NOT NULL, revoked_at TEXT
    ) WITHOUT ROWID;
    """,
    # A table of its own, since a key cannot be widened in place; what was measured before there were options is taken over as
    # measured without any, and the pages of files that were seen then are not known.
    """
    CREATE TABLE measured (
        engine TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL, context_tokens INTEGER NOT NULL,
        parallel INTEGER NOT NULL, device TEXT NOT NULL, options TEXT NOT NULL,
        anon_bytes INTEGER NOT NULL, mapped_bytes INTEGER NOT NULL, longest_tokens INTEGER NOT NULL,
        out_of_memory_bytes INTEGER NOT NULL, load_s REAL NOT NULL, load_worst_s REAL NOT NULL, tokens_per_s REAL NOT NULL,
        loads INTEGER NOT NULL, requests INTEGER NOT NULL,
        PRIMARY KEY (engine, image, digest, context_tokens, parallel, device, options)
    ) WITHOUT ROWID;
    INSERT INTO measured SELECT engine, image, digest, context_tokens, parallel, device, '', anon_bytes, 0, longest_tokens,
        out_of_memory_bytes, load_s, load_worst_s, tokens_per_s, loads, requests FROM ledger;
    """,
    # Of each file that a build made: what it looked like when its hash was last found right.
    """
    CREATE TABLE engine_files (
        fingerprint TEXT NOT NULL, name TEXT NOT NULL, size_bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        PRIMARY KEY (fingerprint, name)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, talk TEXT NOT NULL, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
        tokens INTEGER NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL, saved_s REAL NOT NULL, used_s REAL NOT NULL
    ) WITHOUT ROWID;
    """,
    # Of models whose engine is chosen for them: which one runs each, and which ones have failed with it. The key names weights,
    # image, device and switches, so that a row about others than today's says nothing.
    """
    CREATE TABLE setbacks (
        model TEXT NOT NULL, engine TEXT NOT NULL, key TEXT NOT NULL, failed TEXT NOT NULL, reason TEXT NOT NULL,
        at_s REAL NOT NULL,
        PRIMARY KEY (model, engine)
    ) WITHOUT ROWID;
    CREATE TABLE chosen_engines (model TEXT PRIMARY KEY, engine TEXT NOT NULL) WITHOUT ROWID;
    """,
    # What was measured before anybody looked at cards has nothing on them; an older program goes on without these columns.
    """
    ALTER TABLE measured ADD COLUMN gpu_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE measured ADD COLUMN gpu_out_of_memory_bytes INTEGER NOT NULL DEFAULT 0;
    """,
    # What was found out about the box by trying: the speed of its disk, what a container is charged for.
    """
    CREATE TABLE findings (key TEXT PRIMARY KEY, value TEXT NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
    """,
)
"""The schema, one step a version: `user_version` counts how many were applied."""

_OWNER_ONLY: Final = 0o600
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """
    The open state database. Any thread may call it; one call at a time is served.

    Attributes:
        persistent: what is written is kept; `False` when the disk does not take it.
        problem: what the operator should know about how it was opened; empty if all is well.

    """

    def __init__(self, connection: sqlite3.Connection, *, persistent: bool, problem: str = "") -> None:
        """Take over an open connection; use `open_database`."""
        self.persistent = persistent
        self.problem = problem
        self._connection = connection
        self._lock = threading.Lock()

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """
        Return all rows of a query.

        Raises:
            StoreError: the database cannot be read.

        """
        with self._lock, _our_errors("read the state database"):
            return self._connection.execute(sql, parameters).fetchall()

    def write(self, sql: str, rows: Iterable[Parameters] = ((),)) -> int:
        """
        Run one statement for every row, all in one transaction, and return how many rows of the table it changed.

        Raises:
            StoreError: nothing was written: the disk is full, or it fails.

        """
        with self._lock, _our_errors("write the state database"), self._connection:
            return self._connection.executemany(sql, rows).rowcount

    def compact(self) -> None:
        """
        Give back the space of what was deleted, and let SQLite refresh what it knows of its tables.

        Raises:
            StoreError: there is no room for the copy that this needs.

        """
        with self._lock, _our_errors("compact the state database"):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA optimize")

    def close(self) -> None:
        """Fold the log into the file and let go of both."""
        with self._lock:
            self._connection.close()


def open_database(path: Path) -> Database:
    """Open the database at *path*, making, replacing or merely reading it as its state demands; this never fails."""
    try:
        return Database(_connect(path), persistent=True)
    except sqlite3.DatabaseError as exc:
        if not _is_corrupt(exc):
            return _reading_only(path, exc)
    aside = _move_aside(path)
    problem = f"{path} was corrupt: it was moved to {aside} and a new one was made; API keys must be made again"
    try:
        return Database(_connect(path), persistent=True, problem=problem)
    except sqlite3.DatabaseError as exc:
        return _reading_only(path, exc)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    try:
        with contextlib.suppress(OSError):  # a file system that cannot be written says so at the next line, in its own way
            path.chmod(_OWNER_ONLY)  # SQLite gives its log and its index the same mode
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _check(connection)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # One transaction a step: a power cut leaves the step before it or the step after it.
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _reading_only(path: Path, cause: sqlite3.DatabaseError) -> Database:
    problem = f"{path} cannot be written ({cause}): measurements and new API keys are lost at the next start; free the disk"
    try:
        memory = _copied(path)
    except sqlite3.DatabaseError:
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        _migrate(memory)
    return Database(memory, persistent=False, problem=problem)


def _copied(path: Path) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        # `immutable` needs no log and no lock file, which a full disk would not take.
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as source:
            source.backup(memory)
        _migrate(memory)
    except BaseException:
        memory.close()
        raise
    return memory


def _is_corrupt(exc: sqlite3.DatabaseError) -> bool:
    return (getattr(exc, "sqlite_errorcode", 0) & 0xFF) in _CORRUPT


def _check(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    with contextlib.suppress(OSError):
        path.rename(aside)
    for suffix in ("-wal", "-shm"):
        # A log of the old file would be replayed into the new one.
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


@contextlib.contextmanager
def _our_errors(wanted: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreError(f"could not {wanted}: {exc}; check the disk's free space and its health") from exc
