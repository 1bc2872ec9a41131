"""
The real scheduler on a virtual clock, beside simple policies on the same box and the same requests: `make simulate`.

Two hours of requests at each of several rates, drawn anew with each of several seeds; what is told is the worst of the seeds. The
limit is the same requests in the order they came with all models in memory: what the accelerator alone makes of them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer
from rich.table import Table

from bench.rows import Row, at_least, at_most, console, exactly, publish
from bench.simulation.baselines import Baseline, drain_first, first_come
from bench.simulation.machine import Machine
from bench.simulation.windlass import RULES, Windlass
from bench.simulation.workload import SERVICE_MEDIAN_S, SERVICE_SIGMA, Workload, make
from controller.rules import Rules

RATES_PER_S: Final = (0.25, 0.35, 0.42, 0.47, 0.55)
SEEDS: Final = (1, 2, 3, 4, 5, 6)
DURATION_S: Final = 7200.0
FULL_PER_S: Final = 0.47
"""The rate that the goals are for; beyond it even a policy that loads ahead collapses."""
P50_S: Final = 10.0
P99_S: Final = 40.0
COLLAPSED_S: Final = 100.0
"""Half of all callers wait longer than this: the queue only grows."""
AHEAD: Final = 4
"""Requests under way at once where a simple policy may load for one while it serves another."""

OURS: Final = "windlass"
POLICIES: Final[Mapping[str, Callable[[Workload], Machine]]] = {
    "FIFO + LRU": lambda workload: Baseline(workload, first_come).run(),
    "drain + LRU": lambda workload: Baseline(workload, drain_first).run(),
    f"FIFO + LRU, {AHEAD} at once": lambda workload: Baseline(workload, first_come, ahead=AHEAD).run(),
    f"drain + LRU, {AHEAD} at once": lambda workload: Baseline(workload, drain_first, ahead=AHEAD).run(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    One run.

    Attributes:
        p50_s: half of the callers waited longer, from asking until the accelerator began.
        p99_s: one in a hundred did.
        longest_s: the longest wait.
        loads_per_request: models loaded.
        past_bound: callers who waited longer than they were told at most.
        failed: callers who were not served.
        missed_s: by how much the wait was longer or shorter than what was expected, in the middle of all callers.

    """

    p50_s: float
    p99_s: float
    longest_s: float
    loads_per_request: float
    past_bound: int = 0
    failed: int = 0
    missed_s: float = 0.0


def outcome_of(machine: Machine, workload: Workload) -> Outcome:
    """Sum up a run."""
    waits_s = sorted(machine.waits_s.values())
    return Outcome(
        p50_s=percentile(waits_s, 0.50),
        p99_s=percentile(waits_s, 0.99),
        longest_s=waits_s[-1],
        loads_per_request=machine.loads / len(workload.jobs),
        failed=len(workload.jobs) - len(waits_s),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return what so large a share is at most."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run_windlass(workload: Workload, rules: Rules = RULES) -> Outcome:
    """Put the requests to the real scheduler, and hold what each caller was told against what came."""
    box = Windlass(workload, rules)
    machine = box.run()
    plain = outcome_of(machine, workload)
    waits_s = machine.waits_s
    return Outcome(
        p50_s=plain.p50_s,
        p99_s=plain.p99_s,
        longest_s=plain.longest_s,
        loads_per_request=plain.loads_per_request,
        past_bound=sum(waits_s[number] > bound_s for number, bound_s in box.bounds_s.items()),
        failed=plain.failed + box.failed,
        missed_s=statistics.median(abs(waits_s[number] - eta_s) for number, eta_s in box.etas_s.items()),
    )


def run_unlimited(workload: Workload) -> Outcome:
    """Serve in the order of arrival with all models in memory."""
    free_s, waits_s = 0.0, []
    for job in workload.jobs:
        begins_s = max(free_s, job.at_s)
        waits_s.append(begins_s - job.at_s)
        free_s = begins_s + job.service_s
    waits_s.sort()
    return Outcome(p50_s=percentile(waits_s, 0.50), p99_s=percentile(waits_s, 0.99), longest_s=waits_s[-1], loads_per_request=0.0)


def measure() -> tuple[list[Row], dict[str, Any]]:
    """Run every policy at every rate with every seed."""
    table = Table(title="p50 / p99 / longest wait in s, loads per request; the worst of the seeds", title_justify="left")
    for heading in ("req/s", *POLICIES, OURS, "all in memory"):
        table.add_column(heading)
    rows: list[Row] = []
    series: dict[str, Any] = {}
    for rate_per_s in RATES_PER_S:
        console.print(f"  {rate_per_s:g} requests per second, {len(SEEDS)} times {DURATION_S:.0f} s")
        worst = {name: worst_of(runs) for name, runs in run_all(rate_per_s).items()}
        rows += rows_of(rate_per_s, worst)
        series[f"{rate_per_s:g}"] = {name: _series(outcome) for name, outcome in worst.items()}
        table.add_row(f"{rate_per_s:g}", *(_cell(outcome) for outcome in worst.values()))
    console.print(table)
    return rows, series


def run_all(rate_per_s: float) -> dict[str, list[Outcome]]:
    """Run every policy at one rate, by name, ours and the limit last."""
    runs: dict[str, list[Outcome]] = {name: [] for name in (*POLICIES, OURS, "limit")}
    for seed in SEEDS:
        workload = make(rate_per_s=rate_per_s, duration_s=DURATION_S, seed=seed)
        for name, run in POLICIES.items():
            runs[name].append(outcome_of(run(workload), workload))
        runs[OURS].append(run_windlass(workload))
        runs["limit"].append(run_unlimited(workload))
    return runs


def worst_of(runs: Sequence[Outcome]) -> Outcome:
    """Return the worst of each figure; the callers who were failed are added up."""
    return Outcome(
        p50_s=max(run.p50_s for run in runs),
        p99_s=max(run.p99_s for run in runs),
        longest_s=max(run.longest_s for run in runs),
        loads_per_request=max(run.loads_per_request for run in runs),
        past_bound=sum(run.past_bound for run in runs),
        failed=sum(run.failed for run in runs),
        missed_s=max(run.missed_s for run in runs),
    )


def rows_of(rate_per_s: float, worst: Mapping[str, Outcome]) -> list[Row]:
    """Say what happened at one rate, with the goals where there are some."""
    ours, limit, at = worst[OURS], worst["limit"], f"{rate_per_s:g} req/s"
    p50_limit, p99_limit = (f"{seconds:.1f} s with all models in memory" for seconds in (limit.p50_s, limit.p99_s))
    if rate_per_s == FULL_PER_S:
        rows = [
            at_most(f"{at}: p50 of the wait", ours.p50_s, "s", P50_S, limit=p50_limit),
            at_most(f"{at}: p99 of the wait", ours.p99_s, "s", P99_S, limit=p99_limit),
            at_least(f"{at}: p50 under FIFO + LRU, which collapses", worst["FIFO + LRU"].p50_s, "s", COLLAPSED_S),
        ]
    else:
        rows = [
            Row(name=f"{at}: p50 of the wait", value=ours.p50_s, unit="s", limit=p50_limit),
            Row(name=f"{at}: p99 of the wait", value=ours.p99_s, unit="s", limit=p99_limit),
        ]
    return [
        *rows,
        Row(name=f"{at}: longest wait", value=ours.longest_s, unit="s"),
        Row(name=f"{at}: loads per request", value=ours.loads_per_request),
        Row(name=f"{at}: expected wait off by, median", value=ours.missed_s, unit="s"),
        exactly(f"{at}: callers past their bound", ours.past_bound, 0),
        exactly(f"{at}: callers not served", ours.failed, 0),
    ]


def _series(outcome: Outcome) -> dict[str, float]:
    return {
        "p50_s": outcome.p50_s,
        "p99_s": outcome.p99_s,
        "longest_s": outcome.longest_s,
        "loads_per_request": outcome.loads_per_request,
    }


def _cell(outcome: Outcome) -> str:
    return f"{outcome.p50_s:.1f} / {outcome.p99_s:.0f} / {outcome.longest_s:.0f}, {outcome.loads_per_request:.2f}"


def main() -> None:
    """Simulate two hours at each rate under each policy."""
    rows, series = measure()
    title = f"12 models by Zipf, 5.2 GB, one accelerator; chats of {SERVICE_MEDIAN_S:g} s, lognormal, sigma {SERVICE_SIGMA:g}"
    if not publish("simulator", title, rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
