"""
A conversation of 1,200 tokens whose model is swapped out and in: what going on with it costs, against computing it again.

Both are timed in the same way, on a model that was loaded a moment before: from the question to the first word of the answer.
"""

import http.client
import json
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from bench.rows import Row, at_least, at_most, console, exactly, publish
from bench.stack import Stack, place_model, stack
from bench.supply import model
from controller.units import MIB

SHAPE: Final = "qwen2-0.5b"
DTYPE: Final = "bf16"
NAME: Final = "talker"
MANIFEST: Final = "context = 4096\n"
TOKENS: Final = 1200
REPEATS: Final = 3
SHARE: Final = 0.05
"""The goal of the design: of the time that computing it takes."""
NEXT_TOKENS: Final = 8
"""How much longer the next prompt is."""
ANSWER_TOKENS: Final = 4
PLAIN_TOKENS: Final = range(100, 1000)
"""Entries of the vocabulary that are neither single bytes nor marks."""
PUBLISHED: Final = "1,020 tokens: 108 ms to 9 ms (3B, desktop GPU)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer: when its first word came, and what the engine counted of its prompt."""

    first_word_s: float
    prompt_tokens: int
    cached_tokens: int


def ask(url: str, prompt: list[int], *, conversation: str, name: str = NAME) -> Turn:
    """Continue *prompt* in a stream."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=300)
    body = {"model": name, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0, "stream": True}
    sent = json.dumps({**body, "conversation_id": conversation, "stream_options": {"include_usage": True}})
    began_s, first_word_s = time.monotonic(), 0.0
    timings: dict[str, Any] = {}
    try:
        connection.request("POST", "/v1/completions", sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {answer.read()[:500]!r}")
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            first_word_s = first_word_s or time.monotonic() - began_s
            event = json.loads(line[6:])
            timings = event.get("timings") or timings
    finally:
        connection.close()
    cached_tokens = int(timings["cache_n"])
    prompt_tokens = cached_tokens + int(timings["prompt_n"])
    return Turn(first_word_s=first_word_s, prompt_tokens=prompt_tokens, cached_tokens=cached_tokens)


def tokens(number: int, count: int) -> list[int]:
    """Make up a prompt, token by token, so that it is as long as it is to be, and that no other run has computed it."""
    chance = random.Random(number)  # noqa: S311 -- dice, no secret
    return [chance.choice(PLAIN_TOKENS) for _ in range(count)]


def reload(running: Stack) -> None:
    """Have the model leave and come back."""
    running.api.post("/unload_model", {"model": NAME})
    running.api.post("/load_model", {"model": NAME, "wait": True})


def swapped(running: Stack, number: int) -> tuple[Turn, Turn, dict[str, Any]]:
    """Begin a conversation on a model that has just come, swap the model, and go on; return both turns and what was kept."""
    conversation, prompt = f"talk-{number}", tokens(number, TOKENS + NEXT_TOKENS)
    first = ask(running.url, prompt[:TOKENS], conversation=conversation)
    reload(running)
    kept = running.api.get("/conversations")["conversations"][0]
    second = ask(running.url, prompt, conversation=conversation)
    reload(running)
    return first, second, kept


def measure() -> tuple[list[Row], dict[str, Any]]:
    """Measure it in a stack of its own."""
    with stack("conversation", budget="7.4GiB") as running:
        place_model(model(SHAPE, DTYPE, seed=1), running.models / NAME, manifest=MANIFEST)
        running.wait_for_models(NAME)
        running.api.post("/load_model", {"model": NAME, "wait": True})
        turns = []
        for number in range(1, REPEATS + 1):
            console.print(f"  conversation {number} of {REPEATS}")
            turns.append(swapped(running, number))
        figures = running.api.get("/status")["conversations"]
    prefill_s = statistics.median(first.first_word_s for first, _, _ in turns)
    restored_s = statistics.median(second.first_word_s for _, second, _ in turns)
    first, _, kept = turns[-1]
    computed_tokens = max(second.prompt_tokens - second.cached_tokens for _, second, _ in turns)
    rows = [
        exactly("conversation: tokens", first.prompt_tokens, TOKENS),
        Row(name="first word, the prompt computed", value=prefill_s, unit="s"),
        Row(name="first word after a swap, restored", value=restored_s, unit="s", published=PUBLISHED),
        at_most("restored against computed", restored_s / prefill_s, "", SHARE),
        at_least("tokens the engine reused, the least of all runs", min(t.cached_tokens for _, t, _ in turns), "", TOKENS),
        Row(name="tokens of the next prompt it computed, the most of all runs", value=computed_tokens),
        exactly("restores that reused nothing, or failed", figures["unused"] + figures["failures"], 0),
        Row(name="written for it", value=kept["size_bytes"] / MIB, unit="MiB"),
        Row(name="writing it, in the worker", value=float(figures["last_save_s"]), unit="s"),
        Row(name="checking and reading it, in controller and worker", value=float(figures["last_restore_s"]), unit="s"),
    ]
    series = [
        {"computed_s": one.first_word_s, "restored_s": other.first_word_s, "cached_tokens": other.cached_tokens}
        for one, other, _ in turns
    ]
    return rows, {"turns": series}


def main() -> None:
    """Swap a model in the middle of a conversation, a few times."""
    rows, series = measure()
    if not publish("conversation", f"{SHAPE} at {DTYPE}, a conversation through a swap", rows, series=series):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
