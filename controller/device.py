"""
What the box is, as far as an engine, a budget or an engine file depends on it. Immutable values; `probes/device.py` fills them.

A GPU either has memory of its own (a card), which is a second budget beside RAM, or shares the box's (a Jetson), where there is
one budget for everything.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Family(enum.StrEnum):
    """What kind of GPU the box has; the GPUs of one box are of one kind."""

    NONE = "none"
    """No GPU that an engine of ours can use."""
    ORIN = "orin"
    """A Jetson of the Orin series (T234)."""
    THOR = "thor"
    """A Jetson of the Thor series (T264)."""
    DISCRETE = "discrete"
    """One or several NVIDIA cards with memory of their own."""


class GpuAccess(enum.StrEnum):
    """How a container gets at the GPU."""

    NONE = "none"
    """Not at all: the container engine has neither way."""
    RUNTIME = "runtime"
    """By NVIDIA's container runtime, the documented way on a Jetson."""
    CDI = "cdi"
    """By the name that a specification of the Container Device Interface gives it."""
    REQUEST = "request"
    """By the engine's own request, which works for cards where NVIDIA's toolkit is installed and nothing is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """
    One GPU.

    Attributes:
        index: its number, as the driver counts.
        name: what the driver calls it.
        sm: its compute capability without the point, such as `87`; engine code is compiled for it.
        memory_bytes: memory of its own; 0 if it shares the box's.
        uuid: names it whatever the order; empty on a Jetson.

    """

    index: int
    name: str
    sm: str
    memory_bytes: int = 0
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """
    The box.

    Attributes:
        architecture: of its processors, as the kernel says it: `x86_64` or `aarch64`.
        family: what kind of GPU it has.
        board: what the board calls itself; empty if it does not.
        module: a Jetson's module and variant, such as `p3767-0003`.
        l4t: the release of Jetson Linux, such as `36.4.7`; empty elsewhere.
        jetpack: the JetPack that release belongs to, such as `6.2.1`.
        driver: the version of NVIDIA's driver for cards.
        cuda: the CUDA version of the driver, such as `13.2`.
        tensorrt: the TensorRT version of the host, such as `10.3.0.30`; empty if it has none.
        gpus: its GPUs, by index.
        access: how a container gets at them.
        gpu_groups: ids of the groups that may open the GPU's device nodes.
        gpu_memory_charged: a container's limit covers what it takes on the GPU; `None` if nobody has tried yet.

    """

    architecture: str = ""
    family: Family = Family.NONE
    board: str = ""
    module: str = ""
    l4t: str = ""
    jetpack: str = ""
    driver: str = ""
    cuda: str = ""
    tensorrt: str = ""
    gpus: tuple[Gpu, ...] = ()
    access: GpuAccess = GpuAccess.NONE
    gpu_groups: tuple[int, ...] = ()
    gpu_memory_charged: bool | None = None

    @property
    def is_jetson(self) -> bool:
        """Whether it is a Jetson."""
        return self.family in (Family.ORIN, Family.THOR)

    @property
    def has_gpu(self) -> bool:
        """Whether a container here can use a GPU."""
        return bool(self.gpus) and self.access is not GpuAccess.NONE

    @property
    def unified(self) -> bool:
        """Whether GPU and processors share one memory, and so one budget."""
        return bool(self.gpus) and all(gpu.memory_bytes == 0 for gpu in self.gpus)

    @property
    def sm(self) -> str:
        """The compute capability that code must be compiled for; empty without a GPU."""
        return self.gpus[0].sm if self.gpus else ""

    @property
    def fingerprint(self) -> str:
        """
        What measurements and engine files hold for.

        `cpu` without a GPU. With one: SM, module or card, and the versions of L4T or driver, and of TensorRT, since a TensorRT
        engine runs with exactly these. Of unlike cards all are named, as a model may lie on any of them; of like ones, one.
        """
        if not self.has_gpu:
            return "cpu"
        sms = "+".join(dict.fromkeys(gpu.sm for gpu in self.gpus))
        what = self.module or "+".join(dict.fromkeys(gpu.name.replace(" ", "-").lower() for gpu in self.gpus))
        system = f"l4t{self.l4t}" if self.l4t else f"driver{self.driver}"
        return "_".join((f"sm{sms}", what, system, f"trt{self.tensorrt or 'none'}"))

    def requests(self, indices: Sequence[int] = ()) -> tuple[str, ...]:
        """
        Name GPUs as `WorkerSpec.devices` does.

        Args:
            indices: which GPUs; none of them means all, and on unified memory there is only all.

        """
        if not self.has_gpu:
            return ()
        chosen = "all" if self.unified or not indices else ""
        if self.access is GpuAccess.CDI:
            return tuple(f"nvidia.com/gpu={index}" for index in ((chosen,) if chosen else indices))
        kind = "gpus" if self.access is GpuAccess.REQUEST else "nvidia"
        return (f"{kind}={chosen or ','.join(map(str, indices))}",)


NO_GPU = Device()
"""A box without a GPU."""
