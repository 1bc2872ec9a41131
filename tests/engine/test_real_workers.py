"""The engines' own servers, sealed and limited as they are served: every flag is taken, and the estimate is enough."""

import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from controller import engines
from controller.config import Settings, load_settings
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.spec import ModelSpec
from controller.store import workdirs
from controller.store.catalog import Scanner
from tests.fakeworker import client
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

BUILT_IN = Path(__file__).parents[2] / "images/windlass-mini"
PATIENCE_S = 200.0
"""A start of torch on a busy machine."""

WEIGHTS = pytest.mark.parametrize("weights", ["gguf", "safetensors"])


def described(place: Place, weights: str) -> tuple[ModelSpec, Settings]:
    """Register the built-in model as an operator would, and return what the catalog makes of it."""
    shutil.copytree(BUILT_IN / weights, place.root / "models/mini")
    settings = load_settings({**os.environ, "WINDLASS_HOME": str(place.root)})
    catalog = Scanner(settings, now=lambda: time.time() + 3600).scan()

    assert () == catalog.problems
    return catalog.models[0], settings


async def served(model: ModelSpec, settings: Settings, place: Place, driver: DockerDriver) -> None:
    """Run the worker that the engine describes, with the limit that its estimate sets."""
    site = Site(
        image=settings.engine(model.engine).image,
        run_root=PurePosixPath(place.root / "workers"),
        kv_root=PurePosixPath(place.root / "kv"),
        threads=2,
    )
    spec = engines.find(model.engine).worker(model, site)
    workdirs.prepare(spec)
    await driver.create(spec)
    await driver.start(model.name)
    await until(f"{model.name} answers", lambda: client.is_ready(Path(spec.socket)), deadline_s=PATIENCE_S)


def complete(place: Place, model: ModelSpec, *, prompt_tokens: int) -> tuple[int, Any]:
    """Ask for a few tokens after a prompt of this length."""
    prompt = [1 + number % 1000 for number in range(prompt_tokens)]
    return client.ask(
        place.socket(model.name), "POST", "/v1/completions", {"prompt": prompt, "max_tokens": 4}, timeout_s=PATIENCE_S
    )


@WEIGHTS
async def test_estimate_is_enough_and_nothing_is_cut(place: Place, driver: DockerDriver, weights: str) -> None:
    """A worker limited to its estimate serves a full context within it, and refuses a longer prompt rather than cut it."""
    model, settings = described(place, weights)
    await served(model, settings, place, driver)

    status, body = complete(place, model, prompt_tokens=model.context_tokens - 8)
    usage = await driver.usage(model.name)
    refused, answer = complete(place, model, prompt_tokens=model.context_tokens + 50)

    assert (200, model.context_tokens - 8) == (status, body["usage"]["prompt_tokens"])
    assert usage.limit_bytes <= model.footprint.total_bytes
    assert usage.anon_bytes < model.footprint.private_bytes
    assert (400, True) == (refused, str(model.context_tokens) in answer["error"]["message"])


async def test_llama_cpp_saves_a_conversation(place: Place, driver: DockerDriver) -> None:
    """The KV directory is where the server writes what it has read, and it reads it again."""
    model, settings = described(place, "gguf")
    await served(model, settings, place, driver)
    socket = place.socket(model.name)
    client.ask(socket, "POST", "/v1/completions", {"prompt": "The cat sat on the mat and", "max_tokens": 4}, timeout_s=PATIENCE_S)

    saved, _ = client.ask(socket, "POST", "/slots/0?action=save", {"filename": "talk"}, timeout_s=PATIENCE_S)
    restored, body = client.ask(socket, "POST", "/slots/0?action=restore", {"filename": "talk"}, timeout_s=PATIENCE_S)

    assert (200, 200, True) == (saved, restored, (place.root / "kv/mini/talk").is_file())
    assert body["n_restored"] > 4
