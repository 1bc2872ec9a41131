"""
What is written of conversations and read again: between a worker's slot, its directory and what is kept.

Whoever calls holds the lock of the table, so that one thing at a time is done to a worker's slots.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from controller.duties import survived
from controller.engines.base import KV_MOUNT
from controller.errors import StoreError
from controller.probes import slots as worker_slots
from controller.slots import LEAST_TOKENS, Slot, Slots
from controller.spec import ModelName, ModelSpec, WorkerSpec
from controller.state import RunId
from controller.store.conversations import Conversations, Kept
from controller.wire import Talk

log: Final = structlog.get_logger()

SAVE_S: Final = 5.0
RESTORE_S: Final = 10.0
ERASE_S: Final = 2.0
"""How long a worker may take for each; it may be in the middle of a pass over somebody's prompt."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What was done since the start; `unused` restores did nothing, as the engine's count shows, `failures` said so at once."""

    saves: int = 0
    restores: int = 0
    restored_tokens: int = 0
    reused_tokens: int = 0
    unused: int = 0
    failures: int = 0
    last_save_s: float = 0.0
    last_restore_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Table:
    """The slots of one run of one worker; whatever changes what is in them holds the lock."""

    spec: WorkerSpec
    model: ModelSpec
    run: RunId
    fingerprint: str
    slots: Slots
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def folder(self) -> Path:
        """The worker's KV directory on the host."""
        return next(Path(mount.source) for mount in self.spec.mounts if mount.target == KV_MOUNT)


class Copies:
    """
    Writes and reads.

    Attributes:
        counts: what was done since the start.

    """

    def __init__(self, *, store: Conversations | None, clock: Callable[[], float]) -> None:
        """Without a *store*, nothing is written."""
        self.counts = Counts()
        self._store = store
        self._clock = clock
        self._tasks: asyncio.TaskGroup | None = None
        self._commits: dict[ModelName, set[asyncio.Task[None]]] = {}
        self._token_bytes: dict[str, float] = {}
        self._files = itertools.count(1)

    def attend(self, tasks: asyncio.TaskGroup) -> None:
        """Have *tasks* do what nobody waits for."""
        self._tasks = tasks

    def is_settled(self, model: ModelName) -> bool:
        """Say whether all that this model's workers have written is taken over."""
        return model not in self._commits

    @property
    def unsettled(self) -> list[ModelName]:
        """The models of which something is still being taken over."""
        return list(self._commits)

    async def save(self, table: Table, slot: Slot) -> None:
        """Have a worker write what is in a slot; it is taken over while nobody waits for it."""
        store, talk = self._store, slot.talk
        if store is None or talk is None:
            return
        # Whatever comes of it: it is not tried again before the conversation has grown.
        tokens, slot.saved_tokens = slot.tokens, slot.tokens
        guess_bytes = int(tokens * self._token_bytes.get(table.fingerprint, 0.0))  # nobody knows before the first one
        if reason := await asyncio.to_thread(store.refusal, guess_bytes):
            log.info("conversation.not_kept", model=table.model.name, tokens=tokens, reason=reason)
            return
        written, began_s = table.folder / f"{slot.number}-{next(self._files)}.saving", self._clock()
        try:
            saved_tokens = await worker_slots.save(table.spec.socket, slot.number, written.name, timeout_s=SAVE_S)
        except StoreError as exc:
            self._failed("save", table, exc)
            await asyncio.to_thread(_remove, written)
            return
        except BaseException:  # the time for it was over
            _remove(written)
            raise
        slot.tokens = slot.saved_tokens = saved_tokens
        self.counts.last_save_s = self._clock() - began_s
        self.begin(self._commit(table, talk, written, saved_tokens), of=table.model.name)

    async def restore(self, table: Table, slot: Slot, kept: Kept) -> int:
        """Have a worker read a conversation into a slot, and return how long it is; 0 if it could not, and then it is gone."""
        store = self._store
        assert store is not None, "what is kept is in a store"
        lent, began_s = table.folder / f"{slot.number}-{next(self._files)}.restoring", self._clock()
        try:
            await asyncio.to_thread(store.lend, kept, lent)
            tokens = await worker_slots.restore(table.spec.socket, slot.number, lent.name, timeout_s=RESTORE_S)
        except StoreError as exc:
            self._failed("restore", table, exc)
            await asyncio.to_thread(store.drop, [kept.id])
            return 0
        finally:
            _remove(lent)
        self.counts.restores += 1
        self.counts.restored_tokens += tokens
        self.counts.last_restore_s = self._clock() - began_s
        log.info("conversation.restored", model=table.model.name, tokens=tokens, took_s=round(self.counts.last_restore_s, 3))
        return tokens

    async def erase(self, table: Table, slot: Slot) -> bool:
        """Have a worker forget what is in a slot, and say whether it has."""
        try:
            await worker_slots.erase(table.spec.socket, slot.number, timeout_s=ERASE_S)
        except StoreError as exc:
            self._failed("erase", table, exc)
            return False
        return True

    async def _commit(self, table: Table, talk: Talk, written: Path, tokens: int) -> None:
        """Take over what a worker has written."""
        store, model = self._store, table.model.served_name
        if store is None or tokens < LEAST_TOKENS:
            await asyncio.to_thread(_remove, written)
            return
        try:
            kept = await asyncio.to_thread(
                lambda: store.keep(
                    written,
                    owner=talk.owner,
                    name=talk.name,
                    model=model,
                    fingerprint=table.fingerprint,
                    tokens=tokens,
                    instead_of=talk.origin,
                )
            )
        except StoreError as exc:
            self._failed("keep", table, exc)
            return
        self._token_bytes[table.fingerprint] = kept.size_bytes / tokens
        self.counts.saves += 1
        log.info(
            "conversation.saved",
            model=model,
            tokens=tokens,
            size_bytes=kept.size_bytes,
            took_s=round(self.counts.last_save_s, 3),
        )

    async def settled(self, model: ModelName) -> None:
        """Wait until what this model's workers have written is taken over."""
        if commits := self._commits.get(model):
            await asyncio.wait(commits)

    def begin(self, work: Coroutine[Any, Any, Any], *, of: ModelName | None = None) -> None:
        """Do something that nobody waits for, but for who asks whether all *of* a model is settled."""
        assert self._tasks is not None, "nobody is seated before the pool runs"
        task = self._tasks.create_task(survived(work))
        if of is not None:
            commits = self._commits.setdefault(of, set())
            commits.add(task)
            task.add_done_callback(lambda done: self._ended(of, done))

    def _ended(self, model: ModelName, task: "asyncio.Task[None]") -> None:
        commits = self._commits.get(model, set())
        commits.discard(task)
        if not commits:
            self._commits.pop(model, None)

    def _failed(self, verb: str, table: Table, error: StoreError) -> None:
        self.counts.failures += 1
        log.warning("conversation.failed", model=table.model.name, verb=verb, error=str(error))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
