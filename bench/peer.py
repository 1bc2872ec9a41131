"""
One small model's way into memory, by Windlass and by llama.cpp's own router: `make peer`.

A model of 0.5 billion parameters at 8 bits, its pages in the page cache, is asked for one token, and comes in for it: into free
memory, and in another one's place. Both sides take turns. Only Windlass puts its worker into a sealed container.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from bench.router import router
from bench.rows import Row, at_most, console, publish
from bench.sides import Sides, require, sides
from bench.supply import model, weights_of

SHAPE: Final = "qwen2-0.5b"
QUANT: Final = "q8_0"
INTO_FREE: Final = "0.5B Q8_0 warm swap-in"
IN_PLACE: Final = "0.5B Q8_0 warm swap for swap"
REPEATS: Final = 8
"""An even number: each side goes first as often as the other."""
RATIO: Final = 0.85
BOUNDS: Final = frozenset({"--ctx-size", "--parallel", "--threads"})
RESIDENCY_S: Final = 2.2
"""Windlass keeps a model for two seconds that was just loaded; neither side is asked before that is over."""


def timed(url: str, name: str) -> float:
    """Return the seconds from asking a model for one token to having it."""
    began_s = time.monotonic()
    require(url, name)
    return time.monotonic() - began_s


def both(up: Sides, name: str, *, router_first: bool) -> tuple[float, float]:
    """Return what Windlass and the router take to answer, one after the other."""
    if router_first:
        theirs_s = timed(up.router.url, name)
        return timed(up.windlass.url, name), theirs_s
    return timed(up.windlass.url, name), timed(up.router.url, name)


def into_free_memory(up: Sides, name: str) -> None:
    """Unload everything on both sides; *name* is then the first to come."""
    del name
    for running in up.windlass.resident():
        up.windlass.api.post("/unload_model", {"model": running})
    for running in up.folders:
        if up.router.state(running) != "unloaded":
            up.router.forget(running)


def in_anothers_place(up: Sides, name: str) -> None:
    """Let another model than *name* be resident on both sides for a while."""
    other = next(one for one in up.folders if one != name)
    for url in (up.windlass.url, up.router.url):
        require(url, other)
    time.sleep(RESIDENCY_S)


def repeat(up: Sides, prepare: Callable[[Sides, str], None]) -> tuple[list[float], list[float]]:
    """Measure again and again, with either model, and return the seconds of Windlass and of the router."""
    names, pairs = list(up.folders), []
    for number in range(REPEATS):
        name = names[number // 2 % len(names)]
        prepare(up, name)
        pairs.append(both(up, name, router_first=bool(number % 2)))
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def rows_of(what: str, ours: list[float], theirs: list[float]) -> list[Row]:
    """Return the medians and their ratio."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    limit = f"llama.cpp's router {other:.3f} s, without a container"
    return [
        Row(
            name=f"{what}: asked to first token",
            value=mine,
            unit="s",
            published="2.8-8.9 s (field report, Orin Nano)",
            limit=limit,
        ),
        at_most(f"{what}: ratio to llama.cpp's router", mine / other, "", RATIO),
    ]


def measure() -> tuple[list[Row], dict[str, Any]]:
    """Load the model on both sides, again and again."""
    folders = {f"half-{seed}": model(SHAPE, QUANT, seed=seed) for seed in (1, 2)}
    rows: list[Row] = []
    series: dict[str, Any] = {}
    with sides(folders, resident=1) as up:
        for what, prepare in ((INTO_FREE, into_free_memory), (IN_PLACE, in_anothers_place)):
            console.print(f"  {what}, {REPEATS} times on each side in turn")
            ours, theirs = repeat(up, prepare)
            rows += rows_of(what, ours, theirs)
            series[what] = {"windlass_s": ours, "router_s": theirs}
        series["breakdown"] = up.windlass.api.get("/performance")["recent_loads"][-REPEATS:]
        argv, environ = up.windlass.worker_command(next(iter(folders)))
    console.print("  the router alone, with what it does unless it is told otherwise")
    shipped = as_shipped(folders, argv, environ)
    series["router as shipped"] = shipped
    ours_s, theirs_s = statistics.median(series[INTO_FREE]["windlass_s"]), statistics.median(shipped)
    rows.append(Row(name=f"{INTO_FREE}: router with flags of its own choice", value=theirs_s, unit="s"))
    rows.append(at_most(f"{INTO_FREE}: ratio to the router with flags of its own choice", ours_s / theirs_s, "", RATIO))
    return rows, series


def as_shipped(folders: Mapping[str, Path], worker_argv: Sequence[str], environ: Mapping[str, str]) -> list[float]:
    """Return what a router takes that gets only the flags that bound the memory and the threads: it repacks and warms up."""
    weights = {name: weights_of(folder) for name, folder in folders.items()}
    first, *_ = weights
    took_s: list[float] = []
    with router(weights, most=1, worker_argv=bounds(worker_argv), environ=environ) as running:
        for _ in range(REPEATS + 1):
            took_s.append(timed(running.url, first))
            running.forget(first)
    return took_s[1:]  # the first time is not warm on either side


def bounds(worker_argv: Sequence[str]) -> list[str]:
    """Return those of a worker's flags that say how much memory and how many threads it may take, with their arguments."""
    pairs = itertools.pairwise(worker_argv)
    return [word for flag, argument in pairs if flag in BOUNDS for word in (flag, argument)]


def main() -> None:
    """Hold one model's warm swap against llama.cpp's router's."""
    rows, series = measure()
    if not publish("peer", f"{SHAPE} at {QUANT}, warm: Windlass and llama.cpp's router", rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
