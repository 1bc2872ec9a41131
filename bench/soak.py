"""
Three minutes of hostile load on five models of which two fit: `make soak`.

200 clients ask for models in turn, streaming and not; a tenth of them hang up, queued or in the middle. On the way two workers
and the controller are killed. Every request must end: with the whole answer of the model it asked for, or, where its worker was
killed under it, with an error that says so. Any other error counts as lost, and so does a busy sign: the queue has room for all.

A wait is held against its published bound twice: by the client's own clock, from sending the request to the head of the answer,
which comes with the first token of a stream and after the last one of a whole answer; and as the controller counts it.
"""

import asyncio
import contextlib
import itertools
import json
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import aiohttp
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.rows import Row, at_most, console, exactly, publish
from bench.stack import PROJECT, Stack, place_model, stack, wait_until
from controller.errors import WindlassError

MODELS: Final = tuple(f"mini-{letter}" for letter in "abcde")
MINI: Final = PROJECT / "images" / "windlass-mini" / "gguf"
MANIFEST: Final = 'memory = "100MiB"\nparallel = 4\n'
CONFIG: Final = """
[scheduler]
request_limit_s = 30
quantum_s = 2
min_residency_s = 1

[engines.llama-cpp]
threads = 1
"""
BUDGET: Final = "220MiB"
HANG_UP_SHARE: Final = 0.1
TOKENS: Final = 16
TOLD: Final = frozenset({"worker_failed", "worker_out_of_memory"})
"""Codes of the errors that a killed worker explains."""
SUBJECTS: Final = ("The ship", "The captain", "A windlass", "The sea", "The old man", "My friend", "The harbour", "A rope")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One wait: by the client's clock up to the head of its answer, as the controller counts it, and what was promised."""

    own_s: float
    told_s: float
    bound_s: float


@dataclass(slots=True)
class Tally:
    """What became of all requests."""

    asked: int = 0
    answered: int = 0
    hung_up: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong_model: int = 0
    duplicated: int = 0
    per_model: Counter[str] = field(default_factory=Counter)
    waits: list[Wait] = field(default_factory=list)
    texts: dict[str, set[str]] = field(default_factory=dict)


class Client:
    """One caller that asks again as soon as it was answered."""

    def __init__(self, number: int, session: aiohttp.ClientSession, url: str, tally: Tally) -> None:
        """Make its choices from its own number, so that a run can be repeated."""
        self._dice = random.Random(number)  # noqa: S311  # a load, not a secret
        self._models = itertools.islice(itertools.cycle(MODELS), number % len(MODELS), None)
        self._session = session
        self._url = url
        self._tally = tally

    async def run(self, until_s: float) -> None:
        """Ask until the time is over."""
        while time.monotonic() < until_s:
            model, prompt = next(self._models), self._dice.choice(SUBJECTS)
            stream = self._dice.random() < 0.5
            patience_s = self._dice.uniform(0.0, 3.0) if self._dice.random() < HANG_UP_SHARE else None
            self._tally.asked += 1
            try:
                async with asyncio.timeout(patience_s):
                    await self._ask(model, prompt, stream=stream)
            except TimeoutError:
                self._tally.hung_up += 1
            except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError) as exc:
                self._tally.lost.append(f"{type(exc).__name__}: {exc}")

    async def _ask(self, model: str, prompt: str, *, stream: bool) -> None:
        body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": stream}
        asked_s = time.monotonic()
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            own_s = time.monotonic() - asked_s
            if response.status != 200:
                self._note_error(model, (await response.json()).get("error"), response.status)
                return
            self._note_wait(response.headers, own_s)
            text, models, finished, error = await (self._read_stream(response) if stream else self._read_whole(response))
        if error is not None:
            self._note_error(model, error, response.status)
        elif finished != 1:
            kind = "no end" if finished == 0 else "two ends"
            self._tally.lost.append(f"{model}: an answer with {kind}")
            self._tally.duplicated += finished > 1
        else:
            self._tally.answered += 1
            self._tally.per_model[model] += 1
            self._tally.wrong_model += models != {model}
            self._tally.texts.setdefault(prompt, set()).add(text)

    async def _read_whole(self, response: aiohttp.ClientResponse) -> tuple[str, set[str], int, object]:
        answer = await response.json()
        return answer["choices"][0]["text"], {answer["model"]}, len(answer["choices"]), None

    async def _read_stream(self, response: aiohttp.ClientResponse) -> tuple[str, set[str], int, object]:
        text, finished = "", 0
        models: set[str] = set()
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                break
            event = json.loads(data)
            if "error" in event:
                return text, models, finished, event["error"]
            models.add(event["model"])
            for choice in event["choices"]:
                text += choice["text"]
                finished += choice.get("finish_reason") is not None
        return text, models, finished, None

    def _note_error(self, model: str, error: object, status: int) -> None:
        """Count an error as told if it names the worker that failed, in a 502 or in a stream that had begun (200)."""
        said = error if isinstance(error, dict) else {}
        details = said.get("details")
        named = isinstance(details, dict) and details.get("model") == model
        code = said.get("code")
        if status in (200, 502) and code in TOLD and named:
            self._tally.broken[f"{status} {code}"] += 1
        else:
            self._tally.lost.append(f"{model}: status {status}, {code}: {said.get('message')}")

    def _note_wait(self, headers: Any, own_s: float) -> None:  # noqa: ANN401  # aiohttp's headers
        told_s = float(headers["x-windlass-waited-ms"]) / 1000
        self._tally.waits.append(Wait(own_s=own_s, told_s=told_s, bound_s=float(headers["x-windlass-bound-s"])))


async def disturb(running: Stack, seconds: float) -> None:
    """Kill a worker, the controller, and another worker, spread over the run."""
    began_s = time.monotonic()
    for share, what in ((0.3, "worker"), (0.5, "controller"), (0.7, "worker")):
        await asyncio.sleep(max(0.0, began_s + share * seconds - time.monotonic()))
        if what == "controller":
            await asyncio.to_thread(running.kill_controller)
            console.print("  killed the controller (SIGKILL); the engine has started it again")
        else:
            victim = await asyncio.to_thread(_kill_busy_worker, running)
            console.print(f"  killed the worker {victim} (docker kill)")


def _kill_busy_worker(running: Stack) -> str:
    while True:
        workers = []
        with contextlib.suppress(WindlassError):  # the controller that was killed before may still be on its way back
            workers = [w for w in running.api.get("/status")["workers"] if w["status"] == "ready"]
        for worker in sorted(workers, key=lambda w: -int(w["leases"])):
            argv = ["docker", "kill", running.worker(worker["model"])]
            if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
                return f"{worker['model']}, which served {worker['leases']} callers,"
        time.sleep(0.2)


async def load(running: Stack, *, clients: int, seconds: float) -> Tally:
    """Run all clients and the disturbances, with a bar."""
    tally = Tally()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        until_s = time.monotonic() + seconds
        with _progress() as progress:
            bar = progress.add_task(f"{clients} clients", total=seconds)

            async def show() -> None:
                while (left_s := until_s - time.monotonic()) > 0:
                    progress.update(bar, completed=seconds - left_s, description=f"{clients} clients, {tally.answered} answers")
                    await asyncio.sleep(0.5)
                progress.update(bar, completed=seconds, description=f"{tally.answered} answers, the last ones are on their way")

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(show())
                tasks.create_task(disturb(running, seconds))
                for number in range(clients):
                    tasks.create_task(Client(number, session, running.url, tally).run(until_s))
    return tally


def rows(tally: Tally, running: Stack, *, killed: int) -> list[Row]:
    """Turn the tally into rows, with what the stack itself says at the end."""
    status, performance = running.api.get("/status"), running.api.get("/performance")
    own, told = sorted(wait.own_s for wait in tally.waits), sorted(wait.told_s for wait in tally.waits)
    nearest = max((wait.own_s / wait.bound_s for wait in tally.waits if wait.bound_s > 0), default=0.0)
    nearest_told = max((wait.told_s / wait.bound_s for wait in tally.waits if wait.bound_s > 0), default=0.0)
    return [
        Row(name="requests", value=tally.asked),
        Row(name="answered", value=tally.answered),
        Row(name="hung up on purpose", value=tally.hung_up),
        Row(name="told why not (worker killed)", value=sum(tally.broken.values()), limit=json.dumps(tally.broken)),
        at_most("told why not, for each kill", sum(tally.broken.values()) / max(1, killed), "requests", 4 * len(MODELS)),
        exactly("lost", len(tally.lost), 0),
        exactly("duplicated", tally.duplicated, 0),
        exactly("answers of a wrong model", tally.wrong_model, 0),
        exactly("prompts with more than one answer at temperature 0", sum(len(t) > 1 for t in tally.texts.values()), 0),
        exactly("models that answered", len(tally.per_model), len(MODELS)),
        exactly("leases at the end", status["leases"], 0),
        exactly("callers waiting at the end", len(status["queue"]), 0),
        Row(name="wait, median, by the client's clock", value=own[len(own) // 2] if own else 0.0, unit="s"),
        Row(name="wait, longest, by the client's clock", value=own[-1] if own else 0.0, unit="s"),
        Row(name="wait, median, as the controller counts it", value=told[len(told) // 2] if told else 0.0, unit="s"),
        Row(name="wait, longest, as the controller counts it", value=told[-1] if told else 0.0, unit="s"),
        at_most("longest wait as a share of its published bound, by the client's clock", nearest, "", 1.0),
        Row(name="longest wait as a share of its published bound, as the controller counts it", value=nearest_told),
        Row(name="answers without a published bound", value=sum(wait.bound_s <= 0 for wait in tally.waits)),
        Row(name="loads", value=performance["totals"]["loads"], unit="since the controller's restart"),
    ]


def _progress() -> Progress:
    return Progress(TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn(), console=console)


def main(
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 200,
    seconds: Annotated[float, typer.Option(help="How long they ask.")] = 180.0,
) -> None:
    """Put five models of which two fit under hostile load, and count what becomes of every request."""
    with stack("soak", budget=BUDGET, config=CONFIG) as running:
        for name in MODELS:
            place_model(MINI, running.models / name, manifest=MANIFEST)
        running.wait_for_models(*MODELS)
        tally = asyncio.run(load(running, clients=clients, seconds=seconds))
        wait_until(lambda: running.api.get("/status")["leases"] == 0, "all leases are back", 30.0)
        result = rows(tally, running, killed=2)
    for text in sorted(set(tally.lost))[:10]:
        console.print(f"  lost: {text}")
    if not publish("soak", f"{clients} clients, {len(MODELS)} models of which two fit, {seconds:.0f} s", result):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
