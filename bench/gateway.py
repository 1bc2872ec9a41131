"""
What the gateway adds to a worker that answers at once: `make gateway`.

The real processes in their real containers, with a sealed worker: a key is checked, a lease taken, a route decided, and the
worker asked on its own socket. The worker is a small program in C. The same one answers without anything in between, behind
nginx, and behind LiteLLM's proxy, all in one run and asked by the same generators (`bench/load.py`).

It needs wrk, nginx and a C compiler (Debian's wrk, nginx-light, gcc and libc6-dev); LiteLLM goes into an environment of its own.
"""

import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from unittest.mock import patch

import typer

from bench.load import Question, Rate, closed, latency, opened
from bench.native import worker_image
from bench.proxies import bare_worker, litellm, nginx
from bench.rows import Row, at_least, at_most, console, publish
from bench.stack import BUILD, PROJECT, Stack, output, place_model, stack, wait_until
from controller.ops import place as places

MINI: Final = PROJECT / "images" / "windlass-mini" / "gguf"
MANIFEST: Final = 'memory = "16MiB"\nparallel = 64\n'
"""Nobody waits for a place: what is measured is the gateway and not the queue."""
BUDGET: Final = "24MiB"
MODEL: Final = "model-0"
CLIENTS: Final = (1, 16, 64)
GOAL_CLIENTS: Final = 16
REGISTERED: Final = (10, 100, 10_000)
ROUNDS: Final = 3
"""At 16 clients, and in the open loop; what has no goal is measured once."""
CLOSED_S: Final = 5.0
OPEN_S: Final = 12.0
OPEN_PER_S: Final = 200.0
LITELLM_S: Final = 10.0
REGISTERED_WITHIN_S: Final = 300.0

MEDIAN_MS: Final = 1.0
P99_MS: Final = 5.0
RATE_PER_S: Final = 2000.0
NGINX_SHARE: Final = 1 / 6
LITELLM_TIMES: Final = 50.0
MANY_MODELS_TIMES: Final = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Whom to ask: everybody by name, and the gateways by how many models are registered."""

    others: Mapping[str, Question]
    gateways: Mapping[int, Question]


@contextlib.contextmanager
def gateway(models: int, folder: Path) -> Iterator[Question]:
    """Run a stack with so many models registered, of which one is resident."""
    names = [f"model-{number}" for number in range(models)]
    with stack(f"gateway-{models}", budget=BUDGET) as running:  # a name of its own: they run beside each other
        for name in names:
            place_model(folder, running.models / name)
        wait_until(lambda: len(running.api.get("/v1/models")["data"]) == models, f"{models} are registered", REGISTERED_WITHIN_S)
        wait_until(lambda: _is_quiet(running), "all containers are made that are made ahead", REGISTERED_WITHIN_S)
        made = output([*running.compose, "exec", "-T", "controller", "python3", "-m", "controller", "keys", "create", "bench"])
        key = next(word for word in made.split() if word.startswith("wl_"))
        running.api.post("/load_model", {"model": MODEL, "wait": True})
        yield Question(port=int(running.url.rpartition(":")[2]), model=MODEL, key=key)


@contextlib.contextmanager
def field(*, registered: tuple[int, ...], with_litellm: bool) -> Iterator[Field]:
    """Bring up everybody who is asked."""
    with contextlib.ExitStack() as up:
        up.enter_context(patch.dict(os.environ, {"WINDLASS_IMAGE_LLAMA_CPP": worker_image()}))
        folder = Path(up.enter_context(tempfile.TemporaryDirectory(prefix="gateway-model-", dir=BUILD)))
        place_model(MINI, folder / "model", manifest=MANIFEST)
        gateways: dict[int, Question] = {}
        for count in registered:
            console.print(f"  a stack with {count:,} models")
            gateways[count] = up.enter_context(gateway(count, folder / "model"))
        worker = up.enter_context(bare_worker())
        others = {"worker alone": Question(port=worker.port, model=MODEL)}
        for processes in ("auto", "1"):
            name = f"nginx, {'one process a core' if processes == 'auto' else 'one process'}"
            others[name] = Question(port=up.enter_context(nginx(worker.socket, processes=processes)), model=MODEL)
        if with_litellm:
            console.print("  LiteLLM's proxy")
            key = next(iter(gateways.values())).key
            others["LiteLLM"] = Question(port=up.enter_context(litellm(worker.port, model=MODEL, key=key)), model=MODEL, key=key)
        yield Field(others=others, gateways=gateways)


def closed_rows(asked: Field) -> list[Row]:
    """Let 1, 16 and 64 callers ask each server in turn, several times, and take the medians."""
    own = asked.gateways[min(asked.gateways)]
    servers = {**asked.others, "Windlass": own}
    rows = []
    for clients in CLIENTS:
        rates: dict[str, list[Rate]] = {name: [] for name in servers}
        for number in range(ROUNDS if clients == GOAL_CLIENTS else 1):
            for name, question in servers.items():
                if name == "LiteLLM" and (number or clients != GOAL_CLIENTS):
                    continue  # one slow round tells as much as three
                console.print(f"  {clients} clients, round {number + 1}: {name}")
                seconds = LITELLM_S if name == "LiteLLM" else CLOSED_S
                rates[name].append(closed(question, clients=clients, seconds=seconds))
        rows += _rate_rows(clients, {name: statistics.median(r.per_s for r in found) for name, found in rates.items() if found})
        waits_s = [rate.p99_s for rate in rates["Windlass"]]
        rows.append(Row(name=f"{clients} clients, Windlass: p99", value=statistics.median(waits_s) * 1e3, unit="ms"))
    return rows


def open_rows(asked: Field) -> list[Row]:
    """Ask 200 times a second whether or not answers have come, and compare with the worker alone and among the gateways."""
    worker = asked.others["worker alone"]
    bare: list[float] = []
    took_s: dict[int, list[list[float]]] = {count: [] for count in asked.gateways}
    for number in range(ROUNDS):
        console.print(f"  {OPEN_PER_S:g} requests a second, round {number + 1}")
        bare += opened(worker, per_s=OPEN_PER_S, seconds=OPEN_S)
        for count, question in asked.gateways.items():
            took_s[count].append(opened(question, per_s=OPEN_PER_S, seconds=OPEN_S))
    alone = latency(bare)
    rows = [
        Row(name="200 a second, worker alone: p50", value=alone.median_s * 1e3, unit="ms"),
        Row(name="200 a second, worker alone: p99", value=alone.p99_s * 1e3, unit="ms"),
    ]
    few = min(took_s)
    added_ms: dict[int, float] = {}
    for count, rounds in took_s.items():
        seen = latency([one for each in rounds for one in each])
        median_ms, added_ms[count] = (seen.median_s - alone.median_s) * 1e3, (seen.p99_s - alone.p99_s) * 1e3
        name = f"200 a second, {count:,} models: added"
        if count == few:
            rows.append(at_most(f"{name} at p50", median_ms, "ms", MEDIAN_MS, published="< 50 ms"))
            rows.append(at_most(f"{name} at p99", added_ms[count], "ms", P99_MS))
        else:
            rows.append(Row(name=f"{name} at p50", value=median_ms, unit="ms"))
            rows.append(Row(name=f"{name} at p99", value=added_ms[count], unit="ms"))
    most = max(added_ms)
    if most != few:
        times = added_ms[most] / added_ms[few]
        rows.append(at_most(f"200 a second, {most:,} models against {few:,}: p99 added", times, "x", MANY_MODELS_TIMES))
    return rows


def measure(*, registered: tuple[int, ...] = REGISTERED, with_litellm: bool = True) -> list[Row]:
    """Measure everything in one run."""
    with field(registered=registered, with_litellm=with_litellm) as asked:
        return [*closed_rows(asked), *open_rows(asked)]


def main(
    quick: Annotated[bool, typer.Option(help="Without LiteLLM, and with 10 models only.")] = False,  # noqa: FBT002  # an option
) -> None:
    """Compare the gateway with the bare worker, nginx and LiteLLM's proxy."""
    rows = measure(registered=REGISTERED[:1], with_litellm=False) if quick else measure()
    if not publish("gateway", "the gateway in front of a worker that answers at once", rows):
        raise typer.Exit(1)


def _rate_rows(clients: int, rates: Mapping[str, float]) -> list[Row]:
    own, proxy = rates["Windlass"], rates["nginx, one process a core"]
    limit = f"{rates['worker alone']:,.0f} (the worker alone)"
    rows = [
        Row(name=f"{clients} clients, {name}", value=rate, unit="req/s") for name, rate in rates.items() if name != "Windlass"
    ]
    if clients != GOAL_CLIENTS:
        return [*rows, Row(name=f"{clients} clients, Windlass", value=own, unit="req/s", limit=limit)]
    rows.append(at_least(f"{clients} clients, Windlass", own, "req/s", RATE_PER_S, limit=limit))
    rows.append(at_least(f"{clients} clients, Windlass against nginx", own / proxy, "x", round(NGINX_SHARE, 3)))
    if litellm_rate := rates.get("LiteLLM"):
        rows.append(at_least(f"{clients} clients, Windlass against LiteLLM", own / litellm_rate, "x", LITELLM_TIMES))
    return rows


def _is_quiet(running: Stack) -> bool:
    """Say whether as many containers exist as are made ahead, or as there are models."""
    made = output(places.workers_argv(running.place)).split()
    return len(made) >= min(64, len(running.api.get("/v1/models")["data"]))


if __name__ == "__main__":
    typer.run(main)
