"""
A model of 1.5 billion parameters goes out of memory and comes in again: `make swap` shows seconds, and bytes by the disk's count.

It comes in warm, with its pages in the page cache, and cold, when they have been dropped and that has been checked; each several
times. A way in is timed by the caller's own clock, from asking for one token of a model that is not there to having it; what that
time is made of is told by `GET /performance`. The limit of a cold one is how fast the same file is read past the page cache just
before and just after. It is asked the same question after each way in, at temperature 0.
"""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench import disk
from bench.rows import Row, at_least, at_most, console, exactly, publish
from bench.stack import Stack, place_model, stack
from bench.supply import model, weights_of
from controller.units import GIB, MIB

BUDGET: Final = "7.4GiB"
NAME: Final = "one-and-a-half"
MANIFEST: Final = "context = 2048\n"
PROMPT: Final = "The captain looked at the sea and"
TOKENS: Final = 16
REPEATS: Final = 5
SWAP_OUT_S: Final = 0.3
"""The goals of the design, this one without the drain; nobody is being served here."""
WARM_S: Final = 2.0
BEYOND_READING_S: Final = 1.2
OF_THE_DISK: Final = 0.85
BACK_PERCENT: Final = 99.7
OTHER_WRITES_BYTES: Final = 64 * MIB
"""What the engine and the file system may write meanwhile of their own: logs, a journal, a conversation. The weights are 3 GB."""
COLD_SHARE: Final = 0.001
BEFORE_START: Final = frozenset({"decide_s", "drain_s", "kill_s"})
FIELD_REPORT: Final = "(field report, Orin Nano)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """One way out: by the caller's clock, by the controller's, what was written and how much of the memory came back."""

    seconds: float
    told_s: float
    disk_bytes: int
    others_bytes: int
    swap_space_bytes: int
    back_percent: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class In:
    """One way in: by the caller's clock up to the first token, what the disk read, and what `/performance` says of it."""

    seconds: float
    disk_bytes: int
    cached_share: float
    load: Mapping[str, Any]
    limit_bytes_per_s: float = 0.0

    @property
    def parts(self) -> Mapping[str, float]:
        """
        Return what the time was made of, in seconds.

        All but `read_s` follow each other: reading runs beside the rest. The container's start counts as far as it was waited
        for, and what nobody knows of is the rest.
        """
        told: Mapping[str, float] = self.load.get("parts", {})
        before = {name: seconds for name, seconds in told.items() if name in BEFORE_START}
        after = {name: seconds for name, seconds in told.items() if name not in BEFORE_START and name != "container_s"}
        first_token_s = self.load.get("first_token_s") or 0.0
        parts = {**before, "container_s": float(self.load["start_s"]), **after, "first_token_s": first_token_s}
        rest_s = self.seconds - sum(seconds for name, seconds in parts.items() if name != "read_s")
        return {**parts, "rest_s": max(0.0, rest_s)}

    @property
    def read_s(self) -> float:
        """Return how long reading the weights took."""
        return float(self.parts.get("read_s", 0.0))


def held_bytes(meminfo: str) -> int:
    """Return the memory that processes hold, of the text of `/proc/meminfo`: their own, files they map, and page tables."""
    fields = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in meminfo.splitlines())}
    return fields["AnonPages"] + fields["Mapped"] + fields["PageTables"]


def _held_bytes() -> int:
    return held_bytes(Path("/proc/meminfo").read_text(encoding="ascii"))


def ask(running: Stack, tokens: int = TOKENS) -> str:
    """Ask the model, at temperature 0."""
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return str(running.api.post("/v1/completions", body)["choices"][0]["text"])


def go_in(running: Stack, weights: Path) -> In:
    """Ask the model that is not there for one token."""
    share, before, began_s = disk.cached_share(weights), disk.disk_count(weights), time.monotonic()
    ask(running, tokens=1)
    seconds, after = time.monotonic() - began_s, disk.disk_count(weights)
    return In(
        seconds=seconds,
        disk_bytes=after.read_bytes - before.read_bytes,
        cached_share=share,
        load=running.api.get("/performance")["recent_loads"][-1],
    )


def go_out(running: Stack, weights: Path, *, empty_bytes: int) -> Out:
    """Unload the model; processes held *empty_bytes* before it came in."""
    own = running.process_ids()
    os.sync()
    full_bytes, swapped_bytes = _held_bytes(), disk.swapped_out_bytes()
    processes, before = disk.written_by_processes(), disk.disk_count(weights)
    began_s = time.monotonic()
    answer = running.api.post("/unload_model", {"model": NAME})
    seconds, left_bytes = time.monotonic() - began_s, _held_bytes()
    os.sync()  # whatever was still to be written shows now
    others = {process: count for process, count in disk.written_by_processes().items() if process not in own}
    unloads = running.api.get("/performance").get("recent_unloads") or [{}]
    return Out(
        seconds=seconds,
        told_s=float(answer["seconds"]),
        disk_bytes=disk.disk_count(weights).written_bytes - before.written_bytes,
        others_bytes=disk.grown(processes, others),
        swap_space_bytes=disk.swapped_out_bytes() - swapped_bytes,
        back_percent=100 * (full_bytes - left_bytes) / (full_bytes - empty_bytes),
        parts=unloads[-1].get("parts", {}),
    )


def drop(weights: Path) -> None:
    """
    Drop the weights from the page cache, and see that they are gone.

    Raises:
        SystemExit: they are not, so that a cold load cannot be measured.

    """
    disk.drop_pages(weights)
    if (share := disk.cached_share(weights)) > COLD_SHARE:
        raise SystemExit(f"wanted {weights} out of the page cache, {share:.1%} is still there; see who else maps it")


def rows_out(outs: Sequence[Out]) -> list[Row]:
    """Say how the ways out went: seconds as medians, bytes and memory of the worst of them."""
    median_s = statistics.median(out.seconds for out in outs)
    left_bytes = max(out.disk_bytes - out.others_bytes for out in outs)
    published = f"24.4 s, and it wrote the weights {FIELD_REPORT}"
    limit = "the kernel's release of the memory"
    return [
        at_most("swap-out: until the memory is back", median_s, "s", SWAP_OUT_S, published=published, limit=limit),
        Row(name="swap-out: the longest", value=max(out.seconds for out in outs), unit="s"),
        Row(name="swap-out: inside the controller", value=statistics.median(out.told_s for out in outs), unit="s"),
        exactly("swap-out: written to swap space", sum(out.swap_space_bytes for out in outs), 0, unit="bytes"),
        Row(name="swap-out: written by the whole disk, most", value=max(out.disk_bytes for out in outs) / MIB, unit="MiB"),
        at_most(
            "swap-out: of that not by other processes, most",
            max(0, left_bytes) / MIB,
            "MiB",
            OTHER_WRITES_BYTES / MIB,
            published="2.88 GiB: the weights " + FIELD_REPORT,
            limit="0 of the weights",
        ),
        at_least(
            "swap-out: memory back when it is reported",
            statistics.median(out.back_percent for out in outs),
            "%",
            BACK_PERCENT,
        ),
    ]


def rows_warm(ins: Sequence[In]) -> list[Row]:
    """Say how the warm ways in went."""
    return [
        at_most("swap-in warm: asked to first token", _median(ins, "seconds"), "s", WARM_S),
        Row(name="swap-in warm: the longest", value=max(one.seconds for one in ins), unit="s"),
        Row(name="swap-in warm: decided to ready", value=statistics.median(one.load["total_s"] for one in ins), unit="s"),
        at_least("swap-in warm: weights in the page cache before", 100 * min(one.cached_share for one in ins), "%", 99.9),
        Row(name="swap-in warm: read from the disk, most", value=max(one.disk_bytes for one in ins) / GIB, unit="GiB"),
    ]


def rows_cold(ins: Sequence[In], size_bytes: int) -> list[Row]:
    """Say how the cold ways in went, each held against the disk as it was at that time."""
    limit = statistics.median(one.limit_bytes_per_s for one in ins)
    limit_s = size_bytes / limit
    rows = [
        Row(name="disk: the same file read by O_DIRECT", value=limit / 1e9, unit="GB/s"),
        Row(
            name="swap-in cold: asked to first token",
            value=_median(ins, "seconds"),
            unit="s",
            published=f"16.0 s, 180 MB/s {FIELD_REPORT}",
            limit=f"{limit_s:.2f} s to read it by O_DIRECT",
        ),
        Row(name="swap-in cold: the longest", value=max(one.seconds for one in ins), unit="s"),
        at_most("swap-in cold: weights in the page cache before", 100 * max(one.cached_share for one in ins), "%", 0.1),
        at_least(
            "swap-in cold: read from the disk, least", min(one.disk_bytes for one in ins) / size_bytes, "of the weights", 0.99
        ),
    ]
    if not all(one.read_s for one in ins):
        return [*rows, exactly("swap-in cold: reading was timed by the worker", "no", "yes")]
    shares = [size_bytes / one.read_s / one.limit_bytes_per_s for one in ins]
    return [
        *rows,
        Row(name="swap-in cold: reading", value=_median(ins, "read_s"), unit="s", limit=f"{limit_s:.2f} s"),
        at_least(
            "swap-in cold: reading, as a share of O_DIRECT",
            statistics.median(shares),
            "",
            OF_THE_DISK,
            limit=f"{limit / 1e9:.2f} GB/s",
        ),
        at_most(
            "swap-in cold: first token beyond the reading",
            statistics.median(one.seconds - one.read_s for one in ins),
            "s",
            BEYOND_READING_S,
        ),
    ]


def _median(ins: Sequence[In], field: str) -> float:
    return float(statistics.median(getattr(one, field) for one in ins))


def median_parts(all_parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each part that every one of them has, in the order of the first."""
    common = [name for name in all_parts[0] if all(name in parts for parts in all_parts)]
    return {name: statistics.median(parts[name] for parts in all_parts) for name in common}


def measure(shape: str = "qwen2-1.5b", repeats: int = REPEATS) -> tuple[list[Row], dict[str, Any]]:
    """Swap one model out and in, warm and cold."""
    folder = model(shape, "bf16", seed=1)
    weights, outs, warm, cold = weights_of(folder), list[Out](), list[In](), list[In]()
    size_bytes = weights.stat().st_size
    with stack("swap", budget=BUDGET) as running:
        place_model(folder, running.models / NAME, manifest=MANIFEST)
        running.wait_for_models(NAME)
        console.print("  the first load, and the answer to compare with")
        disk.warm_pages(weights)
        empty_bytes = _held_bytes()
        ask(running, tokens=1)  # as after each way in: how much of a prompt is in the cache shows in the last bits of an answer
        texts = [ask(running)]
        for number in range(1, repeats + 1):
            console.print(f"  out, and in again, warm, {number} of {repeats}")
            outs.append(go_out(running, weights, empty_bytes=empty_bytes))
            empty_bytes = _held_bytes()
            warm.append(go_in(running, weights))
            texts.append(ask(running))
        limits = [disk.direct_bytes_per_s(weights)]
        for number in range(1, repeats + 1):
            console.print(f"  out, and in again, cold, {number} of {repeats}; O_DIRECT {limits[-1] / 1e9:.2f} GB/s")
            outs.append(go_out(running, weights, empty_bytes=empty_bytes))
            empty_bytes = _held_bytes()
            drop(weights)
            one = go_in(running, weights)
            texts.append(ask(running))
            limits.append(disk.direct_bytes_per_s(weights))
            cold.append(replace(one, limit_bytes_per_s=statistics.fmean(limits[-2:])))
    out_s = statistics.median(out.seconds for out in outs)
    rows = [
        Row(name="weights", value=size_bytes / GIB, unit="GiB"),
        *rows_out(outs),
        *rows_warm(warm),
        *rows_cold(cold, size_bytes),
        Row(name="cycle: out and in, warm", value=out_s + _median(warm, "seconds"), unit="s"),
        Row(name="cycle: out and in, cold", value=out_s + _median(cold, "seconds"), unit="s", published=f"40.4 s {FIELD_REPORT}"),
        exactly(f"different answers at temperature 0, of {len(texts)}", len(set(texts)), 1),
    ]
    series = {
        "out": median_parts([out.parts for out in outs]),
        "warm": median_parts([one.parts for one in warm]),
        "cold": median_parts([one.parts for one in cold]),
    }
    return rows, series


def main(shape: Annotated[str, typer.Option(help="The model's shape.")] = "qwen2-1.5b") -> None:
    """Swap one model out and in, warm and cold."""
    rows, series = measure(shape)
    if not publish("swap", f"{shape} at bf16, out and in, {REPEATS} times each", rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
