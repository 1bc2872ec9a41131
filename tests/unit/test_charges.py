"""What workers take together: weights that several map are counted once."""

from hypothesis import given
from hypothesis import strategies as st

from controller.charges import Account, Capacity, Charge, OnCard, WeightsId, total_bytes

V = WeightsId("v")


def replica(private: int = 1) -> Charge:
    """Make the charge of a worker that maps five bytes."""
    return Charge(total_bytes=5 + private, weights=V, weights_bytes=5)


def test_weights_that_are_shared_count_once() -> None:
    """Two workers of one file take its bytes once and their private ones each; a stranger takes all of its own."""
    assert total_bytes([replica(1), replica(2), Charge(total_bytes=9)]) == 5 + 1 + 2 + 9


def test_what_nobody_can_share_is_not_shared() -> None:
    """Two workers without a name for their weights share nothing."""
    assert total_bytes([Charge(total_bytes=6, weights_bytes=5)] * 2) == 12


def test_weights_go_with_the_last_who_maps_them() -> None:
    """The first to leave gives back what was private, the last one all of it."""
    account = Account([replica(), replica()])
    account.remove(replica())
    assert account.total_bytes == 6
    account.remove(replica())

    assert account.total_bytes == 0


def test_a_card_is_a_budget_of_its_own() -> None:
    """What is free on one card, or of the box's memory, helps nobody on another card."""
    capacity = Capacity(ram_bytes=10, cards=(OnCard(0, 4), OnCard(1, 4)))
    account = Account([Charge(total_bytes=1, cards=(OnCard(0, 3),))])

    assert account.fits(capacity, Charge(total_bytes=9, cards=(OnCard(0, 1), OnCard(1, 4))))
    assert not account.fits(capacity, Charge(total_bytes=10, cards=(OnCard(1, 4),)))
    assert account.short_bytes(capacity, Charge(total_bytes=11, cards=(OnCard(0, 3), OnCard(1, 5)))) == 2
    assert not account.fits(capacity, Charge(total_bytes=0, cards=(OnCard(2, 1),)))


def test_copies_on_cards_are_not_shared() -> None:
    """Two workers of one file have it in memory once, and on their card twice."""
    one = Charge(total_bytes=6, weights=V, weights_bytes=5, cards=(OnCard(0, 5),))
    account = Account([one, one])

    assert (account.total_bytes, account.card_bytes(0)) == (7, 10)
    account.remove(one)
    assert (account.total_bytes, account.card_bytes(0)) == (6, 5)
    assert account.fits(Capacity(ram_bytes=6, cards=(OnCard(0, 5),)))


def test_what_is_left_is_left_everywhere() -> None:
    """Of the memory and of each card, whoever takes of it; it may be less than nothing."""
    account = Account([Charge(total_bytes=3, cards=(OnCard(1, 5),))])

    left = account.left(Capacity(ram_bytes=4, cards=(OnCard(0, 4), OnCard(1, 4))))

    assert left == Capacity(ram_bytes=1, cards=(OnCard(0, 4), OnCard(1, -1)))


def test_a_card_that_is_gone_holds_nothing() -> None:
    """Whoever lies on a card that is not there any more is too much; who has left it is not."""
    account = Account([Charge(total_bytes=1, cards=(OnCard(1, 2),))])
    assert account.short_bytes(Capacity(ram_bytes=1)) == 2
    account.remove(Charge(total_bytes=1, cards=(OnCard(1, 2),)))

    assert account.fits(Capacity(ram_bytes=0))


charges = st.builds(
    lambda private, weights: Charge(total_bytes=private + 4 * bool(weights), weights=WeightsId(weights), weights_bytes=4),
    st.integers(0, 5),
    st.sampled_from(["", "v", "w"]),
)


@given(st.lists(charges), st.data())
def test_the_account_agrees_with_counting_anew(drawn: list[Charge], data: st.DataObject) -> None:
    """Whoever comes and goes in whatever order, the total is that of those who are left."""
    account, left = Account(drawn), list(drawn)
    while left and data.draw(st.booleans()):
        account.remove(left.pop(data.draw(st.integers(0, len(left) - 1))))

    private_bytes = sum(c.total_bytes - 4 * bool(c.weights) for c in left)
    assert account.total_bytes == private_bytes + 4 * len({c.weights for c in left if c.weights}) == total_bytes(left)
