"""
Tokens a second through the gateway, beside the same worker asked on its own socket: `make decode`.

Both are streamed to the same client, in turn, so that what else the machine does meets both; a pair gives a ratio, and the median
of the ratios counts. Time runs from the first token to the last: the wait for the first is another measurement's.
"""

import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from bench.rows import Row, at_least, console, publish
from bench.stack import PROJECT, Stack, place_model, stack
from bench.supply import model
from controller.errors import WindlassError

BUDGET: Final = "3GiB"
MANIFEST: Final = "context = 2048\n"
MINI: Final = PROJECT / "images" / "windlass-mini" / "gguf"
PATH: Final = "/v1/completions"
PROMPT: Final = "The captain looked at the sea and"
PATIENCE_S: Final = 120.0
SHARE: Final = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to decode with: so many tokens an answer, so many pairs of answers, and whether the goal is held against it."""

    name: str
    folder: Path
    tokens: int
    pairs: int
    counts: bool


def events(connection: socket.socket, body: bytes) -> Iterator[float]:
    """Ask for a stream, and yield the time at which each of its events was there."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    rest = b""
    while True:
        data = connection.recv(65536)
        now = time.perf_counter()
        if not data:
            raise WindlassError(f"the stream ended early: {rest[-300:]!r}")
        *whole, rest = (rest + data).split(b"\n\n")
        for event in whole:
            if b'"error"' in event or (b"HTTP/1.1" in event and b" 200 " not in event.partition(b"\r\n")[0]):
                raise WindlassError(f"wanted a stream, got {event[-300:]!r}")
            if b"data: [DONE]" in event:
                return
            if b"data: " in event:
                yield now


def tokens_per_s(connection: socket.socket, subject: Subject) -> float:
    """Let a model write, and return its speed after the first token."""
    body = {
        "model": subject.name,
        "prompt": PROMPT,
        "max_tokens": subject.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    with connection:
        connection.settimeout(PATIENCE_S)
        at_s = list(events(connection, json.dumps(body).encode()))
    if len(at_s) < subject.tokens:
        raise WindlassError(f"wanted {subject.tokens} tokens of {subject.name}, got {len(at_s)}")
    return (len(at_s) - 1) / (at_s[-1] - at_s[0])


def rows_of(running: Stack, subject: Subject) -> list[Row]:
    """Compare the two ways for one model."""
    running.api.post("/load_model", {"model": subject.name, "wait": True})
    address = Path(running.place.run) / "workers" / subject.name / "worker.sock"
    host, _, port = running.url.rpartition("//")[2].rpartition(":")

    def alone() -> float:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(address))
        return tokens_per_s(connection, subject)

    def through() -> float:
        return tokens_per_s(socket.create_connection((host, int(port))), subject)

    alone(), through()  # the first answers pay for what is made once
    pairs: list[tuple[float, float]] = []
    for number in range(subject.pairs):
        first, second = (alone, through) if number % 2 else (through, alone)
        a, b = first(), second()
        pairs.append((a, b) if number % 2 else (b, a))
        console.print(f"  {subject.name}: {pairs[-1][0]:.1f} tokens/s alone, {pairs[-1][1]:.1f} through the gateway")
    ratio = statistics.median(gateway_s / alone_s for alone_s, gateway_s in pairs)
    name = f"{subject.name}: through the gateway against alone"
    return [
        Row(name=f"{subject.name}: the engine alone", value=statistics.median(a for a, _ in pairs), unit="tokens/s"),
        Row(name=f"{subject.name}: through the gateway", value=statistics.median(b for _, b in pairs), unit="tokens/s"),
        at_least(name, ratio, "x", SHARE, limit="1") if subject.counts else Row(name=name, value=ratio, unit="x", limit="1"),
    ]


def measure() -> list[Row]:
    """Measure a model of real size, and the built-in one, whose tokens come so fast that the gateway's own work shows."""
    subjects = [
        Subject(name="qwen2-half", folder=model("qwen2-0.5b", "bf16", seed=1), tokens=96, pairs=15, counts=True),
        Subject(name="windlass-mini", folder=MINI, tokens=256, pairs=15, counts=False),
    ]
    rows: list[Row] = []
    with stack("decode", budget=BUDGET) as running:
        for subject in subjects:
            place_model(subject.folder, running.models / subject.name, manifest=MANIFEST if subject.counts else "")
        running.wait_for_models(*(subject.name for subject in subjects))
        for subject in subjects:
            rows += rows_of(running, subject)
    return rows


def main() -> None:
    """Compare decoding through the gateway with the engine alone."""
    if os.geteuid() != 0:
        console.print("  a worker's socket is open to root and to the workers' group alone: as another user this fails")
    if not publish("decode", "decoding through the gateway and beside it", measure()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
