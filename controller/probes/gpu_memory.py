"""What each process has of the GPUs' memory, by whichever way this box tells it."""

from collections.abc import Mapping
from typing import Final

from controller.device import Device, Family
from controller.gpu_memory import GpuReading
from controller.probes import nvidia, nvmap
from controller.probes.system import System

LEAST_INTERVAL_S: Final = 1.0
"""Ask no more often: on an Orin the question holds up whoever allocates, on the others it starts a program."""


def read_gpu_memory(system: System, device: Device) -> GpuReading | None:
    """
    Return what each process holds; `None` where nobody tells.

    It blocks, for seconds if a driver is slow. On a Jetson these bytes are part of the box's memory, and may be part of what the
    container is charged: `Device.gpu_memory_charged`.
    """
    match device.family:
        case Family.NONE:
            return None
        case Family.ORIN:
            clients = nvmap.read_clients(system)
            return None if clients is None else GpuReading(held_bytes={pid: {0: held} for pid, held in clients.items()})
        case Family.THOR | Family.DISCRETE:
            return _by_card(system, device)


def _by_card(system: System, device: Device) -> GpuReading | None:
    taken = nvidia.read_processes(system)
    if taken is None:
        return None
    indices = {gpu.uuid: gpu.index for gpu in device.gpus if gpu.uuid}
    return GpuReading(
        held_bytes={pid: _indexed(held, indices) for pid, held in taken.items()},
        used_bytes={} if device.unified else nvidia.read_used(system),
    )


def _indexed(held: Mapping[str, int], indices: Mapping[str, int]) -> dict[int, int]:
    """Name GPUs by their indices; what has none here counts as the first, which on a Jetson is the only one."""
    by_index: dict[int, int] = {}
    for uuid, held_bytes in held.items():
        index = indices.get(uuid, 0)
        by_index[index] = by_index.get(index, 0) + held_bytes
    return by_index
