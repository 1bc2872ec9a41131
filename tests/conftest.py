"""What every ring of tests shares: Hypothesis profiles, and the real engine for those that need it."""

import asyncio
import os
import secrets
from collections.abc import Generator, Iterator

import docker
import docker.errors
import pytest
import requests
from hypothesis import HealthCheck, Phase, settings

from tests.fakeworker import image
from tests.fakeworker.place import Place

settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None, print_blob=True)
settings.register_profile(
    "ci",
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "night",
    settings.get_profile("ci"),
    max_examples=10_000,
    stateful_step_count=100,
    phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],  # fresh examples, not the ones seen before
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# pytest-asyncio asks for the current event loop before its own; Python would make one for that, and nobody would close it.
asyncio.set_event_loop(None)

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether a test failed, for fixtures that then have something to tell."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.APIClient]:
    """Connect to the real engine; without one the tests that need it are errors, never skipped."""
    try:
        client = docker.APIClient(version="auto", timeout=120)
    except (docker.errors.DockerException, requests.RequestException) as exc:
        pytest.fail(f"this test needs a Docker Engine, and none answers: {exc}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def fake_image(engine: docker.APIClient) -> str:
    """Make the fake worker's image if needed and return its tag."""
    return image.ensure(engine)


@pytest.fixture
def owner() -> str:
    """Return an owner label that no other test has."""
    return f"wt-{secrets.token_hex(4)}"


@pytest.fixture
def place(request: pytest.FixtureRequest, engine: docker.APIClient, fake_image: str, owner: str) -> Iterator[Place]:
    """Give the test a corner of the engine, tell what is in it if the test fails, and clear it away."""
    here = Place(engine, owner=owner, image=fake_image)
    yield here
    if request.node.stash.get(_FAILED, False):
        print(here.report())  # noqa: T201 -- pytest shows it with the failure
    here.clear()
