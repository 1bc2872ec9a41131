"""What the box is, put together from what it tells; `windlass check` on the host and the controller see the same."""

from dataclasses import replace
from fnmatch import fnmatch
from typing import Final

from controller.device import Device, Family, Gpu, GpuAccess
from controller.drivers.base import EngineInfo
from controller.probes import jetson, nvidia, packages
from controller.probes.system import System

_INTEGRATED: Final = {Family.ORIN: Gpu(index=0, name="Orin", sm="87"), Family.THOR: Gpu(index=0, name="Thor", sm="110")}
_RUNTIME: Final = "nvidia"
_CDI_NAME: Final = "nvidia.com/gpu="
_TOOLKIT: Final = "nvidia-container-toolkit"
_TENSORRT: Final = r"libnvinfer\d+"
_NODES: Final = {
    "/dev": ("nvmap", "nvhost-gpu", "nvhost-ctrl-gpu", "nvhost-as-gpu", "nvidia[0-9]*", "nvidiactl", "nvidia-uvm"),
    "/dev/nvgpu/igpu0": ("as", "channel", "ctrl", "power", "sched", "tsg"),
    "/dev/dri": ("renderD*",),
}
"""What CUDA opens, by folder; nodes for debugging and profiling, which have groups of their own, are left out."""


def read_device(system: System, engine: EngineInfo | None) -> Device:
    """
    Tell what the box is, and how a container of *engine* gets at its GPU; it does not if no engine answers.

    Whether GPU memory is charged to a container is not known from looking: `probes/trial.py` tries it.
    """
    machine = system.run(("uname", "-m"))
    architecture = machine.out.strip() if machine else engine.architecture if engine else ""
    board = jetson.read_jetson(system)
    if board is not None:
        device = Device(
            architecture=architecture,
            family=board.family,
            board=board.board,
            module=board.module,
            l4t=board.l4t,
            jetpack=board.jetpack,
            cuda=board.cuda,
            gpus=(_INTEGRATED[board.family],) if board.family in _INTEGRATED else (),
        )
    else:
        cards = nvidia.read_cards(system)
        device = Device(
            architecture=architecture,
            family=Family.DISCRETE if cards.gpus else Family.NONE,
            driver=cards.driver,
            cuda=cards.cuda,
            gpus=cards.gpus,
        )
    return _reachable(device, system, engine)


def _reachable(device: Device, system: System, engine: EngineInfo | None) -> Device:
    if not device.gpus:
        return device
    return replace(
        device,
        access=_access(device.family, system, engine) if engine else GpuAccess.NONE,
        gpu_groups=tuple(sorted(_groups(system))),
        tensorrt=_tensorrt(system),
    )


def _access(family: Family, system: System, engine: EngineInfo) -> GpuAccess:
    """Prefer NVIDIA's runtime, the documented way on a Jetson, to CDI; and both to what works only where neither is set up."""
    if _RUNTIME in engine.runtimes:
        return GpuAccess.RUNTIME
    told = any(name.startswith(_CDI_NAME) for name in engine.cdi_devices)
    if told or (not engine.cdi_devices and any(_has_specification(system, folder) for folder in engine.cdi_folders)):
        return GpuAccess.CDI
    if family is Family.DISCRETE and packages.version_of(system, _TOOLKIT):
        return GpuAccess.REQUEST
    return GpuAccess.NONE


def _has_specification(system: System, folder: str) -> bool:
    return any(fnmatch(name, "*nvidia*.yaml") or fnmatch(name, "*nvidia*.json") for name in system.names(folder))


def _groups(system: System) -> set[int]:
    """Return the groups that may open what CUDA opens; root's own is no group to give away."""
    groups = set()
    for folder, patterns in _NODES.items():
        for name in system.names(folder):
            if any(fnmatch(name, pattern) for pattern in patterns):
                groups.add(system.group(f"{folder}/{name}") or 0)
    return groups - {0}


def _tensorrt(system: System) -> str:
    """Return the version of TensorRT on the host, such as `10.3.0.30`; the newest where there are several."""
    found = (version.partition("-")[0] for version in packages.versions(system, _TENSORRT).values())
    return max(found, key=lambda version: [int(part) for part in version.split(".") if part.isdecimal()], default="")
