"""
How a container gets at device nodes and GPUs, in the words of the Engine API. Pure.

A GPU is asked for by NVIDIA's container runtime (`nvidia=all`, `nvidia=0,1`), by its name in a specification of the Container
Device Interface (`nvidia.com/gpu=0`), or by the engine's own request (`gpus=all`): NVIDIA's hook answers that one on a box with
cards where nothing else is set up, and on a Jetson it refuses. Where there is no way, no container is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.drivers.base import EngineInfo
from controller.errors import EngineError

Body = dict[str, object]

RUNTIME: Final = "nvidia"
"""The name under which NVIDIA's runtime is registered, and of the request that uses it."""
_REQUEST: Final = "gpus"
_VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
_CAPABILITIES: Final = {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
"""CUDA and NVML: no display, no video, and none of the libraries for them."""
_NO_WAY: Final = (
    "{device!r} is wanted, and the engine has neither NVIDIA's runtime nor a folder for CDI; "
    "run `sudo nvidia-ctk runtime configure --runtime=docker` and `sudo systemctl restart docker`"
)
_NO_CDI: Final = (
    "{device!r} is wanted, and the engine has no folder for CDI; enable it with "
    "`sudo nvidia-ctk runtime configure --runtime=docker --cdi.enabled` and `sudo systemctl restart docker`"
)
_GENERATE: Final = (
    "run `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` (on a Jetson with `--mode=csv`), "
    "and again after each update of the driver"
)
_UNKNOWN_NAME: Final = f"{{device!r}} is wanted, and the engine knows {{known}}; {_GENERATE}"
_REMEDIES: Final = {
    "unresolvable cdi devices": _GENERATE,
    "failed to stat cdi host device": f"its specification names what is not there any more: {_GENERATE}",
    "could not select device driver": "NVIDIA's container toolkit is not installed, or the engine was not restarted since",
    "is not supported. please use the nvidia container runtime instead": (
        "run `sudo nvidia-ctk runtime configure --runtime=docker` and `sudo systemctl restart docker`"
    ),
}
"""What to do about what engines say when a container with a GPU is started, which they try no sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    What of the host's devices a container can open.

    Attributes:
        nodes: device nodes, at the same path inside.
        requests: what the engine itself is asked for.
        runtime: the OCI runtime; empty for the engine's default.
        env: what that runtime reads.

    """

    nodes: tuple[str, ...] = ()
    requests: tuple[Body, ...] = ()
    runtime: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def host_config(self) -> Body:
        """Say it in the part of the request that is about the host."""
        return {
            "Devices": [{"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"} for node in self.nodes],
            "DeviceRequests": list(self.requests),
            **({"Runtime": self.runtime} if self.runtime else {}),
        }


def reach(devices: Sequence[str], engine: EngineInfo) -> Reach:
    """
    Translate what a worker or a build asks for.

    Raises:
        EngineError: the engine has no way to give it.

    """
    by_runtime: list[str] = []
    by_name: list[str] = []
    requests: list[Body] = []
    for device in devices:
        kind, _, ids = device.partition("=")
        if device.startswith("/"):
            continue
        if "/" in kind:
            by_name.append(device)
        elif kind == _REQUEST:
            requests.append({"Driver": RUNTIME, "Capabilities": [["gpu"]], **_which(ids)})
        elif kind != RUNTIME:
            raise EngineError(f"wanted a device such as 'nvidia=all', 'nvidia.com/gpu=0' or '/dev/nvmap', got {device!r}")
        elif RUNTIME in engine.runtimes:
            by_runtime += ids.split(",")
        elif engine.cdi_folders:
            by_name += [f"nvidia.com/gpu={number}" for number in ids.split(",")]
        else:
            raise EngineError(_NO_WAY.format(device=device))
    if by_name:
        _check_names(by_name, engine)
        requests.append({"Driver": "cdi", "DeviceIDs": by_name})
    return Reach(
        nodes=tuple(device for device in devices if device.startswith("/")),
        requests=tuple(requests),
        runtime=RUNTIME if by_runtime else "",
        env=_environment(by_runtime, engine),
    )


def remedy(said: str) -> str:
    """Return what to do about an engine's refusal to start a container, if that is known; else nothing."""
    return next((what for words, what in _REMEDIES.items() if words in said.lower()), "")


def _which(ids: str) -> Body:
    return {"Count": -1} if ids == "all" else {"DeviceIDs": ids.split(",")}


def _environment(by_runtime: Sequence[str], engine: EngineInfo) -> Mapping[str, str]:
    """
    Return what NVIDIA's runtime reads.

    Where it is the engine's default it looks at every container, and many images ask it for all GPUs: so who asks us for none, or
    by another way, tells it to keep away.
    """
    if by_runtime:
        return {_VISIBLE: ",".join(by_runtime), **_CAPABILITIES}
    return {_VISIBLE: "void"} if RUNTIME in engine.runtimes else {}


def _check_names(names: Sequence[str], engine: EngineInfo) -> None:
    """Refuse a name the engine does not know, where it tells which it knows; before Docker 28.2 it does not."""
    if not engine.cdi_folders:
        raise EngineError(_NO_CDI.format(device=names[0]))
    for name in names:
        if engine.cdi_devices and name not in engine.cdi_devices:
            raise EngineError(_UNKNOWN_NAME.format(device=name, known=", ".join(engine.cdi_devices)))
