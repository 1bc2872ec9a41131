"""Several workers of one model: when one more comes, who is sent to which, and who leaves first."""

from dataclasses import replace

import pytest

from controller.charges import Capacity
from controller.errors import Reason, RefusedError
from controller.reconcile import Start, diff
from controller.replicas import expand, model_of, names, replica_name
from controller.scheduler import Notice
from controller.spec import ModelName, Tier
from controller.state import LeaseId, Status
from tests.core.box import A, B, C, box, crash, hold, load, settle
from tests.core.world import CRASHED, World, model_spec, worker, worker_spec

A2, A3 = replica_name(A, 2), replica_name(A, 3)


def two(*, budget: int = 6, **spec: int) -> World:
    """Make a box with a model of two replicas, 4 bytes of weights and 1 of its own each, and two plain ones."""
    return box(
        model_spec("a", size=5, private=1, **{"replicas": 2, **spec}),  # type: ignore[arg-type]
        model_spec("b"),
        model_spec("c", size=4),
        budget_bytes=budget,
    )


def held_by(world: World) -> dict[ModelName, int]:
    """Count the leases of each worker."""
    return {name: sum(h.worker == name for h in world.held.values()) for name in world.scheduler.desired}


def test_a_replica_is_its_model_under_another_name() -> None:
    """It is described like its model, and neither pinned nor wished for; a model without replicas has none."""
    models = {A: model_spec("a", replicas=3, pinned=True, tier=Tier.SMALL), B: model_spec("b")}
    expanded = expand(models)

    assert set(expanded) == {A, A2, A3, B}
    assert expanded[A2] == replace(models[A], name=A2, replica_of=A, replicas=1, pinned=False, tier=Tier.LARGE)
    assert (expanded[A2].served_name, expanded[A2].charge) == (A, models[A].charge)
    assert names(A, expanded) == (A, A2, A3)
    assert names(B, expanded) == (B,)
    assert {model_of(n) for n in expanded} == {A, B}
    assert expand({B: models[B]}) == {B: models[B]}


def test_another_worker_comes_when_callers_wait_and_memory_is_free() -> None:
    """Nobody waits: one worker. Somebody does: a second, whose weights are in memory already."""
    world = two()
    hold(world, A)
    assert world.scheduler.desired == {A}
    second = world.must_ask("a")
    settle(world)

    assert world.held[second].worker == A2
    assert world.scheduler.committed_bytes == world.held_bytes == 6
    third = world.must_ask("a")
    settle(world)
    assert third in world.waiting


def test_nobody_asks_for_a_replica() -> None:
    """Its name is the core's own."""
    answer = two().ask(A2)

    assert isinstance(answer, RefusedError)
    assert answer.reason is Reason.UNKNOWN_MODEL


def test_replicas_come_one_at_a_time() -> None:
    """While one more is being loaded, another is not begun."""
    world = two(replicas=3, budget=9)
    hold(world, A)
    for _ in range(3):
        world.must_ask("a")
    world.turn()
    assert world.scheduler.desired == {A, A2}
    settle(world, turns=6)

    assert world.scheduler.desired == {A, A2, A3}
    assert held_by(world) == {A: 1, A2: 1, A3: 1}


def test_a_replica_takes_nobodys_place() -> None:
    """An idle model is not evicted for it, and a model that has to come comes first."""
    world = two()
    load(world, B)
    hold(world, A)
    world.must_ask("a")
    settle(world)
    assert world.scheduler.desired == {A, B}
    world.must_ask("c")
    world.unload("b", force=False)
    settle(world)

    assert A2 not in world.scheduler.desired


def test_callers_go_to_the_worker_that_serves_the_fewest() -> None:
    """Of two with a free place the emptier one is taken, and of two alike the first."""
    world = two(parallel=2)
    leases = [hold(world, A), hold(world, A)]
    leases += [world.must_ask("a"), world.must_ask("a")]
    settle(world)
    assert held_by(world) == {A: 2, A2: 2}
    for lease in [lease for lease in leases if world.held[lease].worker == A2]:
        world.leave(lease, served=True)
    world.leave(leases[0], served=True)
    assert world.held[hold(world, A)].worker == A2
    assert world.held[hold(world, A)].worker == A


def test_a_replica_leaves_before_its_model() -> None:
    """Who comes takes the memory of the idle replica, and the model goes on serving."""
    world = two()
    busy = hold(world, A)
    second = world.must_ask("a")
    settle(world)
    world.leave(second, served=True)
    world.must_ask("b")
    settle(world)

    assert world.scheduler.desired == {A, B}
    assert busy in world.held


def test_a_replica_that_is_being_loaded_gives_way() -> None:
    """The caller it is loaded for keeps the first worker in memory, and not the second, which nobody uses yet."""
    world = two()
    busy = hold(world, A)
    waiting = world.must_ask("a")
    world.turn()
    assert world.scheduler.desired == {A, A2}
    world.must_ask("b")
    world.turn()

    assert world.scheduler.desired == {A, B}
    assert not world.scheduler.drains
    assert busy in world.held
    assert waiting in world.waiting


def test_both_leave_where_the_weights_are_needed() -> None:
    """The second gives back little; who needs more waits until both are drained, and gets it."""
    world = two()
    first = hold(world, A)
    second = world.must_ask("a")
    settle(world)
    claim = world.must_ask("c")
    late = world.must_ask("a")
    world.turn()
    assert set(world.scheduler.drains) == {A, A2}
    world.leave(second, served=True)
    settle(world)
    assert late in world.waiting or world.held[late].worker == A
    for lease in (first, late):
        world.leave(lease, served=True)
    settle(world)

    assert claim in world.held
    assert world.scheduler.desired == {C}


def test_a_replica_serves_on_when_the_first_worker_dies() -> None:
    """Callers are not told that the model has failed while another worker of it answers."""
    world = two(budget=7)
    hold(world, A)
    second = world.must_ask("a")
    settle(world)
    world.end(A, CRASHED)
    world.turn()
    assert world.scheduler.committed_bytes == 5
    world.leave(second, served=True)
    third = world.must_ask("a")
    world.turn()

    assert world.held[third].worker == A2
    assert not world.refusals


def test_who_waits_is_not_refused_while_a_replica_answers() -> None:
    """The first worker fails for the last time allowed, and its callers wait for the second."""
    world = box(model_spec("a", size=5, private=1, replicas=2), budget_bytes=6, max_failures=1)
    hold(world, A)
    second = world.must_ask("a")
    settle(world)
    third = world.must_ask("a")
    world.end(A, CRASHED)
    world.turn()
    assert world.scheduler.record(A).resting
    assert third in world.waiting
    world.leave(second, served=True)
    world.turn()

    assert world.held[third].worker == A2
    assert not world.refusals


def test_a_replica_that_dies_is_not_mourned() -> None:
    """It does not come back for nobody, and its model is none the worse for it."""
    world = two()
    hold(world, A)
    second = world.must_ask("a")
    settle(world)
    world.end(A2, CRASHED)
    world.turn()
    assert [r.lease for r in world.revocations] == [second]
    assert world.revocations[0].model == A
    world.now += 60.0
    settle(world)

    assert world.scheduler.desired == {A}
    assert world.scheduler.record(A).failures == 0


def test_a_model_whose_replica_died_goes_like_any_other() -> None:
    """It did not fail itself: once it has made room for another, it does not come back for nobody."""
    world = two()
    first = hold(world, A)
    world.must_ask("a")
    settle(world)
    world.end(A2, CRASHED)
    world.turn()
    world.leave(first, served=True)
    load(world, C)
    assert world.scheduler.desired == {C}
    assert world.unload("c", force=False)
    world.now += 60.0
    settle(world)

    assert world.scheduler.desired == set()


def test_a_replica_waits_for_its_pause() -> None:
    """One that has just failed is not loaded again at once."""
    world = two()
    hold(world, A)
    world.must_ask("a")
    crash(world, A2)
    world.turn()
    assert A2 not in world.scheduler.desired
    world.now += 1.0
    world.turn()

    assert A2 in world.scheduler.desired


def test_an_idle_replica_goes_after_a_while() -> None:
    """Whatever the tier of its model, which stays."""
    world = two()
    hold(world, A)
    world.leave(world.must_ask("a"))
    second = world.must_ask("a")
    settle(world)
    world.leave(second, served=True)
    world.now += world.rules.idle_unload_s + 0.1
    world.turn()

    assert world.scheduler.desired == {A}


def test_an_unload_takes_all_workers() -> None:
    """Busy replicas are a reason to refuse it too, and by force all of them end."""
    world = two()
    hold(world, A)
    world.must_ask("a")
    settle(world)
    with pytest.raises(RefusedError, match="a is answering 2 callers"):
        world.scheduler.unload(A, force=False)
    assert world.unload("a", force=True)
    assert world.scheduler.desired == set()
    assert not world.scheduler.is_wanted(A)

    assert {r.model for r in world.revocations} == {A}


def test_a_lease_on_a_replica_outlives_a_restart() -> None:
    """The gateway names the model and the run; which worker that was, the run tells."""
    world = two()
    hold(world, A)
    second = world.must_ask("a")
    settle(world)
    world.restart()

    assert world.renew(second)
    assert world.scheduler.leases[second].worker == A2
    assert not world.scheduler.renew(LeaseId("x"), A, world.engine[A2].run + "?", world.now)  # type: ignore[arg-type]


def test_fewer_replicas_than_before_drain_the_rest() -> None:
    """What runs beyond the new number ends its answers and goes."""
    world = two()
    hold(world, A)
    second = world.must_ask("a")
    settle(world)
    world.register([model_spec("a", size=5, private=1), model_spec("b")])
    world.turn()
    assert A2 in world.scheduler.desired
    world.leave(second, served=True)
    settle(world)

    assert world.scheduler.desired == {A}


def test_what_is_expected_counts_all_workers() -> None:
    """With a free place at a replica nobody waits; with none, the line is shared."""
    world = two()
    hold(world, A)
    second = world.must_ask("a")
    notices = [n for n in world.turn() if isinstance(n, Notice)]
    assert not any(n.loading for n in notices)
    settle(world)
    assert world.scheduler.ready_workers(A) == [A, A2]
    for _ in range(2):
        world.must_ask("a")
    assert world.scheduler.expected_wait_s(A) == 2.0
    world.leave(second)
    for waiting in list(world.waiting):
        world.leave(waiting)

    assert world.scheduler.expected_wait_s(A) == 0.0


def test_shared_weights_are_started_beside_each_other() -> None:
    """What does not fit twice fits as a replica, but only if it is known to map the same."""
    specs = {name: worker_spec(spec) for name, spec in expand({A: model_spec("a", size=5, private=1, replicas=2)}).items()}
    first = replace(worker("a", size=5), spec_hash=specs[A].spec_hash)
    second = replace(worker("a~2", Status.STOPPED, size=5), spec_hash=specs[A2].spec_hash)

    assert diff({A, A2}, {A: first, A2: second}, specs, Capacity(ram_bytes=6)) == (Start(A2),)
    assert diff({A, A2}, {A: first, A2: second}, specs, Capacity(ram_bytes=5)) == ()
    assert diff({A, A2}, {A: replace(first, spec_hash="old"), A2: second}, specs, Capacity(ram_bytes=6)) == ()
