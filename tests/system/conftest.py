"""The stacks that the tests share, and how they are told apart from everything else on the engine."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.stack import PROJECT, Stack, place_model, stack, wait_until
from tests.conftest import _FAILED
from tests.system.talk import PATIENCE_S, Caller, exists, settle

MINI = PROJECT / "images" / "windlass-mini" / "gguf"
CHECKPOINT = PROJECT / "images" / "windlass-mini" / "safetensors"
GOLDEN = PROJECT / "tests" / "golden" / "windlass_mini.json"

NAME = "windlass-mini"
TWIN = "twin"
WIDE = "wide"
GIANT = "giant"
VECTORS = "vectors"

CONFIG = """
[scheduler]
max_failures = 3
backoff_s = 0.2
quantum_s = 2
min_residency_s = 1

[engines.llama-cpp]
threads = 1

[engines.transformers]
threads = 1
"""
"""Failures are tried again and given up sooner than by default, and one thread is enough: tests must not wait for either."""

MODELS = {
    # The weights of all of them are the built-in model's; what is said about their memory is what makes them large or small.
    NAME: (MINI, 'memory = "100MiB"\n'),
    TWIN: (MINI, 'memory = "100MiB"\nparallel = 4\ntags = ["pair"]\n'),
    WIDE: (MINI, 'memory = "850MiB"\ntier = "large"\n'),
    GIANT: (MINI, 'memory = "64GiB"\n'),
    VECTORS: (CHECKPOINT, 'memory = "850MiB"\n'),
}
BUDGET = "900MiB"

Place = Callable[..., str]


def bring_up(running: Stack) -> None:
    """Drop the models' folders into a running stack and wait until they are registered."""
    for name, (source, manifest) in MODELS.items():
        place_model(source, running.models / name, manifest=manifest)
    running.wait_for_models(*MODELS)


@pytest.fixture(scope="session")
def shared() -> Iterator[Stack]:
    """Run one stack for all tests that leave it as they found it."""
    with stack("test", budget=BUDGET, config=CONFIG) as running:
        bring_up(running)
        yield running


@pytest.fixture
def world(request: pytest.FixtureRequest, shared: Stack) -> Iterator[Stack]:
    """Give the test the shared stack, at rest, and show what its processes wrote if the test fails."""
    settle(shared)
    yield shared
    if request.node.stash.get(_FAILED, False):
        for service in ("controller", "gateway"):
            lines = shared.logs(service).splitlines()[-60:]
            print(f"--- the last words of the {service}", *lines, sep="\n")  # noqa: T201 -- pytest shows it with the failure


@pytest.fixture
def caller(world: Stack) -> Iterator[Caller]:
    """Return a caller of the shared stack's gateway."""
    made = Caller(world.url)
    yield made
    made.close()


@pytest.fixture
def place(world: Stack) -> Iterator[Place]:
    """
    Return a function that registers a model of the test's own, and take these models away afterwards.

    It takes the model's name and the text of its manifest.
    """
    placed: list[str] = []

    def put(name: str, manifest: str = 'memory = "100MiB"\n', *, source: Path = MINI) -> str:
        placed.append(name)
        place_model(source, world.models / name, manifest=manifest)
        world.wait_for_models(name)
        return name

    yield put
    for name in placed:
        shutil.rmtree(world.models / name, ignore_errors=True)
        # A worker frozen by its test would not be noticed before long.
        subprocess.run(["docker", "unpause", world.worker(name)], capture_output=True, check=False)
    for name in placed:
        wait_until(lambda: not exists(world.worker(name)), f"the container of {name} is gone", PATIENCE_S)  # noqa: B023 -- used here


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """Return what the built-in model says at temperature 0, as it was written down when it was made."""
    return list(json.loads(GOLDEN.read_text(encoding="utf-8")))
