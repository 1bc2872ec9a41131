"""The driver under test on the real engine, and one sealed worker that most tests look into."""

from collections.abc import AsyncIterator

import pytest

from controller.drivers.docker import DockerDriver
from controller.spec import ModelName
from tests.fakeworker.place import Place

MODEL = ModelName("sealed")
NEIGHBOUR = ModelName("neighbour")


@pytest.fixture
async def driver(owner: str) -> AsyncIterator[DockerDriver]:
    """Give the test a driver of its own."""
    here = DockerDriver(owner)
    yield here
    await here.close()


@pytest.fixture
async def worker(driver: DockerDriver, place: Place) -> Place:
    """Run one sealed worker, with a neighbour whose directories lie beside its own, and return the place they are in."""
    await driver.create(place.spec(NEIGHBOUR))
    (place.root / "models" / NEIGHBOUR / "weights").write_text("the neighbour's weights")
    (place.root / "kv" / NEIGHBOUR / "conversation").write_text("the neighbour's conversation")
    await driver.create(place.spec(MODEL))
    (place.root / "models" / MODEL / "weights").write_text("its own weights")
    await driver.start(MODEL)
    await place.ready(MODEL)
    return place
