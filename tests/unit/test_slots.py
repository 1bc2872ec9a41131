"""Which conversation each slot of a worker holds, and who gets which slot."""

import pytest

from controller.slots import IDLE_S, LEAST_TOKENS, SILENT_TOKENS, Moment, Slot, Slots, Work
from controller.state import LeaseId
from controller.wire import Talk

A = Talk(owner="anna", name="a", origin="a", lasting=True)
OTHER = Talk(owner="anna", name="b", origin="b", lasting=True)
FOREIGN = Talk(owner="bert", name="a", origin="a", lasting=True)
ONCE = Talk(owner="anna", name="once")


def lease(name: str) -> LeaseId:
    """Name a lease."""
    return LeaseId(name)


def served(slots: Slots, talk: Talk, *, now: float = 0.0, tokens: int = 1000, name: str = "l", kept: int = 0) -> Work:
    """Serve one request from its grant to its end, and return what had to be done before."""
    slot = slots.seat(lease(name), talk)
    assert slot is not None
    work = slots.work(slot, talk, kept_tokens=kept)
    slots.settle(slot, talk, sure=True, restored_tokens=kept if work.restore else 0)
    slots.give_back(lease(name), now, tokens=tokens, whole=True)
    return work


def only(slots: Slots) -> Slot:
    """Return the one slot there is."""
    (slot,) = slots
    return slot


def test_a_conversation_finds_its_slot_again() -> None:
    """It gets the slot that holds it, though another one was used longer ago, and nothing need be done."""
    slots = Slots(2, known=True)
    served(slots, OTHER, now=1.0)
    served(slots, A, now=2.0)

    assert Work(slot=1) == served(slots, A, now=3.0)
    assert Work(slot=0) == served(slots, OTHER, now=4.0)


def test_a_conversation_finds_what_it_goes_on_from() -> None:
    """A chat is called otherwise after every turn, and the slot is found by what it was called before."""
    slots = Slots(2, known=True)
    served(slots, OTHER, now=1.0)
    served(slots, Talk(owner="anna", name="first", lasting=True), now=2.0)

    assert Work(slot=1) == served(slots, Talk(owner="anna", name="second", origin="first", lasting=True), now=3.0)
    assert "second" == next(slot.talk.name for slot in slots if slot.number == 1 and slot.talk)


def test_nothing_is_found_by_no_name() -> None:
    """Two requests that are not worth a name are not taken for one conversation."""
    slot = Slot(number=0, talk=Talk(owner="anna"))

    assert not slot.holds(Talk(owner="anna"))


def test_an_empty_slot_is_taken_before_one_that_is_used() -> None:
    """A conversation is displaced only if there is no room beside it."""
    slots = Slots(3, known=True)
    served(slots, A, now=1.0)

    assert {1, 2} == {served(slots, OTHER, now=2.0).slot, served(slots, FOREIGN, now=3.0).slot}


def test_what_must_be_written_first_is_displaced_last() -> None:
    """Of two used slots the one goes whose conversation is on the disk, though it was used later."""
    slots = Slots(2, known=True)
    served(slots, A, now=1.0)
    served(slots, OTHER, now=2.0)
    next(slot for slot in slots if slot.number == 1).saved_tokens = 1000

    assert 1 == served(slots, Talk(owner="anna", name="c"), now=3.0).slot


def test_the_slot_used_longest_ago_is_displaced() -> None:
    """Where nothing else tells them apart, age does."""
    slots = Slots(2, known=True)
    served(slots, A, now=1.0)
    served(slots, OTHER, now=2.0)

    assert 0 == served(slots, Talk(owner="anna", name="c"), now=3.0).slot


def test_a_slot_in_use_is_nobody_elses() -> None:
    """Not even another request of the same conversation gets it; and when all are taken, there is none."""
    slots = Slots(2, known=True)
    first, second = slots.seat(lease("1"), A), slots.seat(lease("2"), A)
    assert first
    assert second

    assert {0, 1} == {first.number, second.number}
    assert slots.seat(lease("3"), A) is None


def test_another_owner_finds_an_empty_slot() -> None:
    """What one key's caller has left is erased before another's is computed, even under the same name."""
    slots = Slots(1, known=True)
    served(slots, A)

    assert Work(slot=0, save=True, erase=True) == served(slots, FOREIGN)


def test_reading_a_conversation_replaces_what_another_owner_left() -> None:
    """Nothing need be erased that is overwritten as a whole."""
    slots = Slots(1, known=True)
    served(slots, A)

    assert Work(slot=0, save=True, restore=True) == served(slots, FOREIGN, kept=500)


def test_the_same_owner_shares_a_beginning() -> None:
    """Another conversation of the same owner may go on from what both have in common."""
    slots = Slots(1, known=True)
    served(slots, A, tokens=10)

    assert served(slots, OTHER).nothing


def test_a_slot_of_which_nothing_is_known_is_erased() -> None:
    """After a restart of the controller, anybody's conversation may be in it."""
    slots = Slots(1, known=False)

    assert Work(slot=0, erase=True) == served(slots, A)
    assert served(slots, A).nothing


@pytest.mark.parametrize(("kept", "restored"), [(LEAST_TOKENS, True), (LEAST_TOKENS - 1, False)])
def test_a_short_conversation_is_not_read(kept: int, restored: bool) -> None:
    """Computing a few tokens is quicker than reading them."""
    assert restored is served(Slots(1, known=True), A, kept=kept).restore


def test_what_may_not_have_been_erased_is_not_trusted() -> None:
    """If nobody knows whether the erasing worked, only a whole answer says that the slot holds this conversation."""
    slots = Slots(1, known=False)
    for whole in (False, True):
        slot = slots.seat(lease("l"), A)
        assert slot
        assert slots.work(slot, A, kept_tokens=0).erase
        slots.settle(slot, A, sure=False)
        slots.give_back(lease("l"), 0.0, tokens=500, whole=whole)
        assert whole is slot.known
        assert whole is slot.is_worth_saving(Moment.LEAVING)


def test_several_answers_leave_every_free_slot_in_doubt() -> None:
    """The engine takes what slots it finds for them, before and after anybody else."""
    slots = Slots(3, known=True)
    served(slots, A, now=1.0)
    many = slots.seat(lease("many"), Talk(owner="bert", name="m", scatters=True))
    beside = slots.seat(lease("beside"), OTHER)
    assert many
    assert beside
    assert slots.work(beside, OTHER, kept_tokens=0).erase
    slots.settle(beside, OTHER, sure=True)
    slots.give_back(lease("beside"), 2.0, tokens=500, whole=True)

    assert not beside.known
    slots.give_back(lease("many"), 3.0, tokens=500, whole=True)
    assert [False] * 3 == [slot.known for slot in slots]
    assert served(slots, A, now=4.0).erase
    assert served(slots, A, now=5.0).nothing


def test_a_request_without_a_slot_leaves_them_in_doubt() -> None:
    """If more is granted than there are slots, the engine decides which of them it takes."""
    slots = Slots(1, known=True)
    slots.seat(lease("1"), A)
    assert slots.seat(lease("2"), OTHER) is None
    slots.give_back(lease("1"), 1.0, tokens=500, whole=True)

    assert not only(slots).known
    slots.give_back(lease("2"), 2.0, tokens=0, whole=True)
    assert not only(slots).known
    assert served(slots, A).erase
    assert served(slots, A).nothing


def test_a_lease_from_before_a_restart_keeps_its_slot() -> None:
    """Its conversation is known again, for it was computed there."""
    slots = Slots(2, known=False)
    slots.resume(lease("old"), 1, A)
    assert 0 == served(slots, OTHER).slot
    slots.give_back(lease("old"), 1.0, tokens=700, whole=True)

    assert Work(slot=1) == served(slots, A)


@pytest.mark.parametrize("number", [None, 2, -1])
def test_a_lease_from_before_a_restart_may_be_anywhere(number: int | None) -> None:
    """One that had no slot, or one there is not, leaves all of them in doubt until it ends."""
    slots = Slots(2, known=False)
    slots.resume(lease("old"), number, A)
    served(slots, OTHER)

    assert served(slots, OTHER).erase
    slots.give_back(lease("old"), 1.0, tokens=0, whole=True)
    served(slots, OTHER)
    assert served(slots, OTHER).nothing


def test_two_leases_from_before_a_restart_are_not_in_one_slot() -> None:
    """The second that claims it may be anywhere."""
    slots = Slots(1, known=False)
    slots.resume(lease("old"), 0, A)
    slots.resume(lease("other"), 0, OTHER)
    slots.give_back(lease("old"), 1.0, tokens=700, whole=True)

    assert not only(slots).known


def worth(moment: Moment, *, talk: Talk | None = A, tokens: int = 1000, saved: int = 0, known: bool = True) -> bool:
    """Say whether such a slot is saved at this moment."""
    return Slot(number=0, talk=talk, tokens=tokens, saved_tokens=saved, known=known).is_worth_saving(moment)


@pytest.mark.parametrize("moment", Moment)
def test_what_is_never_saved(moment: Moment) -> None:
    """Nothing, nothing known, nothing named, nothing long, nothing new."""
    assert worth(moment)
    assert not worth(moment, talk=None)
    assert not worth(moment, known=False)
    assert not worth(moment, talk=Talk(owner="anna", lasting=True))
    assert worth(moment, tokens=LEAST_TOKENS)
    assert not worth(moment, tokens=LEAST_TOKENS - 1)
    assert not worth(moment, saved=1000)


@pytest.mark.parametrize(("moment", "saved"), [(Moment.IDLE, False), (Moment.DISPLACED, False), (Moment.LEAVING, True)])
def test_a_single_question_is_saved_only_when_its_worker_leaves(moment: Moment, saved: bool) -> None:
    """Most of them are never gone on with, and each would cost a write."""
    assert saved is worth(moment, talk=ONCE)


@pytest.mark.parametrize(
    ("moment", "grown"), [(Moment.IDLE, 200), (Moment.DISPLACED, SILENT_TOKENS), (Moment.LEAVING, SILENT_TOKENS)]
)
def test_a_conversation_is_written_again_when_it_has_grown(moment: Moment, grown: int) -> None:
    """At rest by a share of itself, for a disk wears out; in need by a few tokens."""
    assert worth(moment, tokens=1600 + grown, saved=1600)
    assert not worth(moment, tokens=1600 + grown - 1, saved=1600)


def test_at_rest_a_short_conversation_must_grow_by_as_much_as_is_worth_keeping() -> None:
    """An eighth of little is next to nothing."""
    assert worth(Moment.IDLE, tokens=100 + LEAST_TOKENS, saved=100)
    assert not worth(Moment.IDLE, tokens=99 + LEAST_TOKENS, saved=100)


def test_a_slot_is_due_when_it_has_rested_and_its_worker_with_it() -> None:
    """Writing one holds up all the others, so nobody may be using them."""
    slots = Slots(2, known=True)
    served(slots, A, now=10.0)

    assert [] == list(slots.due(10.0 + IDLE_S - 0.01))
    assert [0] == [slot.number for slot in slots.due(10.0 + IDLE_S)]
    slots.seat(lease("busy"), OTHER)
    assert [] == list(slots.due(10.0 + IDLE_S))


def test_what_leaves_is_written_the_longest_first() -> None:
    """The time is short, and the longest would cost the most to compute; what is in use cannot be written."""
    slots = Slots(3, known=True)
    served(slots, A, tokens=100)
    served(slots, OTHER, tokens=900)
    served(slots, FOREIGN, tokens=500)
    slots.seat(lease("busy"), FOREIGN)

    assert [900, 100] == [slot.tokens for slot in slots.leaving()]


def test_a_restore_that_is_not_proved_yet_counts_as_saved() -> None:
    """What was just read need not be written again."""
    slots = Slots(1, known=True)
    slot = slots.seat(lease("l"), A)
    assert slot
    slots.settle(slot, A, sure=True, restored_tokens=800)
    slots.give_back(lease("l"), 1.0, tokens=0, whole=False)

    assert not slot.is_worth_saving(Moment.LEAVING)
    assert 800 == slot.restored_tokens


def test_going_on_keeps_count_of_what_is_on_the_disk() -> None:
    """Another turn in the same slot has nothing to be written but itself."""
    slots = Slots(1, known=True)
    served(slots, A, tokens=800)
    only(slots).saved_tokens = 800
    served(slots, A, tokens=810)

    assert not only(slots).is_worth_saving(Moment.LEAVING)


def test_what_was_forgotten_is_not_kept_and_not_found() -> None:
    """Its owner may still share a beginning with itself, for whose it is stays known."""
    slots = Slots(1, known=True)
    served(slots, A)
    only(slots).unname()

    assert not only(slots).is_worth_saving(Moment.LEAVING)
    assert not only(slots).holds(A)
    assert served(slots, FOREIGN).erase


def test_an_erased_slot_is_empty() -> None:
    """There is nothing in it that anybody would have to be kept from."""
    slots = Slots(1, known=True)
    served(slots, A)
    only(slots).empty()

    assert served(slots, FOREIGN).nothing
