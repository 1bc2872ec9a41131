"""The planner, against all that could have been planned."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from controller import planner
from controller.charges import Capacity, Charge, OnCard, WeightsId
from controller.planner import Plan, Refuse, Resident, Start, Wait
from controller.spec import ModelName

World = tuple[Capacity, int, list[Resident], Charge]


def resident(name: str, size: int = 1, *cards: int, value: float = 0.0, **flags: bool) -> Resident:
    """Make a resident that is idle unless flags say otherwise, and takes so much of each card, counted from 0."""
    busy = flags.pop("busy", False)
    charge = Charge(total_bytes=size, cards=on(*cards))
    return Resident(model=ModelName(name), charge=charge, value=value, busy=busy, **flags)


def on(*sizes: int) -> tuple[OnCard, ...]:
    """Lie on cards counted from 0 with these sizes; on none where it is 0."""
    return tuple(OnCard(card, size) for card, size in enumerate(sizes) if size)


def held(*charges: Charge) -> int:
    """Add up what is private, and each weights file once."""
    shared = {c.weights: c.weights_bytes for c in charges if c.weights}
    return sum(c.total_bytes - (c.weights_bytes if c.weights else 0) for c in charges) + sum(shared.values())


def within(capacity: Capacity, *charges: Charge) -> bool:
    """Say whether that fits into the memory and into each card."""
    parts = [part for charge in charges for part in charge.cards]
    cards = {part.card: sum(p.size_bytes for p in parts if p.card == part.card) for part in parts}
    return held(*charges) <= capacity.ram_bytes and all(size <= capacity.card_bytes(card) for card, size in cards.items())


def plan(budget: int, residents: list[Resident], want: int) -> Plan:
    """Plan on a box without cards."""
    return planner.plan(Capacity(ram_bytes=budget), residents, Charge(total_bytes=want))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Make budgets, a number of places, residents within all of that, and what is wanted."""
    cards = st.tuples(st.integers(0, 8), st.integers(0, 8)) | st.just((0, 0))
    capacity = Capacity(ram_bytes=draw(st.integers(1, 64)), cards=on(draw(st.integers(0, 20)), draw(st.integers(0, 20))))
    places = draw(st.integers(1, 7))
    mapped = {name: draw(st.integers(0, 12)) for name in ("v", "w")}
    residents: list[Resident] = []
    for i in range(draw(st.integers(0, places - 1))):
        flags = {flag: draw(st.booleans()) for flag in ("busy", "pinned", "draining")}
        one = resident(f"m{i}", draw(st.integers(0, 24)), *draw(cards), value=draw(st.integers(0, 3)), **flags)
        if (weights := draw(st.sampled_from(["", "", "v", "w"]))) and mapped[weights] <= one.charge.total_bytes:
            one = replace(one, charge=replace(one.charge, weights=WeightsId(weights), weights_bytes=mapped[weights]))
        if not within(capacity, *(r.charge for r in (*residents, one))):
            break
        residents.append(one)
    crowded = draw(st.booleans())
    want = Charge(total_bytes=draw(st.integers(0, 70)), cards=on(*draw(cards)))
    return capacity, len(residents) if crowded and residents else places, residents, want


def fits(world: World, without: tuple[Resident, ...]) -> bool:
    """Whether the wanted one fits once these are gone."""
    capacity, places, residents, want = world
    staying = [r for r in residents if r not in without]
    return within(capacity, want, *(r.charge for r in staying)) and len(staying) + 1 <= places


def ways(world: World, *, busy_too: bool) -> Iterator[tuple[Resident, ...]]:
    """Go through everything that may leave so that the wanted one fits."""
    candidates = [r for r in world[2] if not r.pinned and (busy_too or not r.busy)]
    for count in range(len(candidates) + 1):
        yield from (chosen for chosen in combinations(candidates, count) if fits(world, chosen))


def ask(world: World) -> Start | Wait | Refuse:
    """Plan."""
    capacity, places, residents, want = world
    return planner.plan(capacity, residents, want, places=places)


@given(worlds())
@example((Capacity(ram_bytes=4), 7, [], Charge(total_bytes=4)))
@example((Capacity(ram_bytes=4), 7, [], Charge(total_bytes=5)))
@example((Capacity(ram_bytes=4), 1, [resident("a")], Charge(total_bytes=1)))
@example((Capacity(ram_bytes=4, cards=on(3)), 7, [resident("a", 1, 2)], Charge(total_bytes=1, cards=on(1))))
@example((Capacity(ram_bytes=4, cards=on(3)), 7, [resident("a", 1, 2)], Charge(total_bytes=1, cards=on(2))))
def test_the_kind_of_answer_agrees_with_brute_force(world: World) -> None:
    """Start exactly when idle workers suffice, Refuse exactly when even draining all but pinned ones would not, else Wait."""
    answer = ask(world)

    assert isinstance(answer, Start) == any(True for _ in ways(world, busy_too=False))
    assert isinstance(answer, Refuse) == (not any(True for _ in ways(world, busy_too=True)))


@given(worlds())
def test_who_is_chosen_may_go_suffices_and_is_needed(world: World) -> None:
    """Nobody pinned goes, nobody busy unless it must be, enough go, and none of them could stay."""
    answer = ask(world)
    if isinstance(answer, Refuse):
        return
    names = answer.evict if isinstance(answer, Start) else answer.drain
    chosen = tuple(r for r in world[2] if r.model in names)

    assert len(chosen) == len(names)
    assert not any(r.pinned or (isinstance(answer, Start) and r.busy) for r in chosen)
    assert fits(world, chosen)
    assert not any(fits(world, tuple(c for c in chosen if c is not r)) for r in chosen)


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_residents_does_not_matter(world: World, chance: random.Random) -> None:
    """The same residents in another order get the same answer."""
    capacity, places, residents, want = world
    shuffled = chance.sample(residents, len(residents))

    assert ask((capacity, places, shuffled, want)) == ask(world)


@given(worlds())
def test_a_drain_that_has_begun_is_kept(world: World) -> None:
    """Whoever was chosen to drain is chosen again, whatever the values have become."""
    answer = ask(world)
    if not isinstance(answer, Wait):
        return
    draining = [replace(r, draining=r.model in answer.drain, value=-r.value) for r in world[2]]

    again = ask((world[0], world[1], draining, world[3]))

    assert isinstance(again, Wait)
    assert set(again.drain) == set(answer.drain)


def test_the_least_valuable_idle_worker_goes() -> None:
    """Among idle workers of one size, value decides."""
    residents = [resident("a", value=2.0), resident("b", value=1.0), resident("c", value=3.0)]

    assert plan(3, residents, 1) == Start((ModelName("b"),))


def test_a_pinned_worker_stays_although_it_is_worth_least() -> None:
    """Another one goes, whatever it is worth."""
    residents = [resident("a", value=0.0, pinned=True), resident("b", value=1.0)]

    assert plan(2, residents, 1) == Start((ModelName("b"),))


def test_a_less_valuable_worker_stays_where_the_next_is_enough_alone() -> None:
    """What was chosen first is given back if the others free enough without it."""
    residents = [resident("small", 1, value=1.0), resident("large", 4, value=2.0)]

    assert plan(5, residents, 4) == Start((ModelName("large"),))


def test_the_most_valuable_is_given_back_first() -> None:
    """Where one of several could stay, it is the one that is worth most."""
    residents = [resident("a", 1, value=1.0), resident("b", 2, value=2.0), resident("c", 3, value=3.0)]

    assert plan(6, residents, 3) == Start((ModelName("a"), ModelName("b")))


def test_the_most_valuable_surplus_is_given_back() -> None:
    """Where either of two could stay, the more valuable one stays."""
    residents = [resident("a", 2, value=1.0), resident("b", 2, value=2.0), resident("c", 3, value=3.0)]

    assert plan(7, residents, 5) == Start((ModelName("a"), ModelName("c")))


def test_idle_workers_drain_before_busy_ones() -> None:
    """A plan that must wait still takes idle workers first, even more valuable ones."""
    residents = [
        resident("busy", 2, value=1.0, busy=True),
        resident("idle", 1, value=9.0),
        resident("busier", 2, value=5.0, busy=True),
    ]

    assert plan(5, residents, 3) == Wait((ModelName("idle"), ModelName("busy")))


def test_who_is_drained_already_goes_although_another_is_worth_less() -> None:
    """Another choice would waste the wait until now."""
    residents = [resident("a", busy=True), resident("b", value=1.0, busy=True, draining=True)]

    assert Wait(("b",)) == plan(2, residents, 1)


def test_a_refusal_says_how_much_is_missing() -> None:
    """What is short is what pinned workers and the wanted one take beyond the budget."""
    assert plan(5, [resident("p", 3, pinned=True), resident("q", 2)], 4) == Refuse(2)


def test_nobody_leaves_another_card() -> None:
    """What is worth least may stay if it lies where nothing is missing."""
    residents = [resident("there", 1, 0, 3, value=1.0), resident("here", 1, 3, value=2.0)]
    capacity = Capacity(ram_bytes=9, cards=on(4, 4))

    assert planner.plan(capacity, residents, Charge(total_bytes=1, cards=on(2))) == Start((ModelName("here"),))
    assert planner.plan(capacity, residents, Charge(total_bytes=1, cards=on(1, 1))) == Start()


def test_memory_and_card_may_be_short_at_once() -> None:
    """One leaves for the memory, another one for the card, and neither would do alone."""
    residents = [resident("large", 4, value=1.0), resident("there", 1, 3, value=2.0), resident("other", 1, value=3.0)]
    answer = planner.plan(Capacity(ram_bytes=6, cards=on(4)), residents, Charge(total_bytes=3, cards=on(2)))

    assert answer == Start((ModelName("large"), ModelName("there")))


def test_a_refusal_says_how_much_of_a_card_is_missing() -> None:
    """The memory is enough, and the card is not."""
    residents = [resident("p", 1, 3, pinned=True)]

    assert planner.plan(Capacity(ram_bytes=9, cards=on(4)), residents, Charge(total_bytes=1, cards=on(3))) == Refuse(2)


def test_no_place_beside_pinned_workers_is_a_refusal_with_nothing_short() -> None:
    """Where only places are missing, no bytes are."""
    assert planner.plan(Capacity(ram_bytes=9), [resident("p", 1, pinned=True)], Charge(total_bytes=1), places=1) == Refuse(0)


def test_the_sixty_fifth_worker_needs_a_place() -> None:
    """Sixty-four workers may be resident, however small they are."""
    residents = [resident(f"m{i:02}", 0, value=float(i)) for i in range(64)]

    assert plan(10, residents[:63], 1) == Start()
    assert plan(10, residents, 1) == Start((ModelName("m00"),))
