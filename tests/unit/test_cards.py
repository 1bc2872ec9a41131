"""How something can lie on cards: whole where that can be, else over as few as will do, and never beyond what one holds."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.cards import MOST_WAYS, could_hold, settle, short_bytes, ways, whereabouts
from controller.charges import Capacity, Charge, OnCard
from controller.spec import Footprint, Spread
from controller.state import Status
from tests.core.layouts import box, lying, needs
from tests.core.world import worker

EVENLY = Spread(counts=(2, 4), even=True)
FREELY = Spread(counts=(2, 3, 4))


def test_what_needs_no_card_lies_on_none() -> None:
    """There is one way to do that, with cards and without."""
    assert ways(box(), needs(0)) == ((),)
    assert ways(box(4, 4), needs(0)) == ((),)


def test_it_lies_whole_on_every_card_that_could_hold_it() -> None:
    """Exactly as large as a card is not too large, and a split is not even thought of."""
    assert ways(box(4, 8, 5), needs(5, spread=FREELY)) == [(OnCard(1, 5),), (OnCard(2, 5),)]


def test_who_never_leaves_takes_room_from_it() -> None:
    """A card that a pinned model lies on holds less."""
    assert ways(box(4, 8), needs(5), [Charge(total_bytes=1, cards=lying(0, 4))]) == ()
    assert ways(box(4, 8), needs(4), [Charge(total_bytes=1, cards=lying(0, 4))]) == [(OnCard(0, 4),), (OnCard(1, 4),)]


def test_what_cannot_be_split_never_fits_beyond_a_card() -> None:
    """All cards together are no card."""
    assert ways(box(4, 8), needs(9)) == ()
    assert short_bytes(box(4, 8), needs(9)) == 1
    assert short_bytes(box(), needs(9)) == 9


def test_a_split_takes_more_where_there_is_more() -> None:
    """Each card in proportion to its room, and what every one of them takes anew comes to each."""
    assert ways(box(4, 8), needs(9, spread=FREELY)) == [(OnCard(0, 3), OnCard(1, 6))]
    assert ways(box(5, 9), needs(10, each=1, spread=FREELY)) == [(OnCard(0, 4), OnCard(1, 7))]
    assert ways(box(5, 7), needs(12, each=1, spread=FREELY)) == ()


def test_an_even_split_is_even() -> None:
    """The card with the least room says how much."""
    assert ways(box(4, 8), needs(9, spread=EVENLY)) == ()
    assert ways(box(4, 6), needs(7, spread=EVENLY)) == [(OnCard(0, 4), OnCard(1, 4))]
    assert ways(box(4, 4, 4), needs(9, spread=EVENLY)) == ()


def test_no_more_cards_than_it_takes() -> None:
    """Two of three, and every two of them that have the room."""
    assert [tuple(part.card for part in cards) for cards in ways(box(4, 4, 3), needs(7, spread=FREELY))] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    assert ways(box(4, 4, 4), needs(9, spread=FREELY)) == [(OnCard(0, 3), OnCard(1, 3), OnCard(2, 3))]


def test_a_large_box_is_not_weighed_for_ever() -> None:
    """There are so many ways to lie on two of sixteen cards, and the first of them do."""
    assert len(ways(box(*[4] * 16), needs(7, spread=FREELY))) == MOST_WAYS


footprints = st.builds(
    needs,
    st.integers(1, 40),
    each=st.integers(0, 3),
    spread=st.sampled_from([Spread(), FREELY, EVENLY, Spread(counts=(2,))]),
)
boxes = st.lists(st.integers(-2, 16), max_size=4).map(lambda sizes: box(*sizes))


@given(boxes, footprints)
def test_every_way_holds_all_of_it(capacity: Capacity, footprint: Footprint) -> None:
    """No card takes more than it has, all of the model is somewhere, and an even split is even."""
    for cards in ways(capacity, footprint):
        assert all(0 < part.size_bytes <= capacity.card_bytes(part.card) for part in cards)
        assert sum(part.size_bytes for part in cards) >= footprint.gpu_bytes + (len(cards) - 1) * min(
            footprint.gpu_each_bytes, footprint.gpu_bytes
        )
        assert len(cards) == 1 or len(cards) in footprint.spread.counts
        assert not footprint.spread.even or len({part.size_bytes for part in cards}) == 1


@given(boxes, footprints, st.data())
def test_more_room_never_makes_it_impossible(capacity: Capacity, footprint: Footprint, data: st.DataObject) -> None:
    """A larger card holds what a smaller one did; another one does no harm."""
    assume(ways(capacity, footprint))
    grown = [part._replace(size_bytes=part.size_bytes + data.draw(st.integers(0, 4))) for part in capacity.cards]

    assert ways(replace(capacity, cards=tuple(grown)), footprint)
    assert ways(replace(capacity, cards=(*capacity.cards, OnCard(9, 1))), footprint)


@pytest.mark.parametrize(("ram", "gpu", "holds"), [(100, 4, True), (101, 4, False), (100, 5, False), (100, 0, True)])
def test_a_box_holds_what_fits_into_its_memory_and_on_a_card(ram: int, gpu: int, holds: bool) -> None:
    """Either being too small is enough."""
    assert could_hold(box(4, 4), needs(gpu, ram=ram)) is holds


def test_a_container_stays_made_for_its_card() -> None:
    """As long as it will do; another figure is put there, and a card that is gone is left."""
    assert settle(box(8, 8), needs(5), lying(0, 4)) == lying(0, 5)
    assert settle(box(8, 8), needs(5)) == lying(5)
    assert settle(box(8), needs(5), lying(0, 4)) == lying(5)
    assert settle(box(4), needs(5), lying(0, 4)) == ()


def test_nothing_that_runs_is_moved() -> None:
    """Where it runs comes first, where it is to come next, and where it was made last."""
    capacity, footprint = box(8, 8), needs(5)
    here, there = lying(0, 4), lying(5)
    running, stopped = (worker("a", status, cards=here) for status in (Status.STOPPING, Status.STOPPED))

    assert whereabouts(capacity, footprint, worker=running, place=there) == here
    assert whereabouts(capacity, footprint, worker=stopped, place=there) == there
    assert whereabouts(capacity, footprint, worker=stopped, place=None) == lying(0, 5)
    assert whereabouts(capacity, footprint, worker=None, place=None) == there
