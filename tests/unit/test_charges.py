"""What workers take together: weights that several map are counted once."""

from hypothesis import given
from hypothesis import strategies as st

from controller.charges import Account, Charge, WeightsId, total_bytes

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
