"""
The same callers, through Windlass and through llama.cpp's own router: `make trace`.

Two traces of small prompts over models of 0.5 billion parameters at 8 bits, of which only some fit:

- ABC: twelve clients at once, each asking for A, B and C in turn and again; memory for one model;
- Zipf: arrivals by chance, six models of which the first is asked for most; memory for two.

Both sides get the same bodies at the same moments, the same binary with the same flags, and pages that are in the page cache.
They take turns, the one that begins changing too. Only Windlass seals its workers. A latency is the caller's own: from asking to
the last byte of the answer.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import typer

from bench.arrivals import PROMPTS, Arrival, fewest_loads, in_turn, zipf_arrivals
from bench.rows import Row, at_most, below, console, exactly, publish
from bench.sides import Answer, Sides, ask, session, sides
from bench.stack import Stack
from bench.supply import model
from controller.errors import WindlassError
from controller.journal import percentile

SHAPE: Final = "qwen2-0.5b"
QUANT: Final = "q8_0"
TOKENS: Final = 8
REPEATS: Final = 2
CLIENTS: Final = 12
ROUNDS: Final = 2
"""How often each client asks for all three."""
ZIPF_MODELS: Final = 6
ZIPF_RESIDENT: Final = 2
ZIPF_S: Final = 40.0
ZIPF_PER_S: Final = 2.0
"""Some requests wait for a swap of another model; on two idle cores neither side falls behind."""
SAMPLE_S: Final = 0.2
ROUTER: Final = "llama.cpp's router"

Drive = Callable[[aiohttp.ClientSession, str], Awaitable[list[Answer]]]
"""Asks everything of a trace at a URL."""
Memory = tuple[float, int, int]
"""Seconds since the start, bytes committed, bytes of the budget."""


@dataclass(slots=True, kw_only=True)
class Course:
    """A trace's course through one side, all repetitions together."""

    answers: list[Answer] = field(default_factory=list)
    loads: int = 0
    memory: list[Memory] = field(default_factory=list)

    @property
    def latencies_s(self) -> list[float]:
        """Return all latencies, the shortest first; a failure counts with the time it took."""
        return sorted(answer.seconds for answer in self.answers)

    @property
    def failures(self) -> list[str]:
        """Return what went wrong."""
        return [answer.failure for answer in self.answers if answer.failure]


def turns(names: Sequence[str]) -> Drive:
    """Return the trace ABC: each client asks for the next model when the last one has answered."""

    async def client(http: aiohttp.ClientSession, url: str, number: int, began_s: float) -> list[Answer]:
        answers = []
        for step, name in enumerate(in_turn(names, first=number, rounds=ROUNDS)):
            prompt = PROMPTS[(number + step) % len(PROMPTS)]
            answers.append(await ask(http, url, name, prompt, tokens=TOKENS, began_s=began_s))
        return answers

    async def drive(http: aiohttp.ClientSession, url: str) -> list[Answer]:
        began_s = time.monotonic()
        done = await asyncio.gather(*(client(http, url, number, began_s) for number in range(CLIENTS)))
        return [answer for answers in done for answer in answers]

    return drive


def scattered(arrivals: Sequence[Arrival]) -> Drive:
    """Return a trace whose requests come when they come, whether others have been answered or not."""

    async def drive(http: aiohttp.ClientSession, url: str) -> list[Answer]:
        began_s = time.monotonic()

        async def one(arrival: Arrival) -> Answer:
            await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.monotonic()))
            return await ask(http, url, arrival.model, arrival.prompt, tokens=TOKENS, began_s=began_s)

        return list(await asyncio.gather(*(one(arrival) for arrival in arrivals)))

    return drive


async def through(drive: Drive, url: str, watched: Stack | None, course: Course) -> None:
    """Put a trace through one side and add what became of it to *course*, with the memory of the stack that is *watched*."""
    async with session() as http, _sampled(watched, course):
        course.answers += await drive(http, url)


@asynccontextmanager
async def _sampled(watched: Stack | None, course: Course) -> AsyncIterator[None]:
    async def sample(running: Stack) -> None:
        began_s = time.monotonic()
        while True:
            with contextlib.suppress(WindlassError):  # too busy for a moment: a sample less, and how many there were is a row
                memory = (await asyncio.to_thread(running.api.get, "/status"))["memory"]
                course.memory.append((time.monotonic() - began_s, memory["committed_bytes"], memory["budget_bytes"]))
            await asyncio.sleep(SAMPLE_S)

    task = asyncio.create_task(sample(watched)) if watched else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def take_turns(title: str, up: Sides, drives: Sequence[Drive]) -> tuple[Course, Course]:
    """Put every drive through both sides, and return Windlass's course and the router's."""
    ours, theirs = Course(), Course()

    def through_windlass(drive: Drive) -> None:
        before = _loads(up.windlass)
        asyncio.run(through(drive, up.windlass.url, None if ours.memory else up.windlass, ours))
        ours.loads += _loads(up.windlass) - before

    def through_router(drive: Drive) -> None:
        before = len(up.router.spawned())
        asyncio.run(through(drive, up.router.url, None, theirs))
        theirs.loads += len(up.router.spawned()) - before

    order = [(through_windlass, "Windlass"), (through_router, ROUTER)]
    for number, drive in enumerate(drives, start=1):
        for side, whose in order:
            console.print(f"  {title}, {number} of {len(drives)}: through {whose}")
            side(drive)
        order.reverse()
    for text in sorted(set(ours.failures))[:5]:
        console.print(f"  failed: {text}", markup=False)
    return ours, theirs


def _loads(running: Stack) -> int:
    return int(running.api.get("/performance")["totals"]["loads"])


def compared(title: str, ours: Course, theirs: Course, *, fewest: int = 0) -> list[Row]:
    """Return the rows of both courses; *fewest* loads are needed by any order, if that is known."""
    if not ours.answers or len(ours.answers) != len(theirs.answers):
        raise SystemExit(f"{title}: {len(ours.answers)} answers of ours cannot be held against {len(theirs.answers)} of {ROUTER}")
    rows = [
        Row(name=f"{title}: requests, each side", value=len(ours.answers)),
        exactly(f"{title}: failures", len(ours.failures), 0, limit=f"{ROUTER} {len(theirs.failures)}"),
        _swaps(title, ours.loads, theirs.loads, fewest=fewest),
    ]
    for word, share in (("p50", 0.5), ("p95", 0.95), ("longest", 1.0)):
        mine, other = percentile(ours.latencies_s, share) or 0.0, percentile(theirs.latencies_s, share) or 0.0
        name = f"{title}: from asking to the last byte, {word}"
        plain = Row(name=name, value=mine, unit="s", limit=f"{ROUTER} {other:.3f}")
        rows.append(plain if word == "p50" else below(name, mine, "s", other, than=ROUTER))
    shares = [committed / budget for _, committed, budget in ours.memory]
    if not shares:
        raise SystemExit(f"{title}: nobody could be asked for the memory committed")
    rows.append(at_most(f"{title}: most committed, as a share of the budget", max(shares), "", 1.0))
    rows.append(Row(name=f"{title}: samples of the memory committed", value=len(shares)))
    return rows


def _swaps(title: str, ours: int, theirs: int, *, fewest: int) -> Row:
    """Hold the swaps of one side against the other's; where no order can do with fewer, that is as good."""
    if not fewest:
        return below(f"{title}: swaps", ours, "", theirs, than=ROUTER)
    return Row(
        name=f"{title}: swaps",
        value=ours,
        goal=f"< {theirs} ({ROUTER}), or the fewest there can be",
        limit=f"{fewest}: no order does with fewer",
        met=ours < theirs or ours <= fewest,
    )


def _series(ours: Course, theirs: Course) -> dict[str, Any]:
    return {"windlass_s": ours.latencies_s, "router_s": theirs.latencies_s, "memory": ours.memory}


def measure() -> tuple[list[Row], dict[str, Any]]:
    """Put both traces through both sides."""
    folders = {f"half-{seed}": model(SHAPE, QUANT, seed=seed) for seed in range(1, ZIPF_MODELS + 1)}
    three = dict(list(folders.items())[:3])
    with sides(three, resident=1) as up:
        ours, theirs = take_turns("ABC", up, [turns(list(three))] * REPEATS)
    orders = [in_turn(list(three), first=number, rounds=ROUNDS) for number in range(CLIENTS)]
    # Each repetition begins with the model that the one before ended with; any of the three is as good as another.
    fewest = REPEATS * fewest_loads(orders, resident=next(iter(three)))
    rows, series = compared("ABC", ours, theirs, fewest=fewest), {"ABC": _series(ours, theirs)}
    drives = [scattered(zipf_arrivals(list(folders), seconds=ZIPF_S, per_s=ZIPF_PER_S, seed=seed)) for seed in range(REPEATS)]
    with sides(folders, resident=ZIPF_RESIDENT) as up:
        ours, theirs = take_turns("Zipf", up, drives)
    return rows + compared("Zipf", ours, theirs), {**series, "Zipf": _series(ours, theirs)}


def main() -> None:
    """Put the same callers through Windlass and through llama.cpp's router."""
    rows, series = measure()
    title = f"{SHAPE} at {QUANT}: the same callers through Windlass and through {ROUTER}"
    if not publish("trace", title, rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
