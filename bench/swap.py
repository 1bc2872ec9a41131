"""
A model of 1.5 billion parameters goes out of memory and comes in again: `make swap` shows seconds, and bytes by the disk's count.

It is asked the same question before and after, at temperature 0. It comes in twice: warm, with its pages still in the page cache,
and cold, when they have been dropped and that has been checked.
"""

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.disk import cached_share, disk_count, drop_pages
from bench.rows import Row, at_most, console, exactly, publish
from bench.stack import Stack, place_model, stack
from bench.supply import model
from controller.units import GIB, MIB

BUDGET: Final = "7.4GiB"
NAME: Final = "one-and-a-half"
MANIFEST: Final = "context = 2048\n"
PROMPT: Final = "The captain looked at the sea and"
TOKENS: Final = 16
SWAP_OUT_S: Final = 0.3
"""The goal of the design, drain not counted."""
OTHER_WRITES_BYTES: Final = 64 * MIB
"""What everything else on the machine may write meanwhile: logs, the engine's own state. The weights are 3 GB."""


def ask(running: Stack) -> str:
    """Ask the model, at temperature 0."""
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    return str(running.api.post("/v1/completions", body)["choices"][0]["text"])


def timed_load(running: Stack, weights: Path, how: str) -> list[Row]:
    """Load the model and say what that took, with the disk's own count."""
    share, before, began_s = cached_share(weights), disk_count(weights), time.monotonic()
    running.api.post("/load_model", {"model": NAME, "wait": True})
    seconds, after = time.monotonic() - began_s, disk_count(weights)
    load = running.api.get("/performance")["recent_loads"][-1]
    published = "16.0 s (field report, Orin Nano)" if how == "cold" else ""
    return [
        Row(name=f"swap-in {how}: to ready", value=seconds, unit="s", published=published),
        Row(name=f"swap-in {how}: container start", value=load["start_s"], unit="s"),
        Row(name=f"swap-in {how}: engine ready", value=load["ready_s"], unit="s"),
        Row(name=f"swap-in {how}: weights in the page cache before", value=share * 100, unit="%"),
        Row(name=f"swap-in {how}: read from the disk", value=(after.read_bytes - before.read_bytes) / GIB, unit="GiB"),
    ]


def timed_unload(running: Stack, weights: Path) -> list[Row]:
    """Unload the model and say what that took, with the disk's own count."""
    os.sync()
    before, began_s = disk_count(weights), time.monotonic()
    answer = running.api.post("/unload_model", {"model": NAME})
    seconds = time.monotonic() - began_s
    os.sync()  # whatever was still to be written shows now
    written_bytes = disk_count(weights).written_bytes - before.written_bytes
    published = "24.4 s, and it wrote the weights (field report, Orin Nano)"
    limit = "the kernel's release of the memory"
    return [
        at_most("swap-out: until the memory is back", seconds, "s", SWAP_OUT_S, published=published, limit=limit),
        Row(name="swap-out: of that, inside the controller", value=float(answer["seconds"]), unit="s"),
        at_most("swap-out: written by the whole disk meanwhile", written_bytes / MIB, "MiB", OTHER_WRITES_BYTES / MIB),
    ]


def main(shape: Annotated[str, typer.Option(help="The model's shape.")] = "qwen2-1.5b") -> None:
    """Swap one model out and in, warm and cold."""
    folder = model(shape, "bf16", seed=1)
    with stack("swap", budget=BUDGET) as running:
        place_model(folder, running.models / NAME, manifest=MANIFEST)
        running.wait_for_models(NAME)
        (weights,) = folder.glob("*.gguf")
        console.print("  the first load, and the answer to compare with")
        rows = [Row(name="weights", value=weights.stat().st_size / GIB, unit="GiB")]
        running.api.post("/load_model", {"model": NAME, "wait": True})
        texts = [ask(running)]
        for how in ("warm", "cold"):
            console.print(f"  out, and in again, {how}")
            rows += timed_unload(running, weights)
            if how == "cold":
                drop_pages(weights)
            rows += timed_load(running, weights, how)
            texts.append(ask(running))
    rows.append(exactly("different answers at temperature 0, of three", len(set(texts)), 1))
    rows.append(Row(name="the answer", value=repr(texts[0])))
    if not publish("swap", f"{shape} at bf16, out and in", rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
