"""
How many models of 0.5 billion parameters answer at once in 7.4 GiB, at 16, 8 and 4 bits: `make capacity`.

Every model has weights of its own. Their pages are dropped first, so that each worker reads its own and the kernel charges them
to it; so the sum over all workers is what a box that was just started needs, and a worker that was limited too tightly would have
to read pages again and again, which is counted. At 16 bit one more model is asked for than fits: the right one must leave for it.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.disk import drop_pages
from bench.rows import Row, at_least, at_most, console, exactly, publish
from bench.sides import Answer, ask, session
from bench.stack import Stack, output, place_model, stack
from bench.supply import model, weights_of
from controller.drivers.cgroup_files import CgroupFiles
from controller.ops import place as places
from controller.units import GIB, parse_bytes

BUDGET: Final = "7.4GiB"
SHAPE: Final = "qwen2-0.5b"
MODELS: Final[Mapping[str, int]] = {"bf16": 8, "q8_0": 12, "q4_0": 18}
"""Models to write: more than fit."""
AT_LEAST: Final[Mapping[str, int]] = {"bf16": 6, "q4_0": 12}
MANIFEST: Final = "context = 2048\n"
PROMPT: Final = "The old man and the"
TOKENS: Final = 8
AGAIN: Final = 3
PROBE_BYTES: Final = 4096
REFAULT_SHARE: Final = 0.01
"""A worker may lose a page now and then. One that thrashes reads all of its weights again with each answer."""
PUBLISHED: Final = "6 at 0.93 GiB, 5.58 GiB of 7.4 (field report, Orin Nano)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Memory of all workers at a moment, by the kernel's count."""

    workers: int
    charged_bytes: int
    refault_bytes: int


def sample(running: Stack) -> Sample:
    """Ask the kernel about every worker that runs."""
    files, workers = CgroupFiles(), output([*_running_workers(running), "--no-trunc"]).split()
    usages = [usage for worker in workers if (usage := files.read(worker)) is not None]
    return Sample(
        workers=len(usages),
        charged_bytes=sum(usage.charged_bytes for usage in usages),
        refault_bytes=sum(usage.refault_bytes for usage in usages),
    )


def _running_workers(running: Stack) -> list[str]:
    return [part for part in places.workers_argv(running.place) if part != "--all"]


class Watcher:
    """Asks the kernel about all workers' memory again and again, and keeps what it said."""

    def __init__(self, running: Stack) -> None:
        """Watch the workers of one stack."""
        self.samples: list[Sample] = []
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watcher":
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    @property
    def peak_bytes(self) -> int:
        """Return the most that all workers together were charged with."""
        return max((one.charged_bytes for one in self.samples), default=0)

    def _watch(self) -> None:
        while not self._over.is_set():
            self.samples.append(sample(self._running))
            self._over.wait(0.2)


def ask_all(running: Stack, names: Sequence[str]) -> list[Answer]:
    """Ask these models at the same time, each once."""

    async def together() -> list[Answer]:
        began_s = time.monotonic()
        async with session() as http:
            asked = (ask(http, running.url, name, PROMPT, tokens=TOKENS, began_s=began_s) for name in names)
            return list(await asyncio.gather(*asked))

    return asyncio.run(together())


def failures(answers: Sequence[Answer]) -> int:
    """Count the answers that are none, short, or another model's."""
    for text in sorted({answer.failure for answer in answers if answer.failure})[:5]:
        console.print(f"  failed: {text}", markup=False)
    return sum(bool(answer.failure) for answer in answers)


def fill(running: Stack, names: Sequence[str]) -> list[str]:
    """Load models in turn until the next one would evict another, and return those that are in."""
    inside: list[str] = []
    for name in names:
        plan = running.api.get(f"/plan/{name}")
        if plan["evict"] or plan["answer"] != "start":
            return inside
        running.api.post("/load_model", {"model": name, "wait": True})
        inside.append(name)
    raise SystemExit(f"all {len(names)} models fit into {BUDGET}; write more of them, to see how many do")


def distinct(folders: Sequence[Path]) -> int:
    """Count the different weights among these, by a page from their middle."""
    found = set()
    for folder in folders:
        weights = weights_of(folder)
        with weights.open("rb") as file:
            file.seek(weights.stat().st_size // 2)
            found.add(hashlib.sha256(file.read(PROBE_BYTES)).digest())
    return len(found)


def answer_at_once(running: Stack, quant: str, inside: Sequence[str], folders: Sequence[Path]) -> list[Row]:
    """Ask all models that are in memory at the same time, again and again, and say how that went."""
    console.print(f"  {quant}: {len(inside)} models fit, and are asked at once")
    answers = ask_all(running, inside)
    before = sample(running)
    for _ in range(AGAIN):
        answers += ask_all(running, inside)
    after, resident = sample(running), running.resident()
    weights_bytes = sum(weights_of(folder).stat().st_size for folder in folders)
    counted = len(resident & set(inside))
    what = f"{quant}: models resident and answering at once"
    published = PUBLISHED if quant == "bf16" else ""
    if quant in AT_LEAST:
        first = at_least(what, counted, "models", AT_LEAST[quant], published=published)
    else:
        first = Row(name=what, value=counted, unit="models")
    return [
        first,
        exactly(f"{quant}: different weights among them", distinct(folders), len(inside)),
        exactly(f"{quant}: requests that failed, of {len(answers)}", failures(answers), 0),
        exactly(f"{quant}: workers the kernel was asked about", after.workers, len(inside)),
        at_most(
            f"{quant}: read again while all answered, of the weights",
            (after.refault_bytes - before.refault_bytes) / weights_bytes,
            "",
            REFAULT_SHARE,
        ),
        Row(name=f"{quant}: slowest of {TOKENS} tokens, all at once", value=max(a.seconds for a in answers), unit="s"),
        Row(name=f"{quant}: weights together", value=weights_bytes / GIB, unit="GiB"),
    ]


def one_too_many(running: Stack, quant: str, inside: Sequence[str], more: str) -> list[Row]:
    """Ask for one more model than fits, and see who leaves."""
    least = inside[2]
    console.print(f"  {quant}: all but {least} are asked {AGAIN} times more, so that it is worth the least")
    answers: list[Answer] = []
    for _ in range(AGAIN):
        answers += ask_all(running, [name for name in inside if name != least])
    resident = running.resident()
    planned = ", ".join(victim["model"] for victim in running.api.get(f"/plan/{more}")["evict"])
    console.print(f"  {quant}: {more} is asked together with the others; the plan evicts {planned}")
    # Who is to leave is not asked at the same time: it would be busy, and rightly stay.
    answers += ask_all(running, [name for name in (*inside, more) if name != least])
    left = ", ".join(sorted(resident - running.resident()))
    console.print(f"  {quant}: all {len(inside) + 1} are asked at once")
    answers += ask_all(running, [*inside, more])
    return [
        exactly(f"{quant}: victim planned for one more model", planned, least),
        exactly(f"{quant}: who left for it", left, least),
        exactly(f"{quant}: requests that failed with one model too many", failures(answers), 0),
    ]


def measure_one(quant: str, models: int) -> list[Row]:
    """Fill the budget with models of one kind."""
    names = [f"half-{number}" for number in range(1, models + 1)]
    folders = [model(SHAPE, quant, seed=number) for number in range(1, models + 1)]
    with stack("capacity", budget=BUDGET) as running:
        for name, folder in zip(names, folders, strict=True):
            drop_pages(weights_of(folder))
            place_model(folder, running.models / name, manifest=MANIFEST)
        running.wait_for_models(*names)
        with Watcher(running) as watcher:
            inside = fill(running, names)
            rows = answer_at_once(running, quant, inside, folders[: len(inside)])
            if quant == "bf16":
                rows += one_too_many(running, quant, inside, names[len(inside)])
            committed_bytes = running.api.get("/status")["memory"]["committed_bytes"]
        footprints = [row for row in running.api.get("/models")["models"] if row["name"] in inside]
    budget_gib = parse_bytes(BUDGET) / GIB
    sources = "+".join(sorted({row["footprint_source"] for row in footprints}))
    mean_bytes = sum(row["footprint_bytes"] for row in footprints) / len(footprints)
    return [
        *rows,
        at_most(f"{quant}: most that the kernel charged to all workers", watcher.peak_bytes / GIB, "GiB", budget_gib),
        Row(name=f"{quant}: samples of that", value=len(watcher.samples)),
        at_most(f"{quant}: committed at the end", committed_bytes / GIB, "GiB", budget_gib),
        Row(name=f"{quant}: footprint of one ({sources})", value=mean_bytes / GIB, unit="GiB"),
    ]


def measure(quants: Sequence[str] = tuple(MODELS)) -> tuple[list[Row], dict[str, Any]]:
    """Fill the budget with models of each kind."""
    rows = [row for quant in quants for row in measure_one(quant, MODELS[quant])]
    return rows, {}


def main(only: Annotated[str, typer.Option(help="One of bf16, q8_0 and q4_0 alone.")] = "") -> None:
    """Fill 7.4 GiB with models of 0.5 billion parameters."""
    if only and only not in MODELS:
        raise typer.BadParameter(f"wanted one of {', '.join(MODELS)}, got {only!r}")
    rows, series = measure((only,) if only else tuple(MODELS))
    if not publish("capacity", f"0.5B models in {BUDGET}", rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
