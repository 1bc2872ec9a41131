"""The OpenAPI document, checked against the gateway by making up requests from it."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation as Operation

from controller.config import Settings
from controller.gateway.app import PATHS, build
from controller.gateway.lease import Session
from tests.gateway.conftest import World, running

DOCUMENT = build(Settings(), Session("/nonexistent")).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a gateway in a thread of its own, since what makes up requests is not asynchronous."""
    folder = tmp_path_factory.mktemp("document")
    ready: Future[tuple[World, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        async with running(folder) as world:
            kept = ("conversations.list", "conversations.delete", "conversations.clear")
            builds = ("build", "builds", "builds.cancel")
            for verb in ("performance", "plan", "load", "unload", "optimize", "logs", "metrics", *kept, *builds):
                world.controller.answers[verb] = {}
            ended = asyncio.Event()
            ready.set_result((world, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = Thread(target=lambda: asyncio.run(live()))
    thread.start()
    world, loop, ended = ready.result(timeout=20)
    yield f"http://127.0.0.1:{world.port}"
    loop.call_soon_threadsafe(ended.set)
    thread.join(timeout=20)


CASES = [
    pytest.param(operation, mode, id=f"{operation.label}-{mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.body or operation.query
]


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_no_made_up_request_finds_a_bug(url: str, operation: Operation, mode: GenerationMode) -> None:
    """Valid or not, it is answered with a documented status below 500, and an error has the envelope."""
    documented = set(operation.definition.raw["responses"])

    @settings(
        max_examples=15,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        answer = case.call(base_url=url, timeout=20, allow_redirects=False)
        assert answer.status_code < 500, answer.text
        assert str(answer.status_code) in documented, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}

    check()


def test_every_path_is_documented_with_a_summary() -> None:
    """What is served and what is written are the same table."""
    for path in PATHS:
        operation = DOCUMENT["paths"][path.path][path.method.lower()]

        assert operation["summary"] == path.summary
        assert ("requestBody" in operation) == (path.body is not None)
