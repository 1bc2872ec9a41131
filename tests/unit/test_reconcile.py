"""Desired minus observed: removals first, never more than the budget, and nothing to do once they agree."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller import reconcile
from controller.charges import Capacity, OnCard
from controller.reconcile import MAX_CONTAINERS, Action, Create, Hold, LetGo, Remove, Start, Stop, prepare
from controller.spec import ModelName, WorkerSpec
from controller.state import Status, Worker
from tests.core.world import model_spec, worker, worker_spec

NAMES = [ModelName(n) for n in "abcdef"]
A, B = NAMES[:2]

Fleet = dict[ModelName, Worker]


def diff(
    desired: Set[ModelName],
    workers: Fleet,
    specs: Mapping[ModelName, WorkerSpec],
    budget: int,
    **more: Any,  # noqa: ANN401  # whatever it takes
) -> tuple[Action, ...]:
    """Compare on a box without cards."""
    return reconcile.diff(desired, workers, specs, Capacity(ram_bytes=budget), **more)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[set[ModelName], Fleet, dict[ModelName, WorkerSpec], int]:
    """Make a desired set, workers of which some are outdated or unknown, the descriptions, and a budget."""
    specs = {n: worker_spec(model_spec(n, size=draw(st.integers(1, 5)))) for n in draw(st.sets(st.sampled_from(NAMES)))}
    workers = {
        n: Worker(
            model=n,
            status=draw(st.sampled_from(Status)),
            memory_bytes=specs[n].memory_bytes if n in specs and draw(st.booleans()) else draw(st.integers(1, 5)),
            spec_hash=specs[n].spec_hash if n in specs and draw(st.booleans()) else "other",
        )
        for n in draw(st.sets(st.sampled_from(NAMES)))
    }
    return draw(st.sets(st.sampled_from(NAMES))), workers, specs, draw(st.integers(0, 16))


def obey(workers: Fleet, actions: tuple[Action, ...], specs: dict[ModelName, WorkerSpec]) -> Fleet:
    """Do all that, on an engine where nothing goes wrong, and let what is under way end."""
    ends = {Status.STARTING: Status.READY, Status.STOPPING: Status.STOPPED}
    after = dict(workers)
    for action in actions:
        match action:
            case Create(model):
                spec = specs[model]
                after[model] = worker(model, Status.STOPPED, size=spec.memory_bytes, run="")
                after[model] = replace(after[model], spec_hash=spec.spec_hash)
            case Remove(model):
                del after[model]
            case Start(model) | LetGo(model):
                after[model] = replace(after[model], status=Status.READY)
            case Hold(model):
                after[model] = replace(after[model], status=Status.HELD)
            case Stop(model):
                after[model] = replace(after[model], status=Status.STOPPING)
    return {m: replace(w, status=ends.get(w.status, w.status)) for m, w in after.items()}


def is_outdated(worker: Worker, specs: dict[ModelName, WorkerSpec]) -> bool:
    """Say whether a container is another than the one its model would get today."""
    spec = specs.get(worker.model)
    return spec is None or (spec.spec_hash, spec.memory_bytes) != (worker.spec_hash, worker.memory_bytes)


@given(fleets())
def test_what_goes_comes_before_what_comes(fleet: tuple[set[ModelName], Fleet, dict[ModelName, WorkerSpec], int]) -> None:
    """Stops and removals stand before creations and starts."""
    kinds = [isinstance(action, Create | Start | Hold | LetGo) for action in diff(*fleet)]

    assert kinds == sorted(kinds)


@given(fleets())
def test_starts_fit_beside_all_that_is_observed(
    fleet: tuple[set[ModelName], Fleet, dict[ModelName, WorkerSpec], int],
) -> None:
    """What is started fits beside what runs, what is being stopped now and what was being stopped before."""
    _, workers, _, budget = fleet
    started = [a.model for a in diff(*fleet) if isinstance(a, Start)]
    held = sum(w.held_bytes for w in workers.values())

    assert all(workers[m].status is Status.STOPPED for m in started)
    assert not started or held + sum(workers[m].memory_bytes for m in started) <= budget


@given(fleets())
def test_nobody_who_is_desired_is_stopped_and_nobody_who_runs_is_removed(
    fleet: tuple[set[ModelName], Fleet, dict[ModelName, WorkerSpec], int],
) -> None:
    """A running worker is left alone while it is desired, whatever its description, and only stopped ones are removed."""
    desired, workers, specs, _ = fleet
    actions = diff(*fleet)

    running = {m for m, w in workers.items() if m not in desired and w.status in (Status.STARTING, Status.READY)}
    held = {m for m, w in workers.items() if w.status is Status.HELD and (m not in desired or is_outdated(w, specs))}
    assert {a.model for a in actions if isinstance(a, Stop)} == running | held
    assert all(workers[a.model].status is Status.STOPPED for a in actions if isinstance(a, Remove))


@given(fleets())
def test_it_converges_and_then_does_nothing(fleet: tuple[set[ModelName], Fleet, dict[ModelName, WorkerSpec], int]) -> None:
    """After a few passes without faults there is nothing left to do, and all that is desired and fits runs as described."""
    desired, workers, specs, _ = fleet
    budget = 64
    for _ in range(4):
        workers = obey(workers, diff(desired, workers, specs, budget), specs)

    assert diff(desired, workers, specs, budget) == ()
    assert {m for m, w in workers.items() if w.status is Status.READY} == {
        m for m in desired if m in specs or workers.get(m, worker(m, Status.STOPPED)).status is Status.READY
    }
    stopped = {m: w for m, w in workers.items() if w.status is Status.STOPPED}
    assert all((w.spec_hash, w.memory_bytes) == (specs[m].spec_hash, specs[m].memory_bytes) for m, w in stopped.items())


def test_a_model_without_a_description_is_not_created() -> None:
    """What left the catalog cannot be made."""
    assert diff({A}, {}, {}, 10) == ()


def test_who_is_not_wanted_is_stopped_once_whether_it_answers_or_is_still_loading() -> None:
    """A load that nobody waits for any more is not seen through to its end, and what is going is not told again."""
    specs = {A: worker_spec(model_spec("a"))}

    assert diff(set(), {A: worker("a", Status.STARTING)}, specs, 10) == (Stop(A),)
    assert diff(set(), {A: worker("a", Status.READY)}, specs, 10) == (Stop(A),)
    assert diff(set(), {A: worker("a", Status.STOPPING)}, specs, 10) == ()


def test_a_stopping_worker_holds_its_memory() -> None:
    """Nothing starts in the place of a worker that has not gone."""
    workers = {A: worker("a", Status.STOPPING), B: worker("b", Status.STOPPED)}
    specs = {m: worker_spec(model_spec(m)) for m in (A, B)}

    assert diff({B}, workers, specs, 1) == ()
    assert diff({B}, workers, specs, 2) == (Start(B),)


def test_a_container_weighs_what_its_label_says() -> None:
    """The container of a deleted model takes the memory it was made with."""
    workers = {A: worker("a", Status.STOPPING, size=3), B: worker("b", Status.STOPPED, size=2)}

    assert diff({B}, workers, {B: worker_spec(model_spec("b", size=2))}, 4) == ()


def test_another_limit_alone_is_reason_to_make_a_stopped_container_anew() -> None:
    """A footprint that was measured since then replaces the limit of the container, once it has stopped."""
    specs = {A: worker_spec(model_spec("a", size=2))}

    assert specs[A].spec_hash == worker("a").spec_hash
    assert diff({A}, {A: worker("a", Status.STOPPED)}, specs, 4) == (Remove(A),)
    assert diff({A}, {A: worker("a", Status.READY)}, specs, 4) == ()


def crowd(count: int, status: Status) -> tuple[Fleet, dict[ModelName, WorkerSpec]]:
    """Make so many workers and their descriptions."""
    names = [ModelName(f"m{i:03}") for i in range(count)]
    return {n: worker(n, status) for n in names}, {n: worker_spec(model_spec(n)) for n in names}


def test_containers_nobody_wants_make_room_for_new_ones() -> None:
    """With as many containers as may exist, one that is not wanted is removed for one that is, and no more."""
    workers, specs = crowd(MAX_CONTAINERS, Status.STOPPED)
    specs[A] = worker_spec(model_spec("a"))
    first = min(workers)

    assert diff({A, first}, workers, specs, 10) == (Remove(sorted(workers)[1]), Create(A), Start(first))
    del workers[first]
    assert diff({A}, workers, specs, 10) == (Create(A),)


def test_no_container_is_created_beyond_the_limit() -> None:
    """Where nothing can be removed, a new container waits."""
    workers, specs = crowd(MAX_CONTAINERS - 1, Status.READY)
    specs |= {m: worker_spec(model_spec(m)) for m in (A, B)}

    assert diff({A, B, *workers}, workers, specs, 100) == (Create(A),)


def test_one_container_is_prepared_at_a_time() -> None:
    """The first registered model without a container gets one, until there are as many as may exist."""
    specs = {m: worker_spec(model_spec(m)) for m in (A, B)}

    assert prepare({}, specs) == Create(A)
    assert prepare({A: worker("a")}, specs) == Create(B)
    assert prepare({A: worker("a"), B: worker("b")}, specs) is None
    assert prepare({}, specs, without={A}) == Create(B)
    full, _ = crowd(MAX_CONTAINERS, Status.STOPPED)
    assert prepare(full, specs) is None


def test_preparing_looks_at_no_more_models_than_there_are_containers() -> None:
    """Ten thousand registered models cost nothing."""

    class Counting(dict[ModelName, WorkerSpec]):
        looked = 0

        def __iter__(self) -> Iterator[ModelName]:
            for name in super().__iter__():
                self.looked += 1
                yield name

    _, specs = crowd(10_000, Status.STOPPED)
    workers = {m: worker(m) for m in list(specs)[:5]}
    counting = Counting(specs)

    prepare(workers, counting)

    assert counting.looked == 6


def test_who_finds_no_room_is_held_and_let_go_when_there_is() -> None:
    """A container starts held while others have the memory, its engine begins when that is back, and nothing begins twice."""
    specs = {n: worker_spec(model_spec(n, size=2)) for n in (A, B)}
    leaving, coming = worker(A, size=2), worker(B, Status.STOPPED, size=2)

    def decide(desired: set[ModelName], *workers: Worker, arriving: tuple[ModelName, ...] = ()) -> tuple[Action, ...]:
        return diff(desired, {w.model: w for w in workers}, specs, 3, arriving=arriving, may_hold=lambda _: True)

    held = replace(coming, status=Status.HELD)
    stopping = replace(leaving, status=Status.STOPPING)
    gone = replace(leaving, status=Status.STOPPED)

    assert (Hold(B),) == decide({A}, leaving, coming, arriving=(B,))
    assert () == decide({A}, leaving, held, arriving=(B,))
    assert (Stop(A),) == decide({B}, leaving, held)
    assert (Stop(A), Hold(B)) == decide({B}, leaving, coming)
    assert () == decide({B}, stopping, held)
    assert (LetGo(B),) == decide({B}, gone, held)
    assert (Start(B),) == decide({B}, gone, coming)
    assert (Stop(B),) == decide({A}, leaving, held), "the claim has gone"


def test_nothing_is_held_that_may_not_be() -> None:
    """Whoever may not be held waits for its room without a container that runs."""
    specs = {n: worker_spec(model_spec(n, size=2)) for n in (A, B)}
    workers = {A: worker(A, size=2), B: worker(B, Status.STOPPED, size=2)}

    assert () == diff({A}, workers, specs, 3, arriving=(B,))
    assert () == diff({A}, workers, specs, 3, arriving=(B,), may_hold=lambda model: model != B)


def test_a_held_container_of_another_description_is_ended() -> None:
    """What was started from yesterday's description never begins."""
    specs = {A: worker_spec(model_spec(A, version=1))}

    assert (Stop(A),) == diff({A}, {A: worker(A, Status.HELD)}, specs, 3)
    assert (Stop(A),) == diff(set(), {A: worker(A, Status.HELD)}, specs, 3, arriving=(A,))


def test_who_arrives_gets_a_container_and_keeps_it() -> None:
    """A model that will come soon is made ready for, and is not removed to make place for another's container."""
    names = [ModelName(f"m{number:02}") for number in range(MAX_CONTAINERS + 1)]
    specs = {n: worker_spec(model_spec(n)) for n in names}
    stopped = {n: worker(n, Status.STOPPED) for n in names[:-1]}

    assert (Create(A),) == diff(set(), {}, {A: worker_spec(model_spec(A))}, 3, arriving=(A,))
    assert (Remove(names[1]), Create(names[-1])) == diff(set(), stopped, specs, 0, arriving=(names[0], names[-1]))


def test_a_container_that_is_made_for_another_card_is_made_anew() -> None:
    """Once its worker is to come there; while it runs it is left where it is."""
    spec = replace(worker_spec(model_spec("a")), cards=(OnCard(1, 3),))
    stopped = replace(worker("a", Status.STOPPED), spec_hash=spec.spec_hash, cards=(OnCard(0, 3),))

    assert diff({A}, {A: stopped}, {A: spec}, 9) == (Remove(A),)
    assert diff({A}, {A: replace(stopped, status=Status.READY)}, {A: spec}, 9) == ()
