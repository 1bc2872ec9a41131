"""
Six models of 0.5 billion parameters at 16 bit answer at once in 7.4 GiB, and a seventh takes the place of the right one.

`make capacity` writes the models (7 GB, once, kept in `build/models`), asks six of them at the same time, watches what the
container engine itself says about memory, and then asks all seven at once.
"""

import asyncio
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import aiohttp
import typer

from bench.rows import Row, at_most, console, exactly, publish
from bench.stack import Stack, output, place_model, stack
from bench.supply import model
from controller.ops import place as places
from controller.units import GIB, format_bytes, parse_bytes

BUDGET: Final = "7.4GiB"
RESIDENT: Final = 6
MANIFEST: Final = "context = 2048\n"
PROMPT: Final = "The old man and the"
TOKENS: Final = 8
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


def measure(running: Stack, names: Sequence[str]) -> list[Row]:
    """Ask six models at once, then all seven, and say what happened."""
    six, seventh = names[:RESIDENT], names[RESIDENT]
    budget_bytes = parse_bytes(BUDGET)
    with Watcher(running) as watcher:
        console.print(f"  {len(six)} models are asked at once")
        first = asyncio.run(ask_all(running, six))
        resident_after_six = running.resident()
        console.print("  all but the third are asked again, twice: it is worth the least now")
        for _ in range(2):
            again = asyncio.run(ask_all(running, [name for name in six if name != six[2]]))
            first += again
        planned = [victim["model"] for victim in running.api.get(f"/plan/{seventh}")["evict"]]
        console.print(f"  all {len(names)} are asked at once; the plan evicts {', '.join(planned)}")
        # The third is left out: it would be busy, and rightly stay.
        second = asyncio.run(ask_all(running, [name for name in names if name != six[2]]))
        resident_after_seven = running.resident()
        third = asyncio.run(ask_all(running, names))
        committed_bytes = running.api.get("/status")["memory"]["committed_bytes"]
    rows = [
        exactly("models asked at once that are all resident afterwards", len(resident_after_six), RESIDENT, published=PUBLISHED),
        exactly("requests that failed, of the six", failures(first), 0),
        exactly("victim planned for the seventh", ", ".join(planned), six[2]),
        exactly("who left for the seventh", ", ".join(sorted(resident_after_six - resident_after_seven)), six[2]),
        exactly("requests that failed, of the seven", failures(second) + failures(third), 0),
        at_most("most that the container engine ever counted", watcher.peak_bytes / GIB, "GiB", budget_bytes / GIB),
        at_most("committed at the end", committed_bytes / GIB, "GiB", budget_bytes / GIB),
        Row(name="samples of the container engine's figures", value=watcher.samples),
    ]
    for row in running.api.get("/models")["models"]:
        footprint = f"{format_bytes(row['footprint_bytes'])} ({row['footprint_source']})"
        rows.append(
            Row(name=f"footprint of {row['name']}", value=footprint, limit=f"weights {format_bytes(row['weights_bytes'])}")
        )
    return rows


def main(models: Annotated[int, typer.Option(help="Models to write; one more than fits.", min=7)] = RESIDENT + 1) -> None:
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
