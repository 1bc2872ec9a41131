"""
The forge: takes what the models want built, makes it, one at a time, and says how far it is.

What is under way survives this process: its container goes on, and the next controller adopts it. Everything else that was begun
is cleared away and begun anew. A build asks for its memory like a model, and gives it back when it ends.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

import structlog

from controller.charges import NOTHING, Charge, OnCard
from controller.config import BuildSettings
from controller.device import NO_GPU, Device
from controller.drivers.base import Driver
from controller.duties import kept_up
from controller.errors import Reason, RefusedError, StoreError
from controller.forge import reports
from controller.forge.room import Disk, Shelved, Shortage, make_room
from controller.forge.tickets import UNDER_WAY, State, Ticket, next_look_s, next_ticket
from controller.forge.work import DiskFullError, StepError, UnwantedError, Workshop, check_wanted
from controller.probes.host import read_disk
from controller.spec import ModelName, ModelSpec
from controller.store.digests import be_nice
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.orders import Order
from controller.units import format_bytes

log: Final = structlog.get_logger()

LONGEST_PAUSE_S: Final = 30.0
ROOM_POLL_S: Final = 0.1


class Memory(Protocol):
    """Whoever owns the models' budget."""

    def set_aside(self, what: str, charge: Charge) -> None:
        """Keep that much from the models."""
        ...

    def may_set_aside(self, charge: Charge) -> bool:
        """Say whether that much can be kept from the models without unloading a pinned one."""
        ...

    def free_card(self) -> OnCard | None:
        """Return a card that can be kept from them whole; `None` if pinned models are on all of them."""
        ...

    @property
    def is_overdrawn(self) -> bool:
        """Models still hold more than they may."""
        ...


class Models(Protocol):
    """Whoever knows how models are used."""

    def in_use(self, folder: PurePosixPath) -> bool:
        """Say whether a model is in memory, or about to be, from this folder."""
        ...

    def requests(self, model: ModelName) -> int:
        """Say how often a model was asked."""
        ...


class Forge:
    """Builds engine files. `run` keeps it going; every other method is called from the same event loop."""

    def __init__(
        self,
        *,
        driver: Driver,
        files: EngineFiles,
        settings: BuildSettings,
        images: Callable[[str], str],
        memory: Memory,
        models: Models,
        changed: Callable[[], None],
        clock: Callable[[], float],
        device: Device = NO_GPU,
    ) -> None:
        """Know whom to ask; *changed* is called when there is a new file, or one less."""
        self._files = files
        self._driver = driver
        self._settings = settings
        self._memory = memory
        self._models = models
        self._changed = changed
        self._clock = clock
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="forge", initializer=be_nice)
        self._shop = Workshop(
            driver=driver, files=files, settings=settings, images=images, slow=self._slow, clock=clock, device=device
        )
        self._tickets: dict[str, Ticket] = {}
        self._orders: Mapping[ModelName, Order] = {}
        self._wake = asyncio.Event()
        self.gave_up: Callable[[ModelSpec, str], None] = lambda *_: None
        """Told of a model whose engine file cannot be built here, and why."""

    # Life.

    async def run(self) -> None:
        """Keep going until cancelled; a step that is under way goes on without us."""
        try:
            await kept_up(self._keep_building)
        finally:
            self._slow.shutdown(wait=False, cancel_futures=True)

    async def _keep_building(self) -> None:
        await self._recover()
        while True:
            ticket = next_ticket(self._tickets.values(), self._clock())
            if ticket is not None:
                await self._take_up(ticket)
            else:
                await self._rest()

    def take(self, orders: Iterable[Order]) -> None:
        """Take what the models want now; what none of them wants any more is stopped."""
        self._orders = {order.model: order for order in orders}
        wanted = {order.fingerprint: order for order in self._orders.values()}
        for fingerprint, order in wanted.items():
            known = self._tickets.get(fingerprint)
            if known is not None:
                known.take(order)
            elif not order.done:
                self._tickets[fingerprint] = Ticket(order=order)
        for fingerprint, ticket in list(self._tickets.items()):
            if (fingerprint in wanted and not wanted[fingerprint].done) or ticket.once:
                continue
            ticket.wanted = False
            if ticket.state not in UNDER_WAY:
                del self._tickets[fingerprint]
        self._wake.set()

    async def _recover(self) -> None:
        """Adopt the step that runs, if it is still wanted, and clear away everything else that a crash has left."""
        jobs = await self._shop.jobs()
        adopted = set()
        for job in jobs:
            ticket = self._tickets.get(job.build)
            steps = len(ticket.order.recipe.steps) if ticket else 0
            if ticket is not None and job.running and job.step < steps and self._files.out(job.build) is not None:
                ticket.adopted, ticket.step, ticket.cards = True, job.step, job.cards
                adopted.add(job.build)
                log.info("build.adopted", model=ticket.order.model, step=job.step)
            else:
                with contextlib.suppress(StepError):  # it is tried again before that build begins
                    await self._shop.end(job.build)
        removed = await asyncio.to_thread(self._files.recover, keep=adopted)
        if removed:
            log.info("build.cleared", half_made=removed)

    async def _rest(self) -> None:
        pause_s = min(LONGEST_PAUSE_S, next_look_s(self._tickets.values(), self._clock()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(pause_s, ROOM_POLL_S)):
                await self._wake.wait()
        self._wake.clear()

    async def _take_up(self, ticket: Ticket) -> None:
        """Do one build, or as much of it as can be done now; what goes wrong with it ends nothing else."""
        try:
            if ticket.order.to_compare is not None and not ticket.adopted:
                await self._verify(ticket, ticket.order.to_compare)
            else:
                await self._make(ticket)
        except Exception:
            log.exception("build.bug", model=ticket.order.model)
            ticket.fail("it failed for a reason nobody thought of; the controller's log says more", self._clock(), most=1)
            await self._shop.clear(ticket)
        if not ticket.wanted and self._tickets.get(ticket.order.fingerprint) is ticket:
            del self._tickets[ticket.order.fingerprint]

    async def _verify(self, ticket: Ticket, file: EngineFile) -> None:
        ticket.state, ticket.since_s = State.VERIFYING, self._clock()
        matches = await self._shop.run_slowly(lambda: self._files.verify(file.fingerprint))
        log.info("engine_file.verified", model=ticket.order.model, matches=matches, fingerprint=file.fingerprint)
        ticket.compared(file, matches=matches)
        self._changed()

    async def _make(self, ticket: Ticket) -> None:
        order, name = ticket.order, f"the build of {ticket.order.model}"
        ticket.since_s, ticket.done_bytes = self._clock(), 0
        try:
            if not await self._claim(ticket, name):
                return
            log.info("build.began", model=order.model, quantization=order.key.quantization, reason=order.reason)
            await self._shop.build(ticket)
            ticket.built()
            log.info("build.done", model=order.model, took_s=self._clock() - ticket.since_s, fingerprint=order.fingerprint)
            self._changed()
        except DiskFullError as exc:
            ticket.ran_out_of_disk(f"{exc}; it begins again when there is room", self._clock())
            await self._shop.clear(ticket)
        except UnwantedError:
            log.info("build.stopped", model=order.model)
            await self._shop.clear(ticket)
            ticket.state = State.CANCELLED if ticket.stop else State.QUEUED  # it may be wanted again by now
        except (StepError, StoreError) as exc:
            await self._failed(ticket, exc)
        finally:
            self._memory.set_aside(name, NOTHING)

    async def _failed(self, ticket: Ticket, exc: StepError | StoreError) -> None:
        out_of_memory = isinstance(exc, StepError) and exc.out_of_memory
        if isinstance(exc, StoreError) and await asyncio.to_thread(self._shop.is_full):
            ticket.ran_out_of_disk(f"{exc}; it begins again when there is room", self._clock())
        else:
            ticket.fail(str(exc), self._clock(), most=self._settings.max_failures, out_of_memory=out_of_memory)
        log.warning("build.failed", model=ticket.order.model, error=str(exc), failures=ticket.failures, log=ticket.log[-5:])
        await self._shop.clear(ticket)
        # What ran out of memory once and would get more than there is next time would wait for it for ever.
        hopeless = out_of_memory and not self._memory.may_set_aside(self._needed(ticket))
        if not ticket.once and (ticket.state is State.FAILED or hopeless):
            self.gave_up(ticket.order.spec, str(exc))

    # Room.

    async def _claim(self, ticket: Ticket, name: str) -> bool:
        """Make room on the disk and in memory; false if there is none now."""
        if not ticket.adopted and (shortage := await self._claim_disk(ticket) or self._claim_card(ticket)):
            ticket.wait(shortage, self._clock())
            return False
        needed = self._needed(ticket)
        if not ticket.adopted and not self._memory.may_set_aside(needed):
            text = f"it needs {format_bytes(needed.total_bytes)} of memory, more than the budget leaves beside pinned models"
            ticket.wait(f"{text}; set builds.memory, or pin fewer", self._clock())
            if not ticket.once:
                self.gave_up(ticket.order.spec, text)
            return False
        self._memory.set_aside(name, needed)
        while self._memory.is_overdrawn and not ticket.adopted:
            ticket.state, ticket.reason = State.WAITING, "running answers end before their memory is its own"
            check_wanted(ticket)
            await asyncio.sleep(ROOM_POLL_S)
        ticket.state, ticket.reason = State.BUILDING, ""
        return True

    def _claim_card(self, ticket: Ticket) -> str | None:
        """Choose a whole card for a build that needs one: nobody can tell before how much of it a compiler tries out."""
        ticket.cards = ()
        if not self._shop.needs_card(ticket):
            return None
        card = self._memory.free_card()
        if card is None:
            return "it needs a GPU for itself, and pinned models are on all of them; pin fewer"
        ticket.cards = (card,)
        return None

    def _needed(self, ticket: Ticket) -> Charge:
        return Charge(total_bytes=self._shop.memory_bytes(ticket), cards=ticket.cards)

    async def _claim_disk(self, ticket: Ticket) -> str | None:
        shelf, disk = await asyncio.to_thread(self._look_at_shelf)
        recipe = ticket.order.recipe
        answer = make_room(
            kept_bytes=recipe.estimate_bytes + ticket.extra_bytes,
            scratch_bytes=recipe.scratch_bytes,
            shelf=shelf,
            disk=disk,
            may_displace=ticket.asked,
        )
        if isinstance(answer, Shortage):
            return answer.reason
        for fingerprint in answer:
            log.info("engine_file.displaced", fingerprint=fingerprint, by=ticket.order.model)
            await self._shop.run_slowly(lambda one=fingerprint: self._files.remove(one))  # type: ignore[misc]
        if answer:
            self._changed()
        return None

    def _look_at_shelf(self) -> tuple[Sequence[Shelved], Disk]:
        for name in self._files.quarantined():
            self._files.remove_quarantined(name)
        shelf = [self._shelved(file) for file in self._files.all()]
        free_bytes = read_disk(self._files.folder).free_bytes
        settings = self._settings
        return shelf, Disk(free_bytes=free_bytes, keep_free_bytes=settings.keep_free, budget_bytes=settings.disk_budget)

    def _shelved(self, file: EngineFile) -> Shelved:
        owners = [order for order in tuple(self._orders.values()) if order.served and order.served.folder == file.folder]
        return Shelved(
            fingerprint=file.fingerprint,
            size_bytes=file.size_bytes,
            wanted=bool(owners),
            kept=any(order.spec.pinned for order in owners) or self._models.in_use(file.folder),
            requests=sum(self._models.requests(order.model) for order in owners),
            build_s=file.manifest.seconds,
        )

    # What people say and ask.

    def build(self, order: Order) -> None:
        """Build this now, whether a model wants it or not, and whatever went wrong before."""
        known = self._tickets.get(order.fingerprint)
        if known is None:
            once = order.fingerprint not in {one.fingerprint for one in self._orders.values()}
            state = State.BUILT if order.done else State.QUEUED
            known = self._tickets[order.fingerprint] = Ticket(order=order, once=once, state=state)
        if not order.done:
            known.wanted = True
            known.ask()
        self._wake.set()

    def order(self, model: ModelName) -> Order | None:
        """Return what a model wants built, done or not."""
        return self._orders.get(model)

    def cancel(self, model: ModelName) -> bool:
        """Stop the builds of a model until somebody asks for them; false if there are none: a file that is compared is there."""
        over = (State.BUILT, State.CANCELLED, State.VERIFYING)
        found = [t for t in self._tickets.values() if t.order.model == model and t.state not in over]
        for ticket in found:
            ticket.stop = True
            if ticket.state not in UNDER_WAY:
                ticket.state = State.CANCELLED
            ticket.reason = "somebody stopped it; `windlass build` starts it again"
        self._wake.set()
        return bool(found)

    def absent(self, model: str) -> RefusedError | None:
        """Say why a model that wants a build cannot be asked yet, and note that somebody has."""
        order = self._orders.get(ModelName(model))
        if order is None or order.served is not None:
            return None
        ticket = self._tickets.get(order.fingerprint)
        if ticket is None:
            return RefusedError(Reason.UNAVAILABLE, f"{model} is about to be registered", retry_after_s=1.0)
        if not ticket.asked and ticket.state in (State.QUEUED, State.WAITING):
            ticket.asked, ticket.retry_at_s = True, 0.0
            self._wake.set()
        row = reports.build_row(ticket, self._clock())
        details = {"build": ticket.state.value, "progress": row["progress"]}
        retry_s = ticket.left_s(self._clock())
        return RefusedError(Reason.UNAVAILABLE, reports.sentence(ticket, retry_s), retry_after_s=retry_s, details=details)

    def row(self, model: ModelName) -> dict[str, Any] | None:
        """Describe the build of a model; `None` if it wants none."""
        order = self._orders.get(model)
        return None if order is None else self.describe(order)

    def describe(self, order: Order) -> dict[str, Any]:
        """Describe the build of an order."""
        ticket = self._tickets.get(order.fingerprint) or Ticket(order=order, state=State.BUILT if order.done else State.QUEUED)
        return reports.build_row(ticket, self._clock())

    def rows(self) -> list[dict[str, Any]]:
        """Describe every build, those that no model wants included."""
        rows = [self.row(model) for model in sorted(self._orders)]
        once = [reports.build_row(ticket, self._clock()) for ticket in self._tickets.values() if ticket.once]
        return [*(row for row in rows if row), *once]

    def unbuilt(self) -> Sequence[Order]:
        """Return the orders of models of which nothing can be served yet."""
        return [order for order in self._orders.values() if order.served is None]

    @property
    def is_busy(self) -> bool:
        """Whether something is built or compared now."""
        return any(ticket.state in UNDER_WAY for ticket in self._tickets.values())

    @property
    def complaints(self) -> list[str]:
        """Say which builds have failed for good."""
        failed = [t for t in self._tickets.values() if t.state is State.FAILED]
        return [f"the build of {t.order.model} failed {t.failures} times and rests: {t.reason}" for t in failed]
