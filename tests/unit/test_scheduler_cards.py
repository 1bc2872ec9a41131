"""Models on the cards of a box: both budgets hold, nobody is moved, and nobody waits for a card that would not help him."""

from dataclasses import replace

import pytest

from controller.charges import Cards, OnCard
from controller.errors import Reason
from controller.scheduler import Rules, Scheduler
from controller.spec import ModelName, Spread, Tier
from controller.state import NEVER_RAN, LeaseId, Status
from tests.core.box import A, B, C, D, box, hold, load, refused, settle
from tests.core.clockwork import Client, Clockwork
from tests.core.world import CRASHED, World, model_spec, worker

CARDS = (OnCard(0, 4), OnCard(1, 4))
A2 = ModelName("a~2")


def two_cards(*names: str, budget: int = 20, gpu: int = 3, **spec: int | bool) -> World:
    """Make a box with two cards of 4 and models that take 3 of one."""
    return box(*(model_spec(n, gpu=gpu, **spec) for n in names), budget_bytes=budget, cards=CARDS)  # type: ignore[arg-type]


def lies(world: World, model: ModelName) -> tuple[int, ...]:
    """Return the cards a container was made for."""
    return tuple(part.card for part in world.engine[model].cards)


def test_two_models_lie_on_two_cards() -> None:
    """Neither has to leave for the other."""
    world = two_cards("a", "b")
    load(world, A, B)

    assert {lies(world, A), lies(world, B)} == {(0,), (1,)}
    assert (world.held_on(0), world.held_on(1)) == (3, 3)


def test_a_third_one_takes_the_place_of_the_less_valuable_on_its_card() -> None:
    """Only one of the two leaves, and the container of the newcomer is made for the card that it leaves."""
    world = two_cards("a", "b", "c")
    load(world, A, B)
    world.leave(hold(world, A), served=True)
    card = lies(world, B)
    load(world, C)

    assert world.scheduler.desired == {A, C}
    assert lies(world, C) == card


def test_memory_alone_can_be_short() -> None:
    """A card is free, and somebody leaves all the same."""
    world = two_cards("a", "b", budget=1)
    load(world, A, B)

    assert world.scheduler.desired == {B}


def test_models_without_a_card_do_not_see_cards() -> None:
    """Full cards are nothing to them, nor are they to those on the cards."""
    world = box(model_spec("a", gpu=4), model_spec("b", gpu=4), model_spec("c"), budget_bytes=3, cards=CARDS)
    load(world, A, B, C)

    assert world.scheduler.desired == {A, B, C}
    assert lies(world, C) == ()


def test_the_busy_one_is_drained_whose_place_will_do() -> None:
    """Small ones on the other card stay, whatever they are worth."""
    world = box(model_spec("a", gpu=4), model_spec("b", gpu=1), model_spec("c", gpu=4), budget_bytes=9, cards=CARDS[:1])
    hold(world, A)
    world.set_capacity(replace(world.rules.capacity, cards=(OnCard(0, 4), OnCard(1, 1))))
    hold(world, B)
    world.must_ask(C)
    world.turn()

    assert set(world.scheduler.drains) == {A}
    assert world.scheduler.places[C] == (OnCard(0, 4),)
    assert world.scheduler.arriving == (C,)


def test_a_drain_stays_on_its_card() -> None:
    """However often a turn is taken, and whatever becomes of the values meanwhile."""
    world = two_cards("a", "b", "c", parallel=2)
    held = {model: hold(world, model) for model in (A, B)}
    world.must_ask(C)
    world.turn()
    (victim,) = world.scheduler.drains
    other = ({A, B} - {victim}).pop()
    since_s = world.scheduler.drains[victim].since_s
    for _ in range(6):
        world.now += 0.5
        world.leave(world.must_ask(victim), served=True)
        world.turn()

    assert set(world.scheduler.drains) == {victim}
    assert world.scheduler.drains[victim].since_s == since_s
    world.leave(held[other], served=True)
    world.turn()
    assert other not in world.scheduler.desired
    assert set(world.scheduler.drains) == set()


def test_what_fits_on_no_card_is_refused_with_its_budgets() -> None:
    """Both cards together would do, but its engine cannot split it."""
    answer = refused(box(model_spec("a", gpu=6 * 2**30), cards=(OnCard(0, 4 * 2**30), OnCard(1, 5 * 2**30))), A)

    assert answer.reason is Reason.NEVER_FITS
    assert str(answer) == (
        "a needs 6 GiB of a GPU's memory (estimate), and the budgets are: GPU 0 4 GiB, GPU 1 5 GiB, which fake cannot split; "
        "if it needs less, say so with `gpu_memory` in its model.toml"
    )
    assert answer.details["gpu_budget_bytes"] == 5 * 2**30


def test_who_is_pinned_on_a_card_is_named_with_it() -> None:
    """It never leaves, so what it takes is not there."""
    world = two_cards("b", "c")
    world.register([model_spec("a", gpu=3, pinned=True), model_spec("b", gpu=4, pinned=True), model_spec("c", gpu=3)])
    settle(world)
    answer = refused(world, C)

    assert "GPU 0 4 B beside 3 B of pinned models, GPU 1 4 B beside 4 B of pinned models" in str(answer)
    assert (answer.details["gpu_budget_bytes"], answer.details["gpu_pinned_bytes"]) == (4, 3)


def test_a_box_without_cards_says_so() -> None:
    """A card has been taken out, say."""
    assert "no GPU with memory of its own is here" in str(refused(box(model_spec("a", gpu=3), budget_bytes=9), A))


def test_memory_that_is_short_is_told_before_cards() -> None:
    """One figure at a time: the one that is used by every model."""
    assert "and the budget is 1 B" in str(refused(two_cards("a", budget=1, size=2, gpu=9), A))


def test_a_split_model_lies_on_both_and_makes_room_on_both() -> None:
    """Whoever lies on either has to leave, and neither card holds more than it has."""
    split = model_spec("c", gpu=7, spread=Spread(counts=(2,)))
    world = box(model_spec("a", gpu=3), model_spec("b", gpu=3), split, budget_bytes=9, cards=CARDS)
    load(world, A, B, C)

    assert world.scheduler.desired == {C}
    assert (world.held_on(0), world.held_on(1)) == (4, 4)


def test_a_replica_comes_on_the_other_card() -> None:
    """What waits is served by two cards; on a card that has no room for a second copy, none comes."""
    world = box(model_spec("a", size=5, private=1, gpu=3, replicas=2), budget_bytes=6, cards=CARDS)
    hold(world, A)
    world.must_ask(A)
    settle(world)
    assert {lies(world, A), lies(world, A2)} == {(0,), (1,)}

    alone = box(model_spec("a", size=5, private=1, gpu=3, replicas=2), budget_bytes=6, cards=CARDS[:1])
    hold(alone, A)
    alone.must_ask(A)
    settle(alone)
    assert alone.scheduler.desired == {A}


def test_small_models_are_loaded_where_a_card_has_room() -> None:
    """Nobody has to leave for a wish, on any card."""
    world = box(*(model_spec(n, gpu=3, tier=Tier.SMALL) for n in "abc"), model_spec("d", gpu=1), budget_bytes=9, cards=CARDS)
    settle(world, turns=8)
    load(world, D)

    assert world.scheduler.desired == {A, B, D}


@pytest.mark.parametrize("card", [0, 1])
def test_a_worker_that_runs_is_adopted_where_it_is(card: int) -> None:
    """Its label says where it lies, and so the other card is the free one."""
    specs = {m: model_spec(m, gpu=3) for m in (A, B)}
    here: Cards = (OnCard(card, 3),)
    rules = Rules(budget_bytes=9, cards=CARDS, adoption_grace_s=0.0)
    scheduler = Scheduler(rules, specs, {A: worker("a", cards=here)}, 0.0)
    assert (scheduler.desired, scheduler.places) == ({A}, {A: here})
    assert scheduler.committed.card_bytes(card) == 3

    scheduler.request(LeaseId("one"), B, 0.0)
    scheduler.turn({A: worker("a", cards=here)}, 0.0)

    assert scheduler.places[B] == (OnCard(1 - card, 3),)


def test_who_was_adopted_and_is_removed_by_hand_comes_back_to_its_card() -> None:
    """Nobody has decided anything else."""
    specs, here = {A: model_spec(A, gpu=3)}, (OnCard(1, 3),)
    scheduler = Scheduler(Rules(budget_bytes=9, cards=CARDS), specs, {A: worker("a", cards=here)}, 0.0)
    scheduler.turn({}, 0.0)

    assert (scheduler.desired, scheduler.places) == ({A}, {A: here})


def test_who_comes_back_may_come_elsewhere() -> None:
    """Its container is made anew for the card that is free now."""
    world = two_cards("a", "b")
    load(world, A)
    world.unload(A, force=False)
    settle(world)
    assert lies(world, A) == (0,)
    load(world, B)
    assert lies(world, B) == (0,)
    load(world, A)

    assert lies(world, A) == (1,)
    assert world.engine[B].status is Status.READY


def test_what_other_programs_take_of_a_card_is_not_promised() -> None:
    """Who lies there leaves, and comes on the other card when somebody asks."""
    world = two_cards("a")
    load(world, A)
    here = lies(world, A)[0]
    world.set_capacity(replace(world.rules.capacity, cards=tuple(OnCard(c, 1 if c == here else 4) for c in (0, 1))))
    settle(world)
    assert world.scheduler.desired == set()
    load(world, A)

    assert lies(world, A) == (1 - here,)


def test_a_card_that_shrinks_drives_nobody_off_another_card() -> None:
    """Who is busy on it is drained, who is idle on it leaves at once, and who is elsewhere would not help."""
    world = box(*(model_spec(n, gpu=g) for n, g in (("a", 3), ("b", 3), ("c", 1))), budget_bytes=9, cards=CARDS)
    lease = hold(world, A)
    load(world, B, C)
    near = B if lies(world, B) == lies(world, A) else C
    world.set_capacity(replace(world.rules.capacity, cards=tuple(OnCard(c, 0 if (c,) == lies(world, A) else 4) for c in (0, 1))))
    world.turn()

    assert world.scheduler.desired == ({A, B, C} - {near} if lies(world, near) == lies(world, A) else {A, B, C})
    assert set(world.scheduler.drains) == {A}
    world.leave(lease, served=True)
    settle(world)
    assert B in world.scheduler.desired


def test_a_failed_load_tries_the_card_again() -> None:
    """The place is forgotten with the decision, and decided anew."""
    world = two_cards("a")
    world.must_ask(A)
    world.turn()
    world.turn()
    world.become_ready(A)
    world.end(A, CRASHED)
    world.turn()
    assert world.scheduler.places == {}
    world.now += 40.0
    settle(world)

    assert world.engine[A].status is Status.READY
    assert world.engine[A].run != NEVER_RAN


def test_nobody_waits_past_the_bound_on_two_cards() -> None:
    """Four models take turns on two cards, under callers who never stop asking."""
    clients = [Client(models=(name,), begins_s=0.3 * number) for number, name in enumerate("abcd" * 2)]
    world = two_cards("a", "b", "c", "d", gpu=3)
    crowd = Clockwork(world, clients, load_s=dict.fromkeys("abcd", 2.0))
    grants = crowd.run(400.0)

    assert len(grants) > 100
    assert all(grant.waited_s <= grant.bound_s for grant in grants)
    assert {grant.model for grant in grants} == {A, B, C, D}
