"""
How many models of 0.5 billion parameters at 16 bit answer at once in 7.4 GiB, and whether one more takes the right one's place.

`make capacity` writes the models (8 GB, once, kept in `build/models`), asks as many as fit at the same time, watches what the
container engine itself says about memory, and then asks for one more, and for all of them at once.
"""

import asyncio
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import aiohttp
import typer

from bench.rows import Row, at_least, at_most, console, exactly, publish
from bench.stack import Stack, output, place_model, stack
from bench.supply import model
from controller.ops import place as places
from controller.units import GIB, format_bytes, parse_bytes

BUDGET: Final = "7.4GiB"
AT_LEAST: Final = 6
"""What the field report had at once; as many more as the budget takes are asked as well."""
MODELS: Final = 8
MANIFEST: Final = "context = 2048\n"
PROMPT: Final = "The old man and the"
TOKENS: Final = 8
AGAIN: Final = 4
PUBLISHED: Final = "6 at 0.93 GiB, 5.58 GiB of 7.4 (field report, Orin Nano)"


class Watcher:
    """Asks the container engine about all workers' memory again and again, and keeps the most it ever said."""

    def __init__(self, running: Stack) -> None:
        """Watch the workers of one stack."""
        self.peak_bytes = 0
        self.samples = 0
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

    def _watch(self) -> None:
        while not self._over.is_set():
            workers = output([part for part in places.workers_argv(self._running.place) if part != "--all"]).split()
            if workers:
                self.peak_bytes = max(self.peak_bytes, sum(used_bytes(workers).values()))
                self.samples += 1
            self._over.wait(0.2)


def used_bytes(containers: Sequence[str]) -> dict[str, int]:
    """Return what `docker stats` says each container uses."""
    argv = ["docker", "stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}", *containers]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # a worker may leave while it is asked for
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {name: parse_bytes(usage.split("/")[0].strip()) for name, usage in rows if name != "--"}


async def ask_all(running: Stack, names: Sequence[str]) -> list[dict[str, Any]]:
    """Ask these models at the same time, each once."""
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ask(name: str) -> dict[str, Any]:
            body = {"model": name, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
            began_s = time.monotonic()
            async with session.post(f"{running.url}/v1/completions", json=body) as response:
                answer = await response.json()
                return {"asked": name, "status": response.status, "seconds": time.monotonic() - began_s, "answer": answer}

        return list(await asyncio.gather(*(ask(name) for name in names)))


def failures(answers: Sequence[dict[str, Any]]) -> int:
    """Count the answers that are none, or another model's."""
    good = [a for a in answers if a["status"] == 200 and a["answer"]["model"] == a["asked"]]
    return len(answers) - len(good)


def fill(running: Stack, names: Sequence[str]) -> list[str]:
    """Load models in turn until the next one would evict another, and return those that are in."""
    inside: list[str] = []
    for name in names:
        plan = running.api.get(f"/plan/{name}")
        if plan["evict"] or plan["answer"] != "start":
            break
        running.api.post("/load_model", {"model": name, "wait": True})
        inside.append(name)
    return inside


def measure(running: Stack, names: Sequence[str]) -> list[Row]:
    """Ask as many models at once as fit, then one more than fits, and say what happened."""
    with Watcher(running) as watcher:
        inside = fill(running, names)
        more = names[len(inside)]
        console.print(f"  {len(inside)} models fit, and are asked at once")
        first = asyncio.run(ask_all(running, inside))
        resident = running.resident()
        least = inside[2]
        console.print(
            f"  all but {least} are asked {AGAIN} times more: it is worth the least now, whatever a reload of each costs"
        )
        for _ in range(AGAIN):
            first += asyncio.run(ask_all(running, [name for name in inside if name != least]))
        planned = ", ".join(victim["model"] for victim in running.api.get(f"/plan/{more}")["evict"])
        console.print(f"  {more} is asked together with the others; the plan evicts {planned}")
        # Who is to leave is not asked at the same time: it would be busy, and rightly stay.
        second = asyncio.run(ask_all(running, [name for name in (*inside, more) if name != least]))
        left = ", ".join(sorted(resident - running.resident()))
        console.print(f"  all {len(inside) + 1} are asked at once")
        third = asyncio.run(ask_all(running, [*inside, more]))
        committed_bytes = running.api.get("/status")["memory"]["committed_bytes"]
    budget_gib = parse_bytes(BUDGET) / GIB
    rows = [
        at_least("models resident and answering at once", len(resident), "models", AT_LEAST, published=PUBLISHED),
        exactly("requests that failed while all fitted", failures(first), 0),
        exactly("victim planned for one more model", planned, least),
        exactly("who left for it", left, least),
        exactly("requests that failed with one model too many", failures(second) + failures(third), 0),
        at_most("most that the container engine ever counted", watcher.peak_bytes / GIB, "GiB", budget_gib),
        at_most("committed at the end", committed_bytes / GIB, "GiB", budget_gib),
        Row(name="samples of the container engine's figures", value=watcher.samples),
        Row(name="answer, slowest, all at once", value=max(answer["seconds"] for answer in first), unit="s"),
    ]
    for row in running.api.get("/models")["models"]:
        footprint = f"{format_bytes(row['footprint_bytes'])} ({row['footprint_source']})"
        rows.append(
            Row(name=f"footprint of {row['name']}", value=footprint, limit=f"weights {format_bytes(row['weights_bytes'])}")
        )
    return rows


def main(models: Annotated[int, typer.Option(help="Models to write; more than fit.", min=7)] = MODELS) -> None:
    """Fill 7.4 GiB with models of 0.5 billion parameters at 16 bit, and ask for one more."""
    names = [f"half-{number}" for number in range(1, models + 1)]
    folders = [model("qwen2-0.5b", "bf16", seed=number) for number in range(1, models + 1)]
    with stack("capacity", budget=BUDGET) as running:
        for name, folder in zip(names, folders, strict=True):
            place_model(folder, running.models / name, manifest=MANIFEST)
        running.wait_for_models(*names)
        rows = measure(running, names)
    if not publish("capacity", f"0.5B models at bf16 in {BUDGET}", rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
