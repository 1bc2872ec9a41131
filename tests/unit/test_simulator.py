"""The simulator: the box keeps its clock, the policies are what they say, and the real scheduler serves everybody in time."""

from dataclasses import replace
from functools import partial

import pytest

from bench.simulation.baselines import Baseline, drain_first, first_come
from bench.simulation.machine import BUDGET_BYTES, Machine, load_s
from bench.simulation.windlass import RULES, Windlass
from bench.simulation.workload import MODELS, Job, Model, Workload, make
from bench.simulator import outcome_of, run_unlimited, run_windlass
from controller.charges import OnCard
from controller.spec import ModelName

A, B, C = (ModelName(n) for n in "abc")


def job(number: int, at_s: float, model: ModelName, service_s: float = 1.0) -> Job:
    """Make a request."""
    return Job(number=number, at_s=at_s, model=model, service_s=service_s)


def few(*jobs: Job, size: int = 2_500_000_000) -> Workload:
    """Make a workload of these requests, of three models of which two fit."""
    return Workload(models=[Model(name=n, memory_bytes=size, share=1 / 3) for n in (A, B, C)], jobs=jobs)


def test_the_disk_reads_for_one_load_at_a_time() -> None:
    """A second load begins when the first has ended."""
    machine, ready = Machine(), list[float]()
    for size in (2_500_000_000, 1_250_000_000):
        machine.load(size, lambda: ready.append(machine.now))
    while machine.step(float("inf")):
        pass

    assert ready == pytest.approx([1.6, 1.6 + 1.1])
    assert machine.loads == 2


def test_the_accelerator_serves_one_request_at_a_time() -> None:
    """Those who come meanwhile wait, and are counted from when they came."""
    machine, done = Machine(), list[float]()
    for number in range(2):
        machine.at(float(number), partial(machine.serve, job(number, float(number), A, 3.0), lambda: done.append(machine.now)))
    while machine.step(float("inf")):
        pass

    assert done == [3.0, 6.0]
    assert machine.waits_s == {0: 0.0, 1: 2.0}


def test_the_clock_stops_where_it_is_told_to() -> None:
    """Without an event the time is what was asked for."""
    machine = Machine()

    assert not machine.step(5.0)
    assert machine.now == 5.0


def test_a_workload_is_what_its_seed_says() -> None:
    """The same seed makes the same requests; popularity falls with the rank, and the rate is kept."""
    one, again, other = (make(rate_per_s=0.5, duration_s=4000.0, seed=seed) for seed in (1, 1, 2))

    assert one == again != other
    assert len(one.models) == MODELS
    assert len(one.jobs) == pytest.approx(2000, rel=0.1)
    assert sum(j.model == one.models[0].name for j in one.jobs) == pytest.approx(one.models[0].share * len(one.jobs), rel=0.2)


def test_fifo_loads_for_each_in_its_turn() -> None:
    """Three models in turn over two places are a load for every request."""
    machine = Baseline(few(*(job(i, 0.0, (A, B, C)[i % 3]) for i in range(6))), first_come).run()

    assert machine.loads == 6


def test_drain_serves_who_is_in_memory_before_it_loads_for_another() -> None:
    """The same requests are a load for every model, unless somebody is overdue."""
    jobs = [job(i, 0.0, (A, B, C)[i % 3]) for i in range(6)]

    assert Baseline(few(*jobs), drain_first).run().loads == 3
    assert Baseline(few(*(job(i, 0.0, (A, B, C)[i % 3], 31.0) for i in range(6))), drain_first).run().loads > 3


def test_a_policy_that_looks_ahead_loads_while_it_serves() -> None:
    """The load of the next one is hidden behind the request before it."""
    jobs = [job(0, 0.0, A, 10.0), job(1, 0.0, B)]
    waits_s = Baseline(few(*jobs), first_come, ahead=2).run().waits_s

    assert waits_s[1] == pytest.approx(load_s(2_500_000_000) + 10.0)


def test_the_real_scheduler_serves_a_batch_with_one_load() -> None:
    """Two places, three models in turn: one load for each model, and everybody is served."""
    box = Windlass(few(*(job(i, 0.0, (A, B, C)[i % 3]) for i in range(6))))
    machine = box.run()

    assert machine.loads == 3
    assert sorted(machine.waits_s) == list(range(6)) == sorted(box.bounds_s)


def test_under_load_nobody_waits_past_the_bound_and_the_queue_does_not_grow() -> None:
    """Where FIFO collapses, the scheduler comes near to what the accelerator alone would allow."""
    workload = make(rate_per_s=0.47, duration_s=3600.0, seed=2)
    ours, limit = run_windlass(workload), run_unlimited(workload)

    assert (ours.past_bound, ours.failed) == (0, 0)
    assert ours.p50_s < limit.p50_s + 5.0
    assert ours.p99_s < min(40.0, 2.0 * limit.p99_s)
    assert outcome_of(Baseline(workload, first_come).run(), workload).p50_s > 10 * ours.p50_s


TWO_CARDS = replace(RULES, cards=(OnCard(0, BUDGET_BYTES), OnCard(1, BUDGET_BYTES)))


def test_two_cards_serve_two_models_at_once() -> None:
    """Each on one of them: nobody waits for the other's answer, and no card holds more than one of them."""
    box = Windlass(few(job(0, 0.0, A, 10.0), job(1, 0.0, B, 10.0), size=4_000_000_000), TWO_CARDS)
    waits_s = box.run().waits_s

    assert max(waits_s.values()) < 2 * load_s(4_000_000_000) + 0.5
    assert box.most_bytes == {-1: 0, 0: 4_000_000_000, 1: 4_000_000_000}


def test_two_cards_carry_twice_the_load_and_neither_is_ever_overdrawn() -> None:
    """Twice the requests of one card, nobody past the bound, and never a byte too many on either."""
    workload = make(rate_per_s=0.94, duration_s=1800.0, seed=2)
    box = Windlass(workload, TWO_CARDS)
    waits_s = box.run().waits_s

    assert box.failed == 0
    assert len(waits_s) == len(workload.jobs)
    assert all(waits_s[number] <= bound_s for number, bound_s in box.bounds_s.items())
    assert 0 < min(box.most_bytes[0], box.most_bytes[1]) <= max(box.most_bytes[0], box.most_bytes[1]) <= BUDGET_BYTES
    assert sorted(waits_s.values())[len(waits_s) // 2] < 10.0
