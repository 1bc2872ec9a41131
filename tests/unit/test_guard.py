"""What models may take while other programs want memory, and who is ended if that comes too fast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.charges import Charge
from controller.guard import (
    CALM_S,
    LONGEST_PAUSE_S,
    PAUSE_S,
    REFAULT_BYTES_PER_S,
    SHORTEST_PAUSE_S,
    STALL_SHARE,
    STEP_BYTES,
    STRAIN_S,
    Guard,
    Level,
    Sample,
)
from controller.planner import Resident
from controller.spec import ModelName
from controller.units import GIB, MIB

BUDGET_BYTES = 6 * GIB
FLOOR_BYTES = 512 * MIB


def guard() -> Guard:
    """Return a guard that has seen nothing."""
    return Guard(budget_bytes=BUDGET_BYTES, floor_bytes=FLOOR_BYTES)


def sample(at_s: float, available_bytes: int, *, private_bytes: int = 0, committed_bytes: int = 0, **more: float) -> Sample:
    """Make a sample."""
    return Sample(
        at_s=at_s,
        available_bytes=available_bytes,
        private_bytes=private_bytes,
        committed_bytes=committed_bytes,
        stall_share=more.get("stall_share", 0.0),
        refault_bytes_per_s=more.get("refault_bytes_per_s", 0.0),
        loading=bool(more.get("loading", False)),
    )


def resident(name: str, *, value: float = 1.0, busy: bool = True, pinned: bool = False) -> Resident:
    """Make a worker."""
    return Resident(model=ModelName(name), charge=Charge(total_bytes=GIB), value=value, busy=busy, pinned=pinned)


def critical() -> Guard:
    """Return a guard that has seen less than the floor."""
    made = guard()
    made.see(sample(0.0, FLOOR_BYTES - 1))
    return made


def test_with_enough_memory_models_may_take_what_is_configured() -> None:
    """Nothing is taken off, and no reason is given."""
    verdict = guard().see(sample(0.0, BUDGET_BYTES + FLOOR_BYTES))

    assert (Level.CALM, BUDGET_BYTES, "") == (verdict.level, verdict.budget_bytes, verdict.reason)


def test_what_others_take_is_missing_from_the_budget_at_once() -> None:
    """Every byte above what is spare comes off, in whole steps, and the reason has the figures."""
    verdict = guard().see(sample(0.0, 4 * GIB + FLOOR_BYTES + 5 * MIB, private_bytes=GIB))

    assert (Level.SHORT, 5 * GIB) == (verdict.level, verdict.budget_bytes)
    assert "5 GiB instead of 6 GiB" in verdict.reason


def test_a_little_less_is_everyday() -> None:
    """The budget is exact, but nobody is alarmed for a sixteenth."""
    made = guard()
    everyday = made.see(sample(0.0, BUDGET_BYTES + FLOOR_BYTES - 384 * MIB))
    notable = made.see(sample(0.1, BUDGET_BYTES + FLOOR_BYTES - 400 * MIB))

    assert [(Level.CALM, 5760 * MIB), (Level.SHORT, 5744 * MIB)] == [(v.level, v.budget_bytes) for v in (everyday, notable)]
    assert everyday.reason


@given(
    moves=st.lists(st.integers(min_value=-GIB, max_value=GIB), max_size=30),
    available_bytes=st.integers(min_value=FLOOR_BYTES, max_value=8 * GIB),
)
def test_what_our_own_workers_take_and_give_back_changes_nothing(moves: list[int], available_bytes: int) -> None:
    """A load moves bytes from what is available to what is ours, an unload the other way, and the budget stays as it is."""
    made, private_bytes = guard(), 0
    first = made.see(sample(0.0, available_bytes)).budget_bytes
    for number, move in enumerate(moves):
        move = max(-private_bytes, min(move, available_bytes))  # noqa: PLW2901 -- what is not there cannot move
        private_bytes, available_bytes = private_bytes + move, available_bytes - move

        assert first == made.see(sample(number, available_bytes, private_bytes=private_bytes)).budget_bytes


def test_it_comes_back_when_memory_has_been_there_for_a_while() -> None:
    """A gap between two bursts is no reason to load what the second would push out again."""
    made = guard()
    low = 2 * GIB + FLOOR_BYTES
    budgets = [
        made.see(sample(at_s, available_bytes)).budget_bytes
        for at_s, available_bytes in (
            (0.0, low),
            (1.0, 9 * GIB),
            (4.0, low + GIB),
            (CALM_S - 0.1, 9 * GIB),
            (CALM_S, 9 * GIB),
            (4.0 + CALM_S - 0.1, 9 * GIB),
            (4.0 + CALM_S, 9 * GIB),
        )
    ]

    assert [2 * GIB, 2 * GIB, 2 * GIB, 2 * GIB, 3 * GIB, 3 * GIB, BUDGET_BYTES] == budgets


@given(
    seen=st.lists(
        st.tuples(st.floats(min_value=0.01, max_value=3.0), st.integers(min_value=0, max_value=10 * GIB)), min_size=1, max_size=40
    )
)
def test_the_budget_is_the_lowest_of_the_last_while(seen: list[tuple[float, int]]) -> None:
    """However memory goes up and down, the budget is what a plain look at all samples of the last while says."""
    made, now, past = guard(), 0.0, []
    for step_s, available_bytes in seen:
        now += step_s
        past.append((now, available_bytes))
        lowest = max(0, min(b for at_s, b in past if now - at_s < CALM_S) - FLOOR_BYTES)
        wanted = BUDGET_BYTES if lowest >= BUDGET_BYTES else lowest // STEP_BYTES * STEP_BYTES

        assert wanted == made.see(sample(now, available_bytes)).budget_bytes


def test_the_less_is_free_the_sooner_it_looks_again() -> None:
    """A program that takes a gigabyte a second is seen four times before it has taken what is free."""
    made = guard()
    free = FLOOR_BYTES + BUDGET_BYTES
    pauses_s = [
        made.see(sample(0.0, free + available_bytes, committed_bytes=BUDGET_BYTES)).look_again_s
        for available_bytes in (9 * GIB, 2_000_000_000, 1_000_000, -GIB)
    ]

    assert [LONGEST_PAUSE_S, 0.5, SHORTEST_PAUSE_S, SHORTEST_PAUSE_S] == pauses_s


def test_less_than_the_floor_is_critical() -> None:
    """The floor is a figure of what is available, whoever holds the rest."""
    made = guard()
    at_the_floor = made.see(sample(0.0, FLOOR_BYTES, private_bytes=8 * GIB))
    below = made.see(sample(0.1, FLOOR_BYTES - 1, private_bytes=8 * GIB))

    assert [Level.CALM, Level.CRITICAL] == [at_the_floor.level, below.level]


def test_the_least_important_busy_worker_is_ended_when_nothing_else_is_left() -> None:
    """Pinned ones come last, and of the others the least valuable goes."""
    ordinary = [resident("b", value=2.0), resident("a", value=1.0), resident("p", value=0.1, pinned=True)]

    assert "a" == critical().victim(ordinary, leaving=False, now=0.0)
    assert "p" == critical().victim(ordinary[2:], leaving=False, now=0.0)
    assert "b" == critical().victim([ordinary[0], resident("idle-pinned", busy=False, pinned=True)], leaving=False, now=0.0)
    assert critical().victim([], leaving=False, now=0.0) is None


def test_nobody_busy_is_ended_before_that() -> None:
    """Not while an idle one is left, not while one is on its way out, and not above the floor."""
    short = guard()
    short.see(sample(0.0, FLOOR_BYTES + GIB))

    assert critical().victim([resident("a"), resident("b", busy=False)], leaving=False, now=0.0) is None
    assert critical().victim([resident("a")], leaving=True, now=0.0) is None
    assert short.victim([resident("a")], leaving=False, now=0.0) is None


def test_one_at_a_time() -> None:
    """Memory takes a moment to come back, and the next one may not have to go."""
    made = critical()
    both = [resident("a"), resident("b")]
    ended = [made.victim(both, leaving=False, now=now) for now in (10.0, 10.0 + PAUSE_S / 2, 10.0 + PAUSE_S)]

    assert ["a", None, "a"] == ended


@pytest.mark.parametrize("why", [{"stall_share": STALL_SHARE}, {"refault_bytes_per_s": REFAULT_BYTES_PER_S}])
def test_stalls_and_weights_read_again_cost_one_worker_at_a_time(why: dict[str, float]) -> None:
    """Where all figures say that it fits and the box does not get on, they were wrong: there is one worker too many."""
    made = guard()
    available_bytes = FLOOR_BYTES + 3 * GIB
    budgets = [
        made.see(sample(at_s, available_bytes, committed_bytes=committed_bytes, **why)).budget_bytes
        for at_s, committed_bytes in ((0.0, 3 * GIB), (STRAIN_S / 2, 3 * GIB), (STRAIN_S, 3 * GIB), (STRAIN_S * 1.5, 2 * GIB))
    ]

    assert [3 * GIB, 3 * GIB] == budgets[:2]
    assert 3 * GIB - STEP_BYTES == budgets[2] == budgets[3], "one less, and the next one is given time"


@pytest.mark.parametrize(
    "harmless",
    [
        {"stall_share": STALL_SHARE * 0.9, "refault_bytes_per_s": REFAULT_BYTES_PER_S * 0.9},
        {"stall_share": 0.9, "loading": 1.0},
        {"stall_share": 0.9, "spare_bytes": 2 * FLOOR_BYTES},
    ],
)
def test_stalls_of_other_kinds_cost_nobody(harmless: dict[str, float]) -> None:
    """Short ones, those while we load, and those of a container at its own limit while the box has memory to spare."""
    made, more = guard(), dict(harmless)
    available_bytes = FLOOR_BYTES + 3 * GIB + int(more.pop("spare_bytes", 0))
    budgets = {
        made.see(sample(s * STRAIN_S / 2, available_bytes, committed_bytes=3 * GIB, **more)).budget_bytes for s in range(9)
    }

    assert {(available_bytes - FLOOR_BYTES) // STEP_BYTES * STEP_BYTES} == budgets


def test_stalls_just_after_a_load_are_that_load_s() -> None:
    """What a load reads goes on being touched for a moment after it."""
    made = guard()
    available_bytes = FLOOR_BYTES + 3 * GIB
    made.see(sample(0.0, available_bytes, committed_bytes=3 * GIB, stall_share=0.9, loading=True))
    later = [
        made.see(sample(STRAIN_S * part, available_bytes, committed_bytes=3 * GIB, stall_share=0.9)).budget_bytes
        for part in (0.5, 0.9, 1.0, 1.9, 2.0)
    ]

    assert [3 * GIB] * 4 == later[:4]
    assert later[4] < 3 * GIB


def test_stalls_that_come_and_go_are_not_one_that_lasts() -> None:
    """It begins anew with every pause."""
    made = guard()
    budgets = {
        made.see(
            sample(number * STRAIN_S / 2, FLOOR_BYTES + 3 * GIB, committed_bytes=3 * GIB, stall_share=0.9 if number % 2 else 0.0)
        ).budget_bytes
        for number in range(9)
    }

    assert {3 * GIB} == budgets


def test_nothing_is_taken_from_models_that_hold_nothing() -> None:
    """Where no worker runs, no worker is too many."""
    made = guard()
    budgets = {made.see(sample(float(at_s), FLOOR_BYTES + 100 * MIB, stall_share=1.0)).budget_bytes for at_s in range(9)}

    assert {96 * MIB} == budgets
