"""
API keys: made here, shown once, kept as a digest.

A secret is 32 random bytes, so its SHA-256 cannot be guessed back: there are 2^256 to try. The slow hashes made for passwords
protect secrets that people choose; here they would only make every request slow.
"""

import enum
import hashlib
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.errors import StoreError
from controller.store.database import Database, Row

PREFIX: Final = "wl_"
"""How every secret starts, so that one that was leaked into a text can be found."""
SECRET_BYTES: Final = 32
ID_LENGTH: Final = 8
_ID_LETTERS: Final = string.ascii_lowercase + string.digits


class Scope(enum.StrEnum):
    """What a key may be used for."""

    INFERENCE = "inference"
    """Ask models and list them."""
    ADMIN = "admin"
    """Load, unload and optimize; see and make keys. It includes `inference`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """
    A key as it is kept: without its secret.

    Attributes:
        id: names it in lists and when it is revoked.
        name: whose it is, for people.
        digest: hex SHA-256 of the secret.
        scopes: what it may be used for.
        rate_limit_per_min: requests a minute; `None` for the gateway's default.
        created_at: when it was made, UTC, ISO 8601.
        revoked_at: when it was revoked; `None` while it is good.

    """

    id: str
    name: str
    digest: str
    scopes: frozenset[Scope]
    rate_limit_per_min: int | None
    created_at: str
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made, with the secret that is shown this once."""

    key: ApiKey
    secret: str


def digest_of(secret: str) -> str:
    """Return the digest under which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The API keys in the state database. Every call reads or writes the disk."""

    def __init__(self, database: Database) -> None:
        """Use the tables of *database*."""
        self._database = database

    def create(
        self, *, name: str = "", scopes: Iterable[Scope] = (Scope.INFERENCE,), rate_limit_per_min: int | None = None
    ) -> NewKey:
        """
        Make a key.

        Raises:
            StoreError: it would not outlive this process, or it has no scope.

        """
        if not self._database.persistent:
            raise StoreError(f"a new key would not be kept: {self._database.problem}")
        wanted = frozenset(scopes)
        if not wanted:
            raise StoreError(f"wanted at least one scope of {', '.join(Scope)}, got none")
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(
            id="".join(secrets.choice(_ID_LETTERS) for _ in range(ID_LENGTH)),
            name=name,
            digest=digest_of(secret),
            scopes=wanted,
            rate_limit_per_min=rate_limit_per_min,
            created_at=_now(),
        )
        self._database.write(
            "INSERT INTO keys (id, name, digest, scopes, rate_limit_per_min, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            [(key.id, key.name, key.digest, " ".join(sorted(wanted)), rate_limit_per_min, key.created_at)],
        )
        return NewKey(key=key, secret=secret)

    def all(self) -> tuple[ApiKey, ...]:
        """Return every key ever made, the revoked ones too, oldest first."""
        return tuple(_key(row) for row in self._database.read(f"{_SELECT} ORDER BY created_at, id"))

    def active(self) -> tuple[ApiKey, ...]:
        """Return the keys that are good now, oldest first."""
        return tuple(key for key in self.all() if key.revoked_at is None)

    def revoke(self, key_id: str) -> ApiKey:
        """
        End a key; it stays in the list. Revoking one twice is no error.

        Raises:
            StoreError: there is no such key, or the disk did not take it; in the latter case it is revoked until the next start.

        """
        self._database.write("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", [(_now(), key_id)])
        rows = self._database.read(f"{_SELECT} WHERE id = ?", (key_id,))
        if not rows:
            raise StoreError(f"wanted the id of a key, got {key_id!r}; `windlass keys list` shows them")
        if not self._database.persistent:
            raise StoreError(f"key {key_id} is revoked until the next start only: {self._database.problem}")
        return _key(rows[0])


_SELECT: Final = "SELECT id, name, digest, scopes, rate_limit_per_min, created_at, revoked_at FROM keys"


def _key(row: Row) -> ApiKey:
    key_id, name, digest, scopes, rate_limit_per_min, created_at, revoked_at = row
    return ApiKey(
        id=str(key_id),
        name=str(name),
        digest=str(digest),
        scopes=frozenset(Scope(scope) for scope in str(scopes).split()),
        rate_limit_per_min=None if rate_limit_per_min is None else int(rate_limit_per_min),
        created_at=str(created_at),
        revoked_at=None if revoked_at is None else str(revoked_at),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
