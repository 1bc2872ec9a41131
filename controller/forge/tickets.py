"""What is to be built and how far it is; which one is next, and when one that failed is tried again. Pure."""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from controller.charges import Cards
from controller.store.engine_files import EngineFile
from controller.store.orders import Order

BACKOFF_S: Final = 15.0
"""The pause after the first failure; it doubles with each one."""
WAIT_S: Final = 10.0
"""How often a build that waits for room looks again."""
FULL_S: Final = 30.0
"""How long a build that filled the disk lies still."""
MORE_DISK: Final = 1.5
"""How much more room it then gets, as a multiple of what was written beyond what was expected."""
MORE_MEMORY: Final = 1.5
"""The next limit, as a multiple of the one at which the kernel ended a step."""
ASSUMED_BYTES_PER_S: Final = 20_000_000
"""How fast a build writes, until it is under way."""
SHORTEST_RETRY_S: Final = 2.0
LONGEST_RETRY_S: Final = 600.0


class State(enum.StrEnum):
    """How far a build is."""

    QUEUED = "queued"
    """It is to be made, and its turn has not come."""
    WAITING = "waiting"
    """There is no room on the disk or in memory; it begins when there is."""
    BUILDING = "building"
    """A step is under way."""
    FINISHING = "finishing"
    """All steps are done; what they made is hashed, and on its way to the disk."""
    VERIFYING = "verifying"
    """The file is there, and its hash is compared before it is served."""
    FAILED = "failed"
    """It failed as often as it may, and rests until somebody asks for it."""
    CANCELLED = "cancelled"
    """Somebody stopped it, and it rests until somebody asks for it."""
    BUILT = "built"
    """It is there, and served if a model wants it."""


RESTING: Final = frozenset({State.FAILED, State.CANCELLED, State.BUILT})
UNDER_WAY: Final = frozenset({State.BUILDING, State.FINISHING, State.VERIFYING})


@dataclass(slots=True, kw_only=True)
class Ticket:
    """
    One build.

    Attributes:
        order: what is to be built.
        once: somebody asked for it by hand, and no model wants it.
        asked: somebody waits for it, so that it may take the place of what nobody uses.
        adopted: its container was running when the controller started.
        wanted: it is still to be made.
        stop: somebody has stopped it.
        state: how far it is.
        reason: why it waits or rests.
        step: which step is under way.
        done_bytes: what it has written.
        since_s: when it began.
        failures: how often it failed in a row.
        retry_at_s: when it may be tried again.
        extra_bytes: by how much more disk it needs than its recipe says.
        cards: what is set aside of cards for it.
        growth: by how much more memory it gets than its recipe says.
        log: the last lines of the step.

    """

    order: Order
    once: bool = False
    asked: bool = False
    adopted: bool = False
    wanted: bool = True
    stop: bool = False
    state: State = State.QUEUED
    reason: str = ""
    step: int = 0
    done_bytes: int = 0
    since_s: float = 0.0
    failures: int = 0
    retry_at_s: float = 0.0
    extra_bytes: int = 0
    cards: Cards = ()
    growth: float = 1.0
    log: tuple[str, ...] = field(default=())

    @property
    def total_bytes(self) -> int:
        """What it will have written at the end, about."""
        return self.order.recipe.estimate_bytes + self.order.recipe.scratch_bytes

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        if self.state is State.BUILT:
            return 1.0
        return min(0.99, self.done_bytes / max(1, self.total_bytes))

    def ask(self) -> None:
        """Forget what went wrong: somebody wants it now."""
        self.asked, self.stop = True, False
        if self.state not in UNDER_WAY:
            self.state, self.reason, self.failures, self.retry_at_s = State.QUEUED, "", 0, 0.0

    def take(self, order: Order) -> None:
        """Take what is wanted now; a file that has arrived from elsewhere is compared, whatever became of its build."""
        arrived = order.file is not None and self.order.file is None
        removed = self.state is State.BUILT and not order.done
        self.order, self.once, self.wanted = order, False, True
        if removed or (arrived and not order.done and self.state in RESTING):
            self.state, self.done_bytes = State.QUEUED, 0

    def built(self) -> None:
        """Take note that the file is there; whatever was wrong or said before is over."""
        self.state, self.reason, self.log, self.failures, self.stop = State.BUILT, "", (), 0, False

    def compared(self, file: EngineFile, *, matches: bool) -> None:
        """Take note of how a comparison ended; after that of an older file, or of a spoilt one, there is still one to build."""
        if matches and file.fingerprint == self.order.fingerprint:
            self.built()
            return
        spoilt = self.order.file is not None and self.order.file.fingerprint == file.fingerprint
        self.state, self.order = State.QUEUED, replace(self.order, file=None if spoilt else self.order.file, older=None)
        if not matches:
            self.reason = "it did not match its manifest, was put into quarantine, and is built anew"

    def wait(self, reason: str, now: float) -> None:
        """Wait for room."""
        self.state, self.reason, self.retry_at_s = State.WAITING, reason, now + WAIT_S

    def ran_out_of_disk(self, reason: str, now: float) -> None:
        """Wait for room, and for more of it where it had written more than was expected."""
        self.extra_bytes = max(self.extra_bytes, int((self.done_bytes - self.total_bytes) * MORE_DISK))
        self.wait(reason, now)
        self.retry_at_s = now + FULL_S

    def fail(self, reason: str, now: float, *, most: int, out_of_memory: bool = False) -> None:
        """Count a failure; after the last one it rests."""
        self.failures += 1
        self.reason = reason
        if out_of_memory:
            self.growth *= MORE_MEMORY
        self.state = State.FAILED if self.failures >= most else State.QUEUED
        self.retry_at_s = now + BACKOFF_S * 2 ** (self.failures - 1)

    def left_s(self, now: float) -> float:
        """Estimate how long it will still take; what rests may rest for long."""
        if self.state in (State.FAILED, State.CANCELLED):
            return LONGEST_RETRY_S
        ran_s = now - self.since_s
        left_bytes = self.total_bytes * (1 - self.share)
        speed = self.done_bytes / ran_s if self.state in UNDER_WAY and ran_s > 1 and self.done_bytes else ASSUMED_BYTES_PER_S
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, left_bytes / speed))


def next_ticket(tickets: Iterable[Ticket], now: float) -> Ticket | None:
    """
    Return the build to take up now.

    First what only has to be compared, then what runs already, then what somebody waits for; of the others those of which nothing
    is served meanwhile, pinned ones and those of a higher priority before, and the small before the large.
    """
    ready = [t for t in tickets if t.wanted and t.state not in RESTING and now >= t.retry_at_s]
    return min(ready, key=_place, default=None)


def next_look_s(tickets: Iterable[Ticket], now: float) -> float:
    """Return how long nothing can be taken up."""
    times = [t.retry_at_s for t in tickets if t.wanted and t.state not in RESTING]
    return max(0.0, min(times, default=math.inf) - now)


def _place(ticket: Ticket) -> tuple[bool, bool, bool, bool, bool, int, int, str]:
    order = ticket.order
    return (
        order.to_compare is None,
        not ticket.adopted,
        not ticket.asked,
        order.served is not None,
        not order.spec.pinned,
        -order.spec.priority,
        order.recipe.estimate_bytes,
        order.model,
    )
