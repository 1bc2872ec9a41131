"""
Which engines have failed with which models, and which engine each of those models had last: for `engine = "auto"`.

One row a model and engine. A row counts only under the key it was written with, so another image, other weights, another JetPack
or other switches give the engine another chance. What the disk does not take is known until the controller ends.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import astuple
from typing import Final

import structlog

from controller.engines.choice import Failed, Setback
from controller.errors import StoreError
from controller.spec import ModelName
from controller.store.database import Database, Parameters
from controller.store.ledger import LedgerKey

log: Final = structlog.get_logger()


def setback_key(key: LedgerKey) -> str:
    """Return what a failure holds for: what a measurement would hold for, too."""
    return hashlib.sha256(repr(astuple(key)).encode()).hexdigest()[:24]


class Setbacks:
    """What is remembered, in memory and in the database. Any thread may ask."""

    def __init__(self, database: Database, *, wall: Callable[[], float]) -> None:
        """
        Read all of it.

        Raises:
            StoreError: the database cannot be read.

        """
        self._database = database
        self._wall = wall
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], tuple[str, Setback]] = {}
        for model, engine, key, failed, reason, at_s in database.read(
            "SELECT model, engine, key, failed, reason, at_s FROM setbacks"
        ):
            setback = Setback(failed=Failed(str(failed)), reason=str(reason), at_s=float(at_s or 0.0))
            self._rows[str(model), str(engine)] = (str(key), setback)
        self._engines = {str(model): str(engine) for model, engine in database.read("SELECT model, engine FROM chosen_engines")}

    def find(self, model: ModelName, engine: str, key: str) -> Setback | None:
        """Return how an engine failed with a model, if it was under this key."""
        known, setback = self._rows.get((model, engine), ("", None))
        return setback if known == key else None

    def note(self, model: ModelName, engine: str, key: str, *, failed: Failed, reason: str) -> None:
        """Remember that an engine failed with a model."""
        setback = Setback(failed=failed, reason=reason, at_s=self._wall())
        with self._lock:
            self._rows[model, engine] = (key, setback)
        self._write(
            "INSERT OR REPLACE INTO setbacks (model, engine, key, failed, reason, at_s) VALUES (?, ?, ?, ?, ?, ?)",
            (model, engine, key, failed.value, reason, setback.at_s),
        )

    def forget(self, model: ModelName) -> bool:
        """Give every engine another chance with a model; false if none has failed with it."""
        with self._lock:
            known = [row for row in self._rows if row[0] == model]
            for row in known:
                del self._rows[row]
        if known:
            self._write("DELETE FROM setbacks WHERE model = ?", (model,))
        return bool(known)

    def chose(self, model: ModelName, engine: str) -> str:
        """Remember which engine a model has now, and return the one it had last; empty if it had none."""
        before = self._engines.get(model, "")
        if before != engine:
            self._engines[model] = engine
            self._write("INSERT OR REPLACE INTO chosen_engines (model, engine) VALUES (?, ?)", (model, engine))
        return before

    def _write(self, sql: str, row: Parameters) -> None:
        try:
            self._database.write(sql, [row])
        except StoreError as exc:
            log.warning("setbacks.not_written", error=str(exc))
