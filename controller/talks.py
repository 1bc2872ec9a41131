"""
Conversations in the workers: gives every lease its slot, and sees to it that the right conversation is in it.

What a slot holds is written when its worker is about to end, when another conversation needs the slot, and when nobody has used
it for a while; it is read again when the conversation goes on. Nothing here makes a request fail: what cannot be written is
computed again, and what cannot be read is thrown away and computed again. The engine's count of what it reused proves a restore.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import structlog

from controller import engines
from controller.copies import Copies, Table
from controller.host import Host
from controller.slots import SILENT_TOKENS, Slot, Slots
from controller.spec import ApiPath, ModelName, ModelSpec, WorkerSpec
from controller.state import LeaseId, RunId
from controller.store.conversations import Conversations, Kept
from controller.wire import Ask, Release, Renew, Talk

log: Final = structlog.get_logger()

LEAVING_S: Final = 2.0
"""The longest that a swap-out waits for conversations to be written."""
TICK_S: Final = 0.5
TIDY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a request goes in its worker: the slot, and the fields that say so to the engine."""

    slot: int | None = None
    fields: Mapping[str, int | bool] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Seated:
    """A lease with a slot: whose, and how long its prompt is thought to be. `forget` is set when it must not be kept."""

    table: Table
    talk: Talk
    prompt_tokens: int
    kept: Kept | None = None
    forget: bool = False


class Talks:
    """
    Seats leases. Every method is called from the pool's event loop.

    Attributes:
        copies: who writes and reads.

    """

    def __init__(self, *, store: Conversations | None, host: Host, clock: Callable[[], float]) -> None:
        """Without a *store*, nothing is kept; owners are told apart all the same."""
        self.copies = Copies(store=store, clock=clock)
        self._store = store
        self._host = host
        self._clock = clock
        self._models: Mapping[ModelName, ModelSpec] = {}
        self._tables: dict[ModelName, Table] = {}
        self._seated: dict[LeaseId, _Seated] = {}
        self._doubtful: dict[ModelName, RunId] = {}

    # Seats.

    def seat(self, lease: LeaseId, model: ModelSpec, spec: WorkerSpec, run: RunId, ask: Ask) -> Seat | None:
        """Give a lease its slot; `None` if something has to be done before, for which see `prepare`."""
        talk = ask.talk
        if talk is None or ask.api_path == ApiPath.EMBEDDINGS or not engines.find(model.engine).saves_kv:
            return Seat()
        table = self._table(model, spec, run)
        slot = table.slots.seat(lease, talk)
        seated = self._seated[lease] = _Seated(table=table, talk=talk, prompt_tokens=ask.prompt_tokens)
        if slot is None:
            return Seat(fields={"cache_prompt": False})
        if table.lock.locked() or not self.copies.is_settled(model.name):
            return None
        slots = table.slots
        if not slots.is_ready(slot, talk) and not slots.work(slot, talk, kept_tokens=self._look_up(seated)).nothing:
            return None
        table.slots.settle(slot, talk, sure=True)
        return Seat(slot=slot.number, fields={"id_slot": slot.number})

    async def prepare(self, lease: LeaseId) -> Seat:
        """Do what has to be done before a lease may use its slot, and say where that is."""
        seated = self._seated.get(lease)
        if seated is None:  # its caller has left
            return Seat()
        table, talk = seated.table, seated.talk
        await self.copies.settled(table.model.name)
        async with table.lock:
            slot = table.slots.of(lease)
            if slot is None:
                return Seat()
            try:
                restored_tokens, sure = await self._make_ready(seated, slot)
            except Exception:  # whoever waits for the slot must not pay for a bug here: it computes everything
                log.exception("conversation.not_prepared", model=table.model.name)
                restored_tokens, sure = 0, False
            table.slots.settle(slot, talk, sure=sure, restored_tokens=restored_tokens)
        return Seat(slot=slot.number, fields={"id_slot": slot.number} | ({} if sure else {"cache_prompt": False}))

    def resume(self, lease: LeaseId, model: ModelSpec, spec: WorkerSpec, message: Renew) -> None:
        """Take back a lease that was granted before a restart."""
        if not engines.find(model.engine).saves_kv or message.talk is None:
            return
        table = self._table(model, spec, RunId(message.run))
        table.slots.resume(lease, message.slot, message.talk)
        self._seated[lease] = _Seated(table=table, talk=message.talk, prompt_tokens=0)

    def give_back(self, lease: LeaseId, report: Release | None = None) -> None:
        """Take a lease's slot back; without a report, nobody knows how far it got."""
        seated = self._seated.pop(lease, None)
        if seated is None:
            return
        told = report.prompt_tokens + report.completion_tokens if report is not None else 0
        whole = report is not None and report.outcome == "ok"
        slots = seated.table.slots
        slot = slots.give_back(lease, self._clock(), tokens=told or seated.prompt_tokens, whole=whole)
        if slot is None:
            return
        if slot.restored_tokens and whole and report is not None and report.cached_tokens is not None:
            self._prove(seated, slot, report.cached_tokens)
        if seated.forget:
            self.copies.begin(self._erase_alone(seated.table, slot))

    # Life.

    def adopt(self, runs: Mapping[ModelName, RunId], tasks: asyncio.TaskGroup) -> None:
        """Begin where these ran before: what is in their slots, nobody can tell. *tasks* do what nobody waits for."""
        self._doubtful.update(runs)
        self.copies.attend(tasks)

    def register(self, models: Mapping[ModelName, ModelSpec]) -> None:
        """Throw away what was computed with weights, engines or switches that are no more."""
        self._models = models
        if self._store is not None:
            self._store.retire(self._fingerprint)

    async def keep(self, ready: Callable[[], Iterable[tuple[ModelName, RunId]]]) -> None:
        """Save what rests and remove what is old, until cancelled."""
        tidied_s = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            for model, run in ready():
                table = self._tables.get(model)
                if table is not None and table.run == run:
                    await self._save_resting(table)
            if self._store is not None and self._clock() - tidied_s >= TIDY_S:
                tidied_s = self._clock()
                await asyncio.to_thread(self._store.tidy)

    async def before_stop(self, model: ModelName) -> None:
        """Write what is worth it before the worker ends, within a limit: what is not written by then is computed again."""
        table = self._tables.pop(model, None)
        if table is None:
            return
        self._doubtful[model] = table.run
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVING_S), table.lock:
                for slot in table.slots.leaving():
                    await self._save(table, slot)

    # What callers and operators ask.

    def figures(self) -> dict[str, Any]:
        """Return what is kept and what was done."""
        store = self._store
        kept = {
            "enabled": store is not None,
            "count": store.count if store else 0,
            "size_bytes": store.size_bytes if store else 0,
            "budget_bytes": store.limits.budget_bytes if store else 0,
        }
        return kept | {name: round(value, 4) for name, value in asdict(self.copies.counts).items()}

    def of_owner(self, owner: str) -> list[Kept]:
        """Return an owner's conversations on the disk, the last used first."""
        return self._store.of_owner(owner) if self._store else []

    async def forget(self, *, owner: str | None = None, name: str | None = None, talk: str | None = None) -> tuple[int, int]:
        """
        Remove conversations from the disk and from the slots, and return how many there were of each.

        Args:
            owner: whose; without one, everybody's.
            name: the one of this name; without it, all of the owner's.
            talk: or the one that is listed under this.

        """
        for model in self.copies.unsettled:
            await self.copies.settled(model)
        wanted = set[str]()
        if owner is not None and self._store is not None:
            wanted = {self._store.talk(owner, name)} if name is not None else set()
            wanted |= {talk} if talk is not None else set()
        one = name is not None or talk is not None

        def is_meant(held: Talk) -> bool:
            if owner is not None and held.owner != owner:
                return False
            if not one:
                return True
            return held.name == name or (self._store is not None and self._store.talk(held.owner, held.name) in wanted)

        erased = 0
        for table in list(self._tables.values()):
            for slot in table.slots:
                erased += await self._forget_slot(table, slot, is_meant)
        return await self._forget_files(owner, wanted if one else None), erased

    # Pieces of the above.

    def _table(self, model: ModelSpec, spec: WorkerSpec, run: RunId) -> Table:
        table = self._tables.get(model.name)
        if table is None or table.run != run:
            slots = Slots(model.parallel, known=self._doubtful.get(model.name) != run)
            fingerprint = self._host.kv_fingerprint(model)
            table = Table(spec=spec, model=model, run=run, fingerprint=fingerprint, slots=slots)
            self._tables[model.name] = table
        return table

    def _fingerprint(self, model: str) -> str | None:
        """Return what a conversation of this model must have been computed with to be of use."""
        spec = self._models.get(ModelName(model))
        return None if spec is None else self._host.kv_fingerprint(spec)

    def _look_up(self, seated: _Seated) -> int:
        """Find what is kept of a conversation, and return how long it is."""
        talk = seated.talk
        seated.kept = None
        if self._store is not None and talk.name:
            names = {talk.name: None, talk.origin: None}
            seated.kept = self._store.find(talk.owner, names, seated.table.fingerprint)
        return seated.kept.tokens if seated.kept is not None else 0

    async def _make_ready(self, seated: _Seated, slot: Slot) -> tuple[int, bool]:
        """Have the right conversation in a slot; return how much was restored, and whether nothing of another is left there."""
        table, restored_tokens = seated.table, 0
        work = table.slots.work(slot, seated.talk, kept_tokens=self._look_up(seated))
        if work.save:
            await self._save(table, slot)
        if work.restore and seated.kept is not None:
            restored_tokens = await self.copies.restore(table, slot, seated.kept)
        if work.erase or (work.restore and not restored_tokens):
            return restored_tokens, await self.copies.erase(table, slot)
        return restored_tokens, True

    def _prove(self, seated: _Seated, slot: Slot, cached_tokens: int) -> None:
        """Compare what was restored with what the engine has reused."""
        restored_tokens, slot.restored_tokens = slot.restored_tokens, 0
        if cached_tokens >= min(SILENT_TOKENS, restored_tokens):
            self.copies.counts.reused_tokens += cached_tokens
            slot.saved_tokens = min(restored_tokens, cached_tokens)
            return
        self.copies.counts.unused += 1
        slot.saved_tokens = 0
        model = seated.table.model.name
        log.warning("conversation.not_reused", model=model, restored_tokens=restored_tokens, cached_tokens=cached_tokens)
        if self._store is not None and seated.kept is not None:
            self.copies.begin(asyncio.to_thread(self._store.drop, [seated.kept.id]), of=model)

    async def _save_resting(self, table: Table) -> None:
        for slot in table.slots.due(self._clock()):
            async with table.lock:
                if slot in table.slots.due(self._clock()):  # somebody may have come while we waited
                    await self._save(table, slot)

    async def _save(self, table: Table, slot: Slot) -> None:
        # What a model that has left or changed has computed is good for nothing.
        if self._fingerprint(table.model.name) == table.fingerprint:
            await self.copies.save(table, slot)

    async def _erase_alone(self, table: Table, slot: Slot) -> None:
        async with table.lock:
            if slot.lease is None:
                if await self.copies.erase(table, slot):
                    slot.empty()
                else:
                    slot.doubt()

    async def _forget_slot(self, table: Table, slot: Slot, is_meant: Callable[[Talk], bool]) -> int:
        if slot.talk is None or not is_meant(slot.talk):
            return 0
        if slot.lease is None:
            await self._erase_alone(table, slot)
            return 1
        slot.unname()
        if (seated := self._seated.get(slot.lease)) is not None:
            seated.forget = True
        return 1

    async def _forget_files(self, owner: str | None, wanted: set[str] | None) -> int:
        if (store := self._store) is None:
            return 0
        talks: list[str | None] = [None] if wanted is None else [*wanted]
        return await asyncio.to_thread(lambda: sum(store.forget(owner=owner, talk=talk) for talk in talks))
