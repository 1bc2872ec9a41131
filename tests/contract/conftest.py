"""One rig for each driver: the suite runs once with each."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.rigs import DockerRig, MemoryRig, Rig


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
async def rig(request: pytest.FixtureRequest, owner: str) -> AsyncIterator[Rig]:
    """Give the test a driver and the world behind it."""
    if request.param == "memory":
        memory = MemoryRig(owner)
        yield memory
        await memory.close()
    else:
        real = DockerRig(request.getfixturevalue("place"))
        await real.line.open()
        yield real
        await real.close()
