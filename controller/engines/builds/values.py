"""What is known of a source, what is wanted of it, and what a build is: values alone."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from controller.engines.base import Options, WeightsHeader
from controller.engines.builds.quantization import Quantization

OUT_MOUNT: Final = PurePosixPath("/out")
"""Where a step writes: what is kept, and what is needed between two steps. Nothing else is writable."""


class AdapterFormat(enum.StrEnum):
    """How a LoRA adapter is stored."""

    PEFT = "peft"
    """`adapter_config.json` and `adapter_model.safetensors`, as PEFT saves them."""
    GGUF = "gguf"
    """One GGUF file, as llama.cpp applies it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """
    A LoRA adapter that lies in the source's folder.

    Attributes:
        path: the GGUF file, or the folder of the two PEFT files (`.` for the source's own), relative to the source's folder.
        format: how it is stored.
        weights_bytes: its weights.

    """

    path: PurePosixPath
    format: AdapterFormat
    weights_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    """
    What somebody has read of a model's folder.

    Attributes:
        header: what its weights say.
        weights: the GGUF file, relative to the folder; `.` for a checkpoint.
        files: the names of all files in the folder.
        adapters: to merge into the weights, in this order.

    """

    header: WeightsHeader
    weights: PurePosixPath
    files: frozenset[str]
    adapters: tuple[Adapter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """
    What a build shall make.

    Attributes:
        engine: the engine that will load it.
        quantization: how its weights are to be stored; None is as they are, and for a GGUF in sixteen bits.
        context_tokens: prompt and answer together, for one caller: what is compiled for one shape serves no longer one.
        parallel: how many callers at once, likewise.
        options: the engine's options, likewise.

    """

    engine: str
    quantization: Quantization | None = None
    context_tokens: int = 0
    parallel: int = 1
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStep:
    """
    One command in one sealed container.

    Attributes:
        title: what it does, for people.
        image: the name of the engine whose image runs it.
        argv: the whole command: it replaces the image's entry point.
        memory_bytes: the limit of the container, swap included.
        pids_limit: processes and threads it may have.
        env: environment variables.
        gpu: it needs the GPU.
        host_files: files of the host that it must see, at the same path, read-only.

    """

    title: str
    image: str
    argv: tuple[str, ...]
    memory_bytes: int
    pids_limit: int = 128
    env: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    host_files: tuple[PurePosixPath, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecipe:
    """
    A whole build.

    Attributes:
        engine: the engine that will load what comes out.
        quantization: how its weights will be stored; None is as they were.
        steps: one after the other; the first that fails ends the build.
        output: what is kept of `/out`, relative to it: a GGUF file, or a checkpoint's folder. The rest is scratch.
        estimate_bytes: what is kept will take about this much disk.
        scratch_bytes: what lies in `/out` beside it at the worst moment.
        beside_source: what comes out is of use only beside the source, which stays.
        one_image: only the very image that made it can load it, so that no older file stands in until the newest is built.

    """

    engine: str
    quantization: Quantization | None
    steps: tuple[BuildStep, ...]
    output: PurePosixPath
    estimate_bytes: int
    scratch_bytes: int
    beside_source: bool = False
    one_image: bool = False

    @property
    def one_device(self) -> bool:
        """Whether what comes out runs on the device that made it alone; all else is the same file on every box."""
        return any(step.gpu for step in self.steps)

    @property
    def memory_bytes(self) -> int:
        """The most that any step may use."""
        return max(step.memory_bytes for step in self.steps)
