"""What was found out about the box by trying, which takes time or disturbs, and so is done once; each with its time."""

import json
from dataclasses import dataclass
from typing import Any

from controller.errors import StoreError
from controller.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One result.

    Attributes:
        value: a plain JSON value.
        at_s: when it was found, in seconds since 1970.

    """

    value: Any
    at_s: float


class Findings:
    """
    What is kept of them, by what was tried and for what it holds: a key that names disk, driver or release.

    A state database that cannot be read or written costs a second try, nothing more.
    """

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    def get(self, key: str) -> Finding | None:
        """Return what was found; `None` if nobody has tried."""
        try:
            rows = self._database.read("SELECT value, at_s FROM findings WHERE key = ?", (key,))
            return next((Finding(value=json.loads(str(value)), at_s=float(at_s or 0)) for value, at_s in rows), None)
        except (StoreError, ValueError):
            return None

    def put(self, key: str, value: Any, *, at_s: float) -> None:  # noqa: ANN401 -- a plain JSON value
        """Keep a result in place of an older one, as far as the disk takes it."""
        try:
            self._database.write("INSERT OR REPLACE INTO findings VALUES (?, ?, ?)", [(key, json.dumps(value), at_s)])
        except StoreError:
            return
