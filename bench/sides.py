"""
The same models behind Windlass and behind llama.cpp's own router, up side by side, and one way to ask either.

Side by side, so that measurements can take turns: what else a machine does then meets both. Whoever is not asked does nothing.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bench.disk import cached_share, warm_pages
from bench.router import Router, router
from bench.stack import Stack, place_model, stack
from bench.supply import weights_of

MANIFEST: Final = 'context = 1024\nmemory = "800MiB"\n'
FIRST_MIB: Final = 900
EACH_MIB: Final = 800
"""The budget for one model of 0.5 billion parameters at 8 bits, and for each one more."""
PATIENCE_S: Final = 600.0
WARM_SHARE: Final = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request; `failure` is empty where it was answered."""

    model: str
    asked_s: float
    seconds: float
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides, up and running, every model having been loaded once on each."""

    windlass: Stack
    router: Router
    folders: Mapping[str, Path]


@contextlib.contextmanager
def sides(folders: Mapping[str, Path], *, resident: int) -> Iterator[Sides]:
    """Bring up both sides with memory for *resident* models, and load each model once on each; the last one stays."""
    weights = {name: weights_of(folder) for name, folder in folders.items()}
    for file in weights.values():
        warm_pages(file)
        if cached_share(file) < WARM_SHARE:
            raise SystemExit(f"{file} does not stay in the page cache; this needs more free memory than the models together take")
    with stack("sides", budget=f"{FIRST_MIB + EACH_MIB * (resident - 1)}MiB") as windlass:
        for name, folder in folders.items():
            place_model(folder, windlass.models / name, manifest=MANIFEST)
        windlass.wait_for_models(*folders)
        for name in folders:
            require(windlass.url, name)
        argv, environ = windlass.worker_command(next(iter(folders)))
        with router(weights, most=resident, worker_argv=argv, environ=environ) as other:
            for name in folders:
                require(other.url, name)
            yield Sides(windlass=windlass, router=other, folders=folders)


def require(url: str, name: str) -> None:
    """Ask a model once, and end the measurement if it does not answer."""

    async def once() -> Answer:
        async with session() as http:
            return await ask(http, url, name, "The ship", tokens=1, began_s=time.monotonic())

    if (answer := asyncio.run(once())).failure:
        raise SystemExit(f"{url} does not serve: {answer.failure}")


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client without a limit of its own."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        yield http


async def ask(http: aiohttp.ClientSession, url: str, name: str, prompt: str, *, tokens: int, began_s: float) -> Answer:
    """Ask one model and say what came: an answer that is short, refused or another model's is a failure."""
    asked_s = time.monotonic()
    body = {"model": name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    try:
        async with http.post(f"{url}/v1/completions", json=body) as response:
            failure = failure_of(name, tokens, response.status, await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        failure = f"{name}: {type(exc).__name__}: {exc}"
    return Answer(model=name, asked_s=asked_s - began_s, seconds=time.monotonic() - asked_s, failure=failure)


def failure_of(name: str, tokens: int, status: int, content: bytes) -> str:
    """Say what is wrong with an answer; nothing if it is this model's and has all its tokens."""
    try:
        answer = json.loads(content)
        if status == 200 and answer["model"] == name and answer["usage"]["completion_tokens"] == tokens:
            return ""
    except (ValueError, LookupError, TypeError):
        pass
    return f"{name}: status {status}: {content[:200]!r}"
