"""Who waits how long: the published bound, batches, swaps, and callers who never stop asking."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.forecast import LOAD_MARGIN_S, LOAD_SLACK
from controller.scheduler import Grant, Rules
from tests.core.clockwork import STOP_S, TICK_S, Client, Clockwork
from tests.core.world import World, model_spec

pytestmark = pytest.mark.timeout(900)  # at the profiles with many examples

REQUEST_LIMIT_S = 20.0
NAMES = "abcd"


def slowest_load_s(load_s: float) -> float:
    """Return how long a load may take, from told to start to ready, so that the bound still has to hold."""
    return load_s * LOAD_SLACK + LOAD_MARGIN_S - STOP_S - 2 * TICK_S


@st.composite
def crowds(draw: st.DrawFn) -> Clockwork:
    """Make a small box and clients that ask as much as they can, with the worst durations that are allowed."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    specs = [
        model_spec(
            name,
            size=size,
            parallel=draw(st.sampled_from([1, 1, 2, 4])),
            load_s=draw(st.sampled_from([0.5, 5.0])),
            replicas=draw(st.sampled_from([1, 1, 3])),
            private=draw(st.integers(0, 1)),
        )
        for name, size in zip(NAMES, sizes, strict=False)
    ]
    rules = Rules(
        budget_bytes=draw(st.integers(max(sizes), sum(sizes))),
        quantum_s=draw(st.sampled_from([1.0, 10.0, 45.0])),
        min_residency_s=draw(st.sampled_from([0.0, 1.0])),
        request_limit_s=REQUEST_LIMIT_S + 1.0,
        batch_patience_s=15.0,
    )
    clients = draw(
        st.lists(
            st.builds(
                Client,
                models=st.lists(st.sampled_from([s.name for s in specs]), min_size=1, max_size=2),
                service_s=st.sampled_from([REQUEST_LIMIT_S, REQUEST_LIMIT_S, 3.0]),
                think_s=st.sampled_from([0.0, 0.0, 7.0]),
                begins_s=st.sampled_from([0.0, 0.0, 2.0, 21.0, 33.0]),
                batch=st.sampled_from([False, False, False, True]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    load_s = {s.name: draw(st.sampled_from([slowest_load_s(s.load_s), s.load_s])) for s in specs}
    paces = draw(
        st.lists(st.tuples(st.sampled_from([1.0, 30.0, 61.0, 95.0, 140.0]), st.sampled_from([0.25, 0.5, 1.0])), max_size=4)
    )
    return Clockwork(World(rules, specs), clients, load_s=load_s, paces=paces)


@given(crowds())
def test_nobody_waits_longer_than_published(crowd: Clockwork) -> None:
    """The bound a caller was told holds, for those who were served and for those who still wait, however hot the box gets."""
    grants = crowd.run(400.0)

    late = [g for g in grants if g.waited_s > g.bound_s + 1e-6]
    assert late == []
    assert [w for w in crowd.world.scheduler.queue() if crowd.world.now - w.since_s > w.bound_s + 1e-6] == []


def test_twelve_clients_over_three_models_swap_once_a_batch() -> None:
    """Clients who arrive as A, B, C, A, B, C are served as A, A, B, B, C, C: far fewer loads than requests."""
    rules = Rules(budget_bytes=1, quantum_s=10.0, min_residency_s=0.0)
    clients = [Client(models=[name], service_s=1.0, begins_s=0.001 * i) for i, name in enumerate("ABC" * 4)]
    crowd = Clockwork(World(rules, [model_spec(n) for n in "ABC"]), clients, load_s=dict.fromkeys("ABC", 1.0))

    grants = crowd.run(300.0)

    batches = [len(list(group)) for _, group in itertools.groupby(g.model for g in grants)]
    assert batches[:6] == [4] * 6
    assert len(grants) >= 3.9 * len(crowd.world.starts)


def test_batch_callers_are_not_starved() -> None:
    """A batch caller is served although interactive ones never leave a gap."""
    rules = Rules(budget_bytes=1, batch_patience_s=30.0)
    eager = [Client(models=["a"], service_s=2.0) for _ in range(4)]
    crowd = Clockwork(World(rules, [model_spec("a")]), [*eager, Client(models=["a"], batch=True)], load_s={"a": 1.0})

    grants = crowd.run(120.0)

    waits = [g.waited_s for g in grants if g.waited_s >= 30.0]
    assert len(waits) >= 2
    assert max(waits) <= 30.0 + 4 * 2.0 + 1.0


def test_interactive_callers_go_before_batch_ones() -> None:
    """An interactive caller overtakes batch callers who have not waited for long."""
    world = World(Rules(budget_bytes=1), [model_spec("a")])
    world.must_ask("a", load_only=True)
    for _ in range(3):
        world.turn()
        world.settle()
    slow = world.must_ask("a", batch=True)
    quick = world.must_ask("a")

    world.turn()

    assert [g.lease for g in world.grants[-1:]] == [quick]
    assert slow in world.waiting


def test_two_models_in_turn_do_not_evict_each_other_for_ever() -> None:
    """Two crowds over one place in memory both get on, a quantum each."""
    rules = Rules(budget_bytes=1, quantum_s=5.0, min_residency_s=2.0)
    clients = [Client(models=[name], service_s=0.5) for name in "aabb"]
    crowd = Clockwork(World(rules, [model_spec(n) for n in "ab"]), clients, load_s=dict.fromkeys("ab", 1.0))

    grants = crowd.run(200.0)

    share = {name: sum(1 for g in grants if g.model == name) for name in "ab"}
    assert min(share.values()) > 0.4 * sum(share.values())
    assert len(grants) > 3 * len(crowd.world.starts)


def test_a_large_model_is_not_kept_out_by_small_ones() -> None:
    """Small models that would fit one after the other do not let a large one wait for ever."""
    rules = Rules(budget_bytes=4, quantum_s=5.0)
    small = [Client(models=[name], service_s=3.0, begins_s=0.1 * i) for i, name in enumerate("abcdef")]
    large = Client(models=["L"], begins_s=10.0)
    specs = [*(model_spec(n) for n in "abcdef"), model_spec("L", size=4)]
    crowd = Clockwork(World(rules, specs), [*small, large], load_s=dict.fromkeys("abcdefL", 1.0))

    grants = crowd.run(120.0)

    assert [g.model for g in grants].count("L") >= 4


def served(grants: list[Grant]) -> dict[str, int]:
    """Count grants by model."""
    return {m: sum(1 for g in grants if g.model == m) for m in {g.model for g in grants}}


def test_models_that_fit_together_are_never_swapped() -> None:
    """Where everything fits, each model is loaded once."""
    clients = [Client(models=["a", "b", "c"]) for _ in range(6)]
    crowd = Clockwork(World(Rules(budget_bytes=3), [model_spec(n) for n in "abc"]), clients, load_s=dict.fromkeys("abc", 2.0))

    grants = crowd.run(100.0)

    assert sorted(crowd.world.starts) == ["a", "b", "c"]
    assert min(served(grants).values()) > 50
