"""On which card a worker comes: where it can begin the soonest, for the least loss, and away from others."""

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from controller.charges import Capacity, Charge, OnCard
from controller.placement import Choice, Wanted, choose
from controller.planner import Refuse, Resident, Start, Wait
from controller.replicas import replica_name
from controller.spec import ModelName, Spread
from tests.core.layouts import box, lying, needs

NEW = ModelName("new")


def resident(name: str, *cards: int, value: float = 1.0, **flags: bool) -> Resident:
    """Make a resident that is idle unless flags say otherwise, and takes so much of each card, counted from 0."""
    charge, busy = Charge(total_bytes=1, cards=lying(*cards)), flags.pop("busy", False)
    return Resident(model=ModelName(name), charge=charge, value=value, busy=busy, **flags)


def wanted(gpu: int, *, home: tuple[int, ...] = (), spread: Spread = Spread(), model: str = NEW) -> Wanted:  # noqa: B008  # a value
    """Make a worker that is to come."""
    return Wanted(model=ModelName(model), charge=Charge(total_bytes=1), footprint=needs(gpu, spread=spread), home=home)


def placed(choice: Choice) -> tuple[int, ...]:
    """Return the cards."""
    return tuple(part.card for part in choice.charge.cards)


def test_it_comes_where_there_is_room() -> None:
    """A card with room is better than one that somebody has to leave, whatever he is worth."""
    choice = choose(box(4, 4), [resident("a", 3, value=0.0)], wanted(3))

    assert (placed(choice), choice.plan) == ((1,), Start())
    assert choice.charge == Charge(total_bytes=1, cards=(OnCard(1, 3),))


def test_the_least_valuable_leaves_whatever_card_that_is_on() -> None:
    """Both cards are full, and one of the two on them is worth less."""
    residents = [resident("a", 3, value=2.0), resident("b", 0, 3, value=1.0)]
    choice = choose(box(4, 4), residents, wanted(3))

    assert (placed(choice), choice.plan) == ((1,), Start((ModelName("b"),)))


def test_idle_workers_of_any_value_leave_before_busy_ones() -> None:
    """A wait is worse than a loss."""
    residents = [resident("a", 3, value=0.0, busy=True), resident("b", 0, 3, value=9.0)]

    assert placed(choose(box(4, 4), residents, wanted(3))) == (1,)


def test_a_drain_that_has_begun_is_kept() -> None:
    """Whoever is worth less by now does not make the wait begin anew on another card."""
    residents = [
        resident("a", 3, value=2.0, busy=True, draining=True),
        resident("b", 0, 3, value=1.0, busy=True),
    ]

    choice = choose(box(4, 4), residents, wanted(3))

    assert (placed(choice), choice.plan) == ((0,), Wait((ModelName("a"),)))


def test_who_has_reserved_a_card_keeps_it() -> None:
    """The second claimant goes to the other card, and a third one cannot be helped yet."""
    first = resident("first", 3, busy=True, pinned=True)
    second = resident("second", 0, 3, busy=True, pinned=True)

    assert placed(choose(box(4, 4), [], wanted(3), coming=[first])) == (1,)
    assert isinstance(choose(box(4, 4), [], wanted(3), coming=[first, second]).plan, Refuse)


def test_it_is_not_split_for_want_of_patience() -> None:
    """What fits on one card waits for it, even if two halves would fit now."""
    residents = [resident("a", 2, busy=True), resident("b", 0, 2, busy=True)]
    choice = choose(box(4, 4), residents, wanted(4, spread=Spread(counts=(2,))))

    assert isinstance(choice.plan, Wait)
    assert len(placed(choice)) == 1


def test_what_fits_on_no_card_is_split() -> None:
    """Both cards must have room for it."""
    choice = choose(box(4, 4), [resident("a", 3)], wanted(6, spread=Spread(counts=(2,))))

    assert (choice.charge.cards, choice.plan) == (lying(3, 3), Start((ModelName("a"),)))


def test_what_never_fits_is_refused_with_what_is_missing() -> None:
    """By the card that has the most room beside pinned models, or by the memory."""
    pinned = [resident("p", 0, 3, pinned=True)]

    assert choose(box(4, 6), pinned, wanted(5)).plan == Refuse(1)
    assert choose(Capacity(ram_bytes=1, cards=lying(4, 6)), pinned, wanted(1)).plan == Refuse(1)
    assert choose(box(), [], wanted(5)).plan == Refuse(5)


def test_two_workers_of_a_model_compute_on_two_cards() -> None:
    """Its own kin counts more than strangers."""
    residents = [resident("a", 1), resident("x", 0, 1), resident("y", 0, 1)]

    assert placed(choose(box(9, 9), residents, wanted(1, model=replica_name(ModelName("a"), 2)))) == (1,)
    assert placed(choose(box(9, 9), residents, wanted(1))) == (0,)


def test_it_comes_home_where_nothing_speaks_against_it() -> None:
    """Its container is made already; but not to another worker, if a card is empty."""
    assert placed(choose(box(9, 9), [], wanted(1, home=(1,)))) == (1,)
    assert placed(choose(box(9, 9), [resident("a", 0, 1)], wanted(1, home=(1,)))) == (0,)
    assert placed(choose(box(4, 9), [], wanted(1, home=(7,)))) == (1,)


def test_what_others_leave_for_somebody_else_is_not_there_yet() -> None:
    """A card that has room now is better than one that will have some when an older claimant's victims have left."""
    going = [resident("v", 4, busy=True)]
    older = resident("old", 1, busy=True, pinned=True)
    here = [resident("x", 0, 1), resident("y", 0, 1)]

    assert placed(choose(box(4, 4), here, wanted(1), coming=[older], going=going)) == (1,)


def test_what_needs_no_card_is_planned_as_without_any() -> None:
    """It takes nothing of them, and nobody leaves for it."""
    choice = choose(box(4, 4, ram=2), [resident("a", 3), resident("b", 0, 3, value=0.5)], wanted(0))

    assert (choice.charge.cards, choice.plan) == ((), Start((ModelName("b"),)))


@st.composite
def crowds(draw: st.DrawFn) -> list[Resident]:
    """Make residents within two cards of 8."""
    found: list[Resident] = []
    for number in range(draw(st.integers(0, 6))):
        sizes = draw(st.sampled_from([(1, 0), (3, 0), (0, 1), (0, 3), (2, 2)]))
        flags = {flag: draw(st.booleans()) for flag in ("busy", "pinned", "draining")}
        one = resident(f"m{number}", *sizes, value=float(draw(st.integers(0, 3))), **flags)
        if all(sum(p.size_bytes for r in (*found, one) for p in r.charge.cards if p.card == card) <= 8 for card in (0, 1)):
            found.append(one)
    return found


def fits(residents: Sequence[Resident], gone: Sequence[Resident], cards: Sequence[OnCard]) -> bool:
    """Say whether that fits when these are gone."""
    staying = [r.charge.cards for r in residents if r not in gone]
    return all(sum(p.size_bytes for lies in (*staying, cards) for p in lies if p.card == card) <= 8 for card in (0, 1))


@given(crowds(), st.integers(1, 9))
def test_the_choice_agrees_with_brute_force(residents: list[Resident], gpu: int) -> None:
    """It starts if any card will do once some idle workers are gone, and is refused if none ever will; and it fits then."""
    answer = choose(box(8, 8), residents, wanted(gpu))

    def possible(*, busy_too: bool) -> bool:
        may_go = [r for r in residents if not r.pinned and (busy_too or not r.busy)]
        subsets = [s for count in range(len(may_go) + 1) for s in combinations(may_go, count)]
        return any(fits(residents, gone, (OnCard(card, gpu),)) for gone in subsets for card in (0, 1))

    assert isinstance(answer.plan, Start) == possible(busy_too=False)
    assert isinstance(answer.plan, Refuse) == (not possible(busy_too=True))
    if isinstance(answer.plan, Start | Wait):
        names = answer.plan.evict if isinstance(answer.plan, Start) else answer.plan.drain
        gone = [r for r in residents if r.model in names]
        assert fits(residents, gone, answer.charge.cards)
        assert not any(fits(residents, [g for g in gone if g is not one], answer.charge.cards) for one in gone)


@given(crowds(), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_order_of_residents_does_not_matter(residents: list[Resident], gpu: int, chance: object) -> None:
    """The same residents in another order get the same answer."""
    shuffled = chance.sample(residents, len(residents))  # type: ignore[attr-defined]

    assert choose(box(8, 8), shuffled, wanted(gpu)) == choose(box(8, 8), residents, wanted(gpu))
