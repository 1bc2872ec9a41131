"""What the real engine says of itself, and what the box is by that."""

import pytest

from controller.drivers.docker import DockerDriver
from controller.probes.device import read_device
from controller.probes.gpu_memory import read_gpu_memory
from controller.probes.system import LocalSystem

pytestmark = pytest.mark.engine


async def test_the_real_engine_and_the_real_files_make_a_device(driver: DockerDriver) -> None:
    """Its answer is taken apart, and names of GPUs follow only where both of them know one."""
    engine = await driver.info()
    system = LocalSystem()
    device = read_device(system, engine)

    assert "runc" in engine.runtimes
    assert engine.architecture == device.architecture
    assert device.has_gpu == bool(device.requests())
    assert (read_gpu_memory(system, device) is None) or device.gpus
