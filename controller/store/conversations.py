"""
Conversations on the disk: what a worker has computed of each, to be read again after a swap instead of being computed again.

They are users' data. The files lie in a folder that only root may enter, out of every worker's sight but for the moment in which
one is written or read; what they are called says nothing to anybody without the secret that is in the state database. A file is
believed only if the database knows it, by its size and SHA-256: what a crash has left half-written is swept away.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Final

from controller.errors import StoreError
from controller.store.database import Database, Row
from controller.units import MIB, format_bytes

FOLDER: Final = ".kept"
"""Beside the workers' own directories; no model's name begins with a dot."""
LEFT_FREE_BYTES: Final = 256 * MIB
"""A disk is not filled with what can be computed again."""
_ENTERED_BY_OWNER: Final = 0o700
_OWNER_ONLY: Final = 0o600
_SECRET_BYTES: Final = 32
_NAME_BYTES: Final = 16
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """
    One conversation on the disk.

    Attributes:
        id: what its file is called.
        owner: whose it is, as a keyed hash.
        talk: which one, as a keyed hash of owner and name.
        model: whose worker wrote it.
        fingerprint: what it was computed with; it means nothing to anything else.
        tokens: how long it is.
        size_bytes: of the file.
        digest: SHA-256 of the file.
        saved_s: when it was written, in seconds since 1970.
        used_s: when it was written or read last.

    """

    id: str
    owner: str
    talk: str
    model: str
    fingerprint: str
    tokens: int
    size_bytes: int
    digest: str
    saved_s: float
    used_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is kept: all files together, one file, and for how long after its last use."""

    budget_bytes: int
    file_bytes: int
    age_s: float


class Conversations:
    """
    The files and their rows. Looking is instant; what touches the disk says so, and may be called from any thread.

    Attributes:
        limits: how much is kept.

    """

    def __init__(self, database: Database, root: Path, *, limits: Limits, wall: Callable[[], float]) -> None:
        """
        Read what there is, and sweep away what is not whole.

        Args:
            database: the state database.
            root: the folder of the workers' KV directories.
            limits: how much is kept.
            wall: seconds since 1970.

        Raises:
            StoreError: the database or the folder cannot be read.

        """
        self.limits = limits
        self._database = database
        self._folder = root / FOLDER
        self._wall = wall
        self._lock = threading.RLock()
        self._secret = _secret(database)
        self._kept = {kept.id: kept for kept in map(_kept, database.read(_SELECT))}
        try:
            self._folder.mkdir(mode=_ENTERED_BY_OWNER, parents=True, exist_ok=True)
            self._folder.chmod(_ENTERED_BY_OWNER)
            self._sweep_files()
        except OSError as exc:
            raise StoreError(f"wanted the folder of the conversations, got: {exc}") from exc
        self.tidy()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """What they take together."""
        with self._lock:
            return sum(kept.size_bytes for kept in self._kept.values())

    def of_owner(self, owner: str) -> list[Kept]:
        """Return an owner's, the last used first."""
        wanted = self.hash(owner)
        with self._lock:
            return sorted((k for k in self._kept.values() if k.owner == wanted), key=lambda k: -k.used_s)

    def find(self, owner: str, names: Iterable[str], fingerprint: str) -> Kept | None:
        """Return the first of these that is kept; an empty name is nobody's."""
        for name in filter(None, names if self._kept else ()):
            if (kept := self._kept.get(f"{self.talk(owner, name)}.{fingerprint}")) is not None and not self._is_old(kept):
                return kept
        return None

    def hash(self, owner: str) -> str:
        """Return what an owner is called here."""
        return self._hash(b"owner", owner.encode())

    def talk(self, owner: str, name: str) -> str:
        """Return what an owner's conversation is called here."""
        return self._hash(b"talk", owner.encode(), name.encode())

    # What touches the disk.

    def refusal(self, size_bytes: int) -> str:
        """Say why a file of about this size would not be kept; empty if it would."""
        try:
            self._check_size(size_bytes)
            free_bytes = shutil.disk_usage(self._folder).free
        except (OSError, StoreError) as exc:
            return str(exc)
        if free_bytes - size_bytes < LEFT_FREE_BYTES:
            return f"the disk has {format_bytes(free_bytes)} free, and {format_bytes(LEFT_FREE_BYTES)} are to be left"
        return "" if self._database.persistent else self._database.problem

    def keep(
        self, written: Path, *, owner: str, name: str, model: str, fingerprint: str, tokens: int, instead_of: str = ""
    ) -> Kept:
        """
        Take over the file that a worker has written, and believe it from now on.

        Args:
            written: the file, in the worker's own directory; it is not there afterwards, whatever happens.
            owner: whose conversation it is.
            name: the conversation's.
            model: whose worker it was.
            fingerprint: what it was computed with.
            tokens: how long it is.
            instead_of: the name of what it goes on from, which is not needed any more.

        Raises:
            StoreError: it is no file, it is too large, or the disk does not take it.

        """
        # Out of the worker's reach first: what it could still change or exchange would have to be looked at again.
        arriving = self._folder / f"{secrets.token_hex(8)}.arriving"
        try:
            written.rename(arriving)
            size_bytes, digest = _seal(arriving)
            self._check_size(size_bytes)
            now = self._wall()
            talk = self.talk(owner, name)
            kept = Kept(
                id=f"{talk}.{fingerprint}",
                owner=self.hash(owner),
                talk=talk,
                model=model,
                fingerprint=fingerprint,
                tokens=tokens,
                size_bytes=size_bytes,
                digest=digest,
                saved_s=now,
                used_s=now,
            )
            with self._lock:
                self._make_room(size_bytes, without=kept.id)
                self._database.write(_UPSERT, [astuple(kept)])
                arriving.rename(self._folder / kept.id)
                self._kept[kept.id] = kept
        except OSError as exc:
            raise StoreError(f"wanted to keep a conversation of {model}, got: {exc}") from exc
        finally:
            for left in (arriving, written):
                _remove(left)
        if instead_of and instead_of != name:
            self.drop([f"{self.talk(owner, instead_of)}.{fingerprint}"])
        return kept

    def lend(self, kept: Kept, target: Path) -> None:
        """
        Put a conversation where a worker can read it; whoever asked takes it away from there again.

        Raises:
            StoreError: it is not what was written, and gone now.

        """
        source = self._folder / kept.id
        try:
            target.unlink(missing_ok=True)
            _check_same(kept, *_seal(source))
            os.link(source, target)
        except (OSError, StoreError) as exc:
            self.drop([kept.id])
            raise StoreError(f"a kept conversation of {kept.model} is damaged and was removed: {exc}") from exc
        with self._lock:
            if kept.id in self._kept:
                self._kept[kept.id] = replace(self._kept[kept.id], used_s=self._wall())

    def drop(self, ids: Collection[str]) -> int:
        """Remove these and return how many there were."""
        with self._lock:
            gone = [kept for one in ids if (kept := self._kept.pop(one, None)) is not None]
        for kept in gone:
            _remove(self._folder / kept.id)
        with contextlib.suppress(StoreError):  # a row without a file is swept as well
            self._database.write("DELETE FROM conversations WHERE id = ?", [(kept.id,) for kept in gone])
        return len(gone)

    def forget(self, *, owner: str | None = None, talk: str | None = None) -> int:
        """Remove an owner's, or one of them, or without an owner all, and return how many there were."""
        whose = None if owner is None else self.hash(owner)
        with self._lock:
            kept = [k for k in self._kept.values() if whose in (None, k.owner) and talk in (None, k.talk)]
        return self.drop([k.id for k in kept])

    def retire(self, fingerprint: Callable[[str], str | None]) -> int:
        """Remove what was computed otherwise than its model is now, or whose model is gone, and return how many there were."""
        with self._lock:
            kept = list(self._kept.values())
        now = {model: fingerprint(model) for model in {k.model for k in kept}}
        return self.drop([k.id for k in kept if k.fingerprint != now[k.model]])

    def tidy(self) -> int:
        """Remove what is too old or too much, write down what was used last, and return how many were removed."""
        with self._lock:
            removed = self.drop([k.id for k in self._kept.values() if self._is_old(k)]) + self._make_room(0)
            rows = [(k.used_s, k.id) for k in self._kept.values() if k.used_s != k.saved_s]
        if rows:
            with contextlib.suppress(StoreError):  # a disk that does not take it costs the order of removal
                self._database.write("UPDATE conversations SET used_s = ? WHERE id = ?", rows)
        return removed

    def _check_size(self, size_bytes: int) -> None:
        most_bytes = min(self.limits.file_bytes, self.limits.budget_bytes)
        if size_bytes > most_bytes:
            wanted, got = format_bytes(most_bytes), format_bytes(size_bytes)
            raise StoreError(f"wanted a conversation of at most {wanted} (conversations.max_size), got one of {got}")

    def _make_room(self, wanted_bytes: int, *, without: str = "") -> int:
        """Remove what was used the longest ago until so much more fits; what is replaced makes room by itself."""
        others = sorted((k for k in self._kept.values() if k.id != without), key=lambda k: k.used_s)
        over_bytes = sum(k.size_bytes for k in others) + wanted_bytes - self.limits.budget_bytes
        leaving: list[str] = []
        for kept in others:
            if over_bytes <= 0:
                break
            leaving.append(kept.id)
            over_bytes -= kept.size_bytes
        return self.drop(leaving)

    def _is_old(self, kept: Kept) -> bool:
        return self._wall() - kept.used_s > self.limits.age_s

    def _sweep_files(self) -> None:
        """Remove files that no row knows, and rows whose file is not there or of another size."""
        there: dict[str, int] = {}
        for entry in list(os.scandir(self._folder)):
            if entry.name in self._kept and entry.is_file(follow_symlinks=False):
                there[entry.name] = entry.stat(follow_symlinks=False).st_size
            else:
                _remove(Path(entry.path))
        self.drop([k.id for k in self._kept.values() if there.get(k.id) != k.size_bytes])

    def _hash(self, *parts: bytes) -> str:
        hashed = hashlib.blake2b(key=self._secret, digest_size=_NAME_BYTES)
        for part in parts:
            hashed.update(b"%d:" % len(part) + part)
        return hashed.hexdigest()


def _seal(path: Path) -> tuple[int, str]:
    """Close a file to everybody but its owner, and return its size and digest. A worker might have made anything of that name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 -- it is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"wanted a file, got {stat.filemode(os.fstat(descriptor).st_mode)}")
        os.fchmod(descriptor, _OWNER_ONLY)
        hashed, size_bytes, block = hashlib.sha256(), 0, bytearray(_BLOCK_BYTES)
        while count := file.readinto(block):
            hashed.update(memoryview(block)[:count])
            size_bytes += count
    return size_bytes, hashed.hexdigest()


def _remove(path: Path) -> None:
    """Remove whatever is there; what cannot be removed is swept away at the next start."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_same(kept: Kept, size_bytes: int, digest: str) -> None:
    if (size_bytes, digest) != (kept.size_bytes, kept.digest):
        raise StoreError(f"wanted {kept.size_bytes} bytes of {kept.digest[:12]}, got {size_bytes} of {digest[:12]}")


def _secret(database: Database) -> bytes:
    """Return the secret that names are made with; a new one makes everything written before nameless, and it is swept away."""
    database.write(
        "INSERT OR IGNORE INTO secrets (name, value) VALUES ('conversations', ?)", [(secrets.token_hex(_SECRET_BYTES),)]
    )
    ((value,),) = database.read("SELECT value FROM secrets WHERE name = 'conversations'")
    return bytes.fromhex(str(value))


_COLUMNS: Final = tuple(field.name for field in fields(Kept))
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM conversations"  # noqa: S608 -- names of our own fields
_UPSERT: Final = f"INSERT OR REPLACE INTO conversations ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608


def _kept(row: Row) -> Kept:
    return Kept(**dict(zip(_COLUMNS, row, strict=True)))  # type: ignore[arg-type]  # the schema types them
