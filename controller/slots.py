"""
Which conversation each slot of a worker holds, and who gets which slot. Pure: the one who asks brings the time.

A slot is one of the places in which a worker keeps keys and values. What is in one is believed only as far as it is known to be.
A slot whose last owner was somebody else is emptied before it is used, so that neither a text nor the time that an answer takes
tells one owner anything of another; and one of which nothing is known is treated as somebody else's.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controller.state import LeaseId
from controller.wire import Talk

LEAST_TOKENS: Final = 64
"""A shorter conversation is computed again sooner than it is written and read."""
SILENT_TOKENS: Final = 16
"""Reusing less than this after a restore means that nothing was restored: a chat template alone accounts for it."""
IDLE_S: Final = 2.0
"""How long a slot rests before it is saved: then a swap-out finds nothing to write."""
IDLE_GROWTH_SHARE: Final = 8
"""At idle, a conversation that has grown by less than one part in this many is not written again: disks wear out."""


class Moment(enum.Enum):
    """Why a conversation would be saved now."""

    IDLE = "idle"
    """Nobody has used the slot for a while, and nobody may ever come back."""
    DISPLACED = "displaced"
    """Another conversation needs the slot, and waits for this."""
    LEAVING = "leaving"
    """The worker is about to end."""


@dataclass(slots=True, kw_only=True)
class Slot:
    """
    One place for a conversation.

    Attributes:
        number: the engine's own.
        lease: who uses it now.
        talk: the conversation in it; `None` for none.
        known: `talk` is what is in it; if not, anything may be.
        tokens: how long it is, as far as anyone has told.
        saved_tokens: how much of that is on the disk.
        restored_tokens: how much of it was restored for the present lease, and is still to be proved.
        used_s: when it was given back last.

    """

    number: int
    lease: LeaseId | None = None
    talk: Talk | None = None
    known: bool = True
    tokens: int = 0
    saved_tokens: int = 0
    restored_tokens: int = 0
    used_s: float = 0.0

    def holds(self, talk: Talk) -> bool:
        """Say whether this is the conversation in it, or the one it goes on from."""
        held = self.talk
        if held is None or not self.known or not held.name or held.owner != talk.owner:
            return False
        return held.name in (talk.name, talk.origin)

    def is_worth_saving(self, moment: Moment) -> bool:
        """Say whether what is in it should be written at this moment."""
        if not self.known or self.talk is None or not self.talk.name or self.tokens < LEAST_TOKENS:
            return False
        grown_tokens = self.tokens - self.saved_tokens
        match moment:
            case Moment.IDLE:
                return self.talk.lasting and grown_tokens >= max(LEAST_TOKENS, self.saved_tokens // IDLE_GROWTH_SHARE)
            case Moment.DISPLACED:
                return self.talk.lasting and grown_tokens >= SILENT_TOKENS
            case Moment.LEAVING:
                return grown_tokens >= SILENT_TOKENS

    def empty(self) -> None:
        """Take note that nothing is in it."""
        self.talk, self.known, self.tokens, self.saved_tokens = None, True, 0, 0

    def unname(self) -> None:
        """Take note that what is in it must not be kept, and is not to be found again."""
        self.talk = None if self.talk is None else Talk(owner=self.talk.owner)

    def doubt(self) -> None:
        """Take note that nobody can tell what is in it."""
        self.talk, self.known, self.tokens, self.saved_tokens = None, False, 0, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """
    What must be done to a slot before its new lease may use it.

    Attributes:
        slot: its number.
        save: the conversation in it is to be written first.
        restore: the conversation of the new lease is to be read from the disk.
        erase: what is in it must not be there any more.

    """

    slot: int
    save: bool = False
    restore: bool = False
    erase: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the slot can be used as it is."""
        return not (self.save or self.restore or self.erase)


class Slots:
    """The slots of one run of one worker."""

    def __init__(self, count: int, *, known: bool) -> None:
        """Start with empty slots, or with such of which nothing is *known*, of a worker that ran before we did."""
        self._slots = [Slot(number=number, known=known) for number in range(count)]
        self._scattered: set[LeaseId] = set()

    def __iter__(self) -> Iterator[Slot]:
        """Go through them."""
        return iter(self._slots)

    def seat(self, lease: LeaseId, talk: Talk) -> Slot | None:
        """
        Give a lease a slot: the one that holds its conversation, else the one that costs least; none if all are taken.

        A lease that scatters over several slots, or has none of its own, leaves all of them in doubt: the engine chooses.
        """
        free = [slot for slot in self._slots if slot.lease is None]
        chosen = free[0] if len(free) == 1 else min(free, key=lambda slot: _cost(slot, talk), default=None)
        if chosen is not None:
            chosen.lease = lease
            chosen.restored_tokens = 0
        if chosen is None or talk.scatters:
            self._scattered.add(lease)
            self._doubt_free()
        return chosen

    def resume(self, lease: LeaseId, number: int | None, talk: Talk | None) -> None:
        """Take back a lease that was granted before a restart; its slot holds what it has been told to compute."""
        if number is None or not 0 <= number < len(self._slots) or self._slots[number].lease is not None:
            self._scattered.add(lease)
            return
        slot = self._slots[number]
        slot.lease, slot.talk, slot.known = lease, talk, talk is not None
        if talk is not None and talk.scatters:
            self._scattered.add(lease)

    def of(self, lease: LeaseId) -> Slot | None:
        """Return a lease's slot."""
        return next((slot for slot in self._slots if slot.lease == lease), None)

    def is_ready(self, slot: Slot, talk: Talk) -> bool:
        """Say whether a slot can be used for *talk* as it is, wherever else that may be."""
        return slot.holds(talk) and not self._scattered - {slot.lease}

    def work(self, slot: Slot, talk: Talk, *, kept_tokens: int) -> Work:
        """
        Say what must be done before *talk* may use its slot.

        Args:
            slot: its slot.
            talk: the conversation that comes.
            kept_tokens: how much of it is on the disk.

        """
        if self.is_ready(slot, talk):
            return Work(slot=slot.number)
        if self._scattered - {slot.lease}:
            slot.doubt()
        restore = kept_tokens >= LEAST_TOKENS
        foreign = not slot.known or (slot.talk is not None and slot.talk.owner != talk.owner)
        return Work(
            slot=slot.number,
            save=slot.is_worth_saving(Moment.DISPLACED),
            restore=restore,
            erase=foreign and not restore,
        )

    def settle(self, slot: Slot, talk: Talk, *, sure: bool, restored_tokens: int = 0) -> None:
        """Take note that a slot is ready for its lease; not *sure* if it may still hold what was to be erased."""
        if not slot.holds(talk) or restored_tokens:
            slot.tokens = slot.saved_tokens = restored_tokens
        slot.talk, slot.known, slot.restored_tokens = talk, sure, restored_tokens

    def give_back(self, lease: LeaseId, now: float, *, tokens: int, whole: bool) -> Slot | None:
        """
        Take a lease's slot back and return it.

        Args:
            lease: whose.
            now: the core's clock.
            tokens: how long its conversation is now, prompt and answer; 0 if nobody has said.
            whole: it was answered to the end, so the engine did compute it.

        """
        slot = self.of(lease)
        if slot is not None:
            slot.lease, slot.used_s = None, now
            slot.tokens = tokens or slot.tokens
            slot.known = slot.known or (whole and slot.talk is not None)
        if self._scattered:
            self._scattered.discard(lease)
            self._doubt_free()
        return slot

    def due(self, now: float) -> Sequence[Slot]:
        """Return what should be saved while nobody uses the worker."""
        if any(slot.lease is not None for slot in self._slots) or self._scattered:
            return ()
        return [s for s in self._slots if now - s.used_s >= IDLE_S and s.is_worth_saving(Moment.IDLE)]

    def leaving(self) -> Sequence[Slot]:
        """Return what should be saved before the worker ends, the longest first: the time for it is short."""
        worth = [slot for slot in self._slots if slot.lease is None and slot.is_worth_saving(Moment.LEAVING)]
        return sorted(worth, key=lambda slot: -slot.tokens)

    def _doubt_free(self) -> None:
        for slot in self._slots:
            if slot.lease is None:
                slot.doubt()


def _cost(slot: Slot, talk: Talk) -> tuple[bool, bool, bool, bool, float]:
    """Weigh a free slot: what it holds, whether something must be written for it, whose it is, and how lately it was used."""
    foreign = not slot.known or (slot.talk is not None and slot.talk.owner != talk.owner)
    used = slot.talk is not None
    return (not slot.holds(talk), used, slot.is_worth_saving(Moment.DISPLACED), foreign, slot.used_s)
