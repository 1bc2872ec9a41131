"""What each process has of the GPU's memory, by whichever way this box tells it."""

from collections.abc import Mapping

from controller.device import Device, Family
from controller.probes import nvidia, nvmap
from controller.probes.system import System

LEAST_INTERVAL_S = 1.0
"""Ask no more often: on an Orin the question holds up whoever allocates, on the others it starts a program."""


def read_gpu_memory(system: System, device: Device) -> Mapping[int, int] | None:
    """
    Return bytes of GPU memory by process, as the host numbers them; `None` where nobody tells.

    It blocks, for seconds if a driver is slow. On a Jetson these bytes are part of the box's memory, and may be part of what the
    container is charged: `Device.gpu_memory_charged`.
    """
    match device.family:
        case Family.NONE:
            return None
        case Family.ORIN:
            return nvmap.read_clients(system)
        case Family.THOR | Family.DISCRETE:
            return nvidia.read_processes(system)
