"""
The ledger: what was measured of every model, so that the next decision rests on more than an estimate.

The table lives in memory and every answer comes from there; `flush` writes what has changed. A disk that does not take it costs
what this run has learnt, and nothing else.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Final

from controller.engines.base import NO_OPTIONS, Options
from controller.footprint import Measured
from controller.spec import ModelSpec
from controller.store.database import Database

RECENT_SHARE: Final = 0.3
"""How much the newest figure weighs in a moving average."""
WORST_SHARE: Final = 0.9
"""What is left of a slow maximum after each load that did not reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKey:
    """
    What a measurement holds for; a change of any of it makes it another model, as far as memory and speed go.

    Attributes:
        engine: the name of the engine.
        image: its image's tag, which names its version.
        digest: the weights.
        context_tokens: prompt and answer together, for one caller.
        parallel: how many callers it serves at once.
        device: what it runs on.
        options: the engine's switches, written the same way every time: the type of the KV cache and the size of a batch, say.

    """

    engine: str
    image: str
    digest: str
    context_tokens: int
    parallel: int
    device: str
    options: str = ""

    @classmethod
    def of(cls, model: ModelSpec, *, image: str, device: str, options: Options = NO_OPTIONS) -> "LedgerKey":
        """Return the key of *model* run by *image* on *device* with *options*."""
        return cls(
            engine=model.engine,
            image=image,
            digest=model.digest,
            context_tokens=model.context_tokens,
            parallel=model.parallel,
            device=device,
            options=options_text(options),
        )


class Ledger:
    """Measurements by key. The calls are instant and may come from any thread; `flush` is the one that writes."""

    def __init__(self, database: Database) -> None:
        """
        Read all of it.

        Raises:
            StoreError: the database cannot be read.

        """
        self._database = database
        self._lock = threading.Lock()
        self._rows: dict[LedgerKey, Measured] = {}
        self._changed: set[LedgerKey] = set()
        self._has_news = False
        for row in database.read(f"SELECT {', '.join(_COLUMNS)} FROM measured"):  # noqa: S608  # names of our own fields
            named = dict(zip(_COLUMNS, row, strict=True))
            key = LedgerKey(**{name: named[name] for name in _KEY})  # type: ignore[arg-type]  # the schema types them
            self._rows[key] = Measured(**{name: named[name] for name in _VALUE})  # type: ignore[arg-type]

    def find(self, key: LedgerKey) -> Measured | None:
        """Return what was measured, if this exact combination has run before."""
        return self._rows.get(key)

    def all(self) -> Mapping[LedgerKey, Measured]:
        """Return everything that was measured."""
        with self._lock:
            return dict(self._rows)

    def saw_memory(self, key: LedgerKey, *, anon_bytes: int, mapped_bytes: int, gpu_bytes: int = 0) -> None:
        """Note the memory of a running worker; only a new maximum changes anything."""
        self._update(
            key,
            lambda m: replace(
                m,
                anon_bytes=max(m.anon_bytes, anon_bytes),
                mapped_bytes=max(m.mapped_bytes, mapped_bytes),
                gpu_bytes=max(m.gpu_bytes, gpu_bytes),
            ),
        )

    def saw_load(self, key: LedgerKey, *, load_s: float) -> None:
        """Note how long a load took."""
        self._update(
            key,
            lambda m: replace(
                m,
                load_s=_recent(m.load_s, load_s),
                load_worst_s=max(load_s, m.load_worst_s * WORST_SHARE),
                loads=m.loads + 1,
            ),
        )

    def saw_request(self, key: LedgerKey, *, tokens: int, tokens_per_s: float = 0.0) -> None:
        """Note a request served: how long it was, prompt and answer together, and how fast it was decoded, if that is known."""
        self._update(
            key,
            lambda m: replace(
                m,
                longest_tokens=max(m.longest_tokens, tokens),
                tokens_per_s=_recent(m.tokens_per_s, tokens_per_s) if tokens_per_s > 0 else m.tokens_per_s,
                requests=m.requests + 1,
            ),
        )

    def saw_too_little(self, key: LedgerKey, *, limit_bytes: int) -> None:
        """Note that this limit was too small: the kernel killed the worker there, or its weights did not stay in memory."""
        self._update(key, lambda m: replace(m, out_of_memory_bytes=max(m.out_of_memory_bytes, limit_bytes)))

    def saw_too_little_on_cards(self, key: LedgerKey, *, kept_bytes: int) -> None:
        """Note that so much of cards, as if it all lay on one of them, was too little."""
        self._update(key, lambda m: replace(m, gpu_out_of_memory_bytes=max(m.gpu_out_of_memory_bytes, kept_bytes)))

    def flush(self) -> int:
        """
        Write what has changed and return how many rows that were.

        Raises:
            StoreError: the disk did not take it; the next flush tries again.

        """
        with self._lock:
            keys = tuple(self._changed)
            rows = [astuple(key) + astuple(self._rows[key]) for key in keys]
            self._changed.clear()
        try:
            if rows:
                self._database.write(_UPSERT, rows)
        except BaseException:
            with self._lock:
                self._changed.update(keys)
            raise
        return len(rows)

    def take_news(self) -> bool:
        """Say whether anything has changed since the last question that makes a model's description another one."""
        with self._lock:
            news, self._has_news = self._has_news, False
        return news

    def _update(self, key: LedgerKey, change: Callable[[Measured], Measured]) -> None:
        with self._lock:
            before = self._rows.get(key, Measured())
            after = change(before)
            if after != before:
                self._rows[key] = after
                self._changed.add(key)
                self._has_news |= not after.describes_as(before)


_KEY: Final = tuple(field.name for field in fields(LedgerKey))
_VALUE: Final = tuple(field.name for field in fields(Measured))
_COLUMNS: Final = _KEY + _VALUE
_UPSERT: Final = f"INSERT OR REPLACE INTO measured ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608


def options_text(options: Options) -> str:
    """Write an engine's switches so that the same ones give the same text; none of them is an empty text."""
    return json.dumps(dict(options), sort_keys=True) if options else ""


def _recent(average: float, newest: float) -> float:
    return newest if average == 0 else (1 - RECENT_SHARE) * average + RECENT_SHARE * newest
