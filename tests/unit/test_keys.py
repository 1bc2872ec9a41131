"""API keys: shown once, kept as digests, revoked for good."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import StoreError
from controller.store.database import open_database
from controller.store.keys import Keys, Scope, digest_of


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    """Return the keys of a new database."""
    database = open_database(tmp_path / "state.db")
    yield Keys(database)
    database.close()


def test_secret_has_256_bits_and_is_not_kept(tmp_path: Path, keys: Keys) -> None:
    """The secret starts with its mark, is long enough that nobody guesses it, and is nowhere on the disk."""
    made = keys.create()

    assert re.fullmatch(r"wl_[A-Za-z0-9_-]{43}", made.secret)
    assert digest_of(made.secret) == made.key.digest
    assert not any(made.secret.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert made.secret not in repr(keys.all())


def test_two_keys_are_never_alike(keys: Keys) -> None:
    """Each key has its own id and its own secret."""
    first, second = keys.create(), keys.create()

    assert first.secret != second.secret
    assert first.key.id != second.key.id


def test_key_keeps_what_it_was_made_with(keys: Keys) -> None:
    """Name, scopes and rate limit come back from the disk as they were given."""
    made = keys.create(name="laptop", scopes=(Scope.ADMIN, Scope.INFERENCE), rate_limit_per_min=60)

    assert (made.key,) == keys.all()
    assert ("laptop", frozenset(Scope), 60, None) == (
        made.key.name,
        made.key.scopes,
        made.key.rate_limit_per_min,
        made.key.revoked_at,
    )


def test_key_without_a_scope_is_refused(keys: Keys) -> None:
    """A key that may do nothing is a mistake."""
    with pytest.raises(StoreError, match="at least one scope of inference, admin"):
        keys.create(scopes=())


def test_revoked_key_is_listed_and_not_good(keys: Keys) -> None:
    """A revoked key stays in the list with its time, and revoking it again changes nothing."""
    made, other = keys.create().key, keys.create().key
    revoked = keys.revoke(made.id)

    assert revoked.revoked_at is not None
    assert (other,) == keys.active()
    assert {made.id, other.id} == {key.id for key in keys.all()}
    assert revoked == keys.revoke(made.id)


def test_unknown_key_cannot_be_revoked(keys: Keys) -> None:
    """A wrong id is answered with where to find the right one."""
    with pytest.raises(StoreError, match="windlass keys list"):
        keys.revoke("nobody")
