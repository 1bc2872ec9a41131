"""
What the controller's container must see of a host with a GPU, as one more Compose file. Pure.

Each path is mounted under `/run/host`, read-only, and only where it exists: an engine would make a missing one, as a folder.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.device import Device, Family, GpuAccess
from controller.probes import jetson, nvmap, packages, power
from controller.probes.system import HOST_FILES

_PACKAGES: Final = packages.STATUS_FILE.rpartition("/")[0]
"""The folder and not the file: dpkg replaces the file, and a mounted one would stay the old one."""
_DEBUGGING: Final = nvmap.FOLDER.rpartition("/")[0]
JETSON_PATHS: Final = (
    jetson.RELEASE_FILE,
    jetson.DEVICE_TREE,
    power.CONFIGURATION,
    power.STATUS.rpartition("/")[0],
    _DEBUGGING,
    "/dev",
)
"""Who it is, how fast it may be, what its GPU holds, and whose its device nodes are: the engine lets the container open none."""
GPU_PATHS: Final = (_PACKAGES, "/etc/cdi")
"""The versions of TensorRT and the container toolkit, and what names the engine knows for GPUs."""


def host_compose(device: Device, *, is_jetson: bool, exists: Callable[[str], bool]) -> Mapping[str, Any] | None:
    """
    Return what is added to the controller's service on this host; `None` where nothing is.

    Args:
        device: what `windlass check` sees of the host.
        is_jetson: it is one, whether we can use its GPU or not.
        exists: whether the host has a path.

    """
    paths = [*(JETSON_PATHS if is_jetson else ()), *(GPU_PATHS if is_jetson or device.gpus else ())]
    service: dict[str, Any] = {"volumes": [_mount(path) for path in paths if exists(path)], **_management(device)}
    return {"services": {"controller": service}} if paths else None


def write(content: Mapping[str, Any]) -> str:
    """Write a Compose file; JSON is YAML, too."""
    return json.dumps(content, indent=2) + "\n"


def _mount(path: str) -> Mapping[str, Any]:
    return {"type": "bind", "source": path, "target": f"{HOST_FILES}{path}", "read_only": True}


def _management(device: Device) -> Mapping[str, Any]:
    """
    Give the controller NVIDIA's management library where only that tells who holds a GPU's memory, and nothing to compute with.

    It tells the processes of its own namespace alone, so the controller must be in the host's.
    """
    if device.family not in (Family.DISCRETE, Family.THOR) or device.access is GpuAccess.NONE:
        return {}
    match device.access:
        case GpuAccess.RUNTIME:
            way: Mapping[str, Any] = {
                "runtime": "nvidia",
                "environment": {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility"},
            }
        case GpuAccess.CDI:
            way = _reservation({"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]})
        case GpuAccess.REQUEST:
            way = _reservation({"driver": "nvidia", "count": -1, "capabilities": ["utility"]})
    return {"pid": "host", **way}


def _reservation(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"deploy": {"resources": {"reservations": {"devices": [request]}}}}
