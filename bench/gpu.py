"""
Models on a GPU: `make gpu`. Each is loaded, asked and unloaded, and the GPU's memory is read before, during and after.

What counts: that the weights were there at all, that unloading gives back all that loading took, and that decoding through the
gateway is as fast as asking the engine itself. Without a GPU that a container can use it says so and exits with 3.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from bench.decode import Subject, rows_of
from bench.rows import Row, at_least, at_most, console, publish
from bench.stack import PROJECT, Stack, output, place_model, stack
from bench.supply import model
from controller.device import Device
from controller.drivers.docker import engine_info
from controller.errors import WindlassError
from controller.gpu_memory import GpuReading
from controller.probes.device import read_device
from controller.probes.gpu_memory import LEAST_INTERVAL_S, read_gpu_memory
from controller.probes.system import LocalSystem
from controller.units import GIB, MIB

NO_GPU_STATUS: Final = 3
BUDGET: Final = "6GiB"
TITLE: Final = "models on a GPU"
CONTEXT: Final = 2048
GIVEN_BACK_WITHIN_S: Final = 10.0
REST_BYTES: Final = 32 * MIB
"""What may differ between two readings of a GPU that nobody uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """
    One model that went through.

    Attributes:
        name: what it is called in the table.
        weights_bytes: of its files.
        load_s: from the request to ready.
        before_bytes: of the GPUs, before it was loaded.
        during_bytes: when it had answered.
        after_bytes: the last reading after it was unloaded.
        given_back_s: from the request to unload until the GPU had no more than before, or until nobody waited any longer.

    """

    name: str
    weights_bytes: int
    load_s: float
    before_bytes: int
    during_bytes: int
    after_bytes: int
    given_back_s: float

    def rows(self) -> list[Row]:
        """Say what was seen, and what it should be."""
        taken_bytes = self.during_bytes - self.before_bytes
        kept_bytes = max(0, self.after_bytes - self.before_bytes)
        return [
            Row(name=f"{self.name}: loaded, asked and ready", value=self.load_s, unit="s"),
            at_least(f"{self.name}: taken of the GPU", taken_bytes / GIB, "GiB", round(self.weights_bytes / GIB, 3)),
            at_most(f"{self.name}: kept after unloading", kept_bytes / MIB, "MiB", REST_BYTES / MIB, limit="0"),
            at_most(f"{self.name}: until it was given back", self.given_back_s, "s", GIVEN_BACK_WITHIN_S),
        ]


def find_gpu() -> tuple[Device, str]:
    """Return the box, and why no container of it can use a GPU; nothing if one can."""
    device = read_device(LocalSystem(), engine_info(json.loads(output(["docker", "info", "--format", "{{json .}}"]))))
    return device, unusable(device)


def unusable(device: Device) -> str:
    """Say why there is nothing to measure."""
    if not device.gpus:
        return "this box has no GPU that an engine of ours can use"
    if not device.has_gpu:
        return f"no container of this box can use its GPU ({device.gpus[0].name}); `windlass check` says how to change that"
    return ""


def taken_bytes(reading: GpuReading | None) -> int:
    """
    Add up what is taken of all GPUs: by cards as they say it, else by processes.

    Raises:
        WindlassError: the GPU does not tell.

    """
    if reading is None:
        raise WindlassError("this box does not tell what is taken of its GPU; on a Jetson that takes root, else nvidia-smi")
    if reading.used_bytes:
        return sum(reading.used_bytes.values())
    return sum(held for cards in reading.held_bytes.values() for held in cards.values())


def hardware_row(device: Device) -> Row:
    """Name the GPUs, so that figures are never read without them."""
    names = ", ".join(f"{gpu.name} (SM {gpu.sm}, {gpu.memory_bytes / GIB:.0f} GiB)" for gpu in device.gpus)
    system = f"L4T {device.l4t}" if device.l4t else f"driver {device.driver}, CUDA {device.cuda}"
    return Row(name="GPU", value=f"{names}; {system}")


def go_through(running: Stack, device: Device, subject: Subject) -> list[Row]:
    """Load a model, ask it, compare it with its engine alone, and unload it."""
    system = LocalSystem()
    before_bytes = taken_bytes(read_gpu_memory(system, device))
    began_s = time.monotonic()
    running.api.post("/load_model", {"model": subject.name, "wait": True})
    load_s = time.monotonic() - began_s
    speeds = rows_of(running, subject)
    during_bytes = taken_bytes(read_gpu_memory(system, device))
    began_s = time.monotonic()
    running.api.post("/unload_model", {"model": subject.name, "wait": True})
    while (after_bytes := taken_bytes(read_gpu_memory(system, device))) > before_bytes + REST_BYTES:
        if time.monotonic() - began_s > GIVEN_BACK_WITHIN_S:
            break
        time.sleep(LEAST_INTERVAL_S)
    loaded = Loaded(
        name=subject.name,
        weights_bytes=sum(file.stat().st_size for file in weights_of(subject.folder)),
        load_s=load_s,
        before_bytes=before_bytes,
        during_bytes=during_bytes,
        after_bytes=after_bytes,
        given_back_s=time.monotonic() - began_s,
    )
    return [*loaded.rows(), *speeds]


def weights_of(folder: Path) -> Sequence[Path]:
    """Return the weights files of a model's folder."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".gguf", ".safetensors"))


def measure(device: Device) -> list[Row]:
    """Measure a model of real size at 16 and at 4 bits with llama.cpp, and, on cards, the built-in checkpoint with torch."""
    subjects = [
        Subject(name=f"llama-cpp-{dtype}", folder=model("qwen2-1.5b", dtype, seed=1), tokens=128, pairs=7, counts=True)
        for dtype in ("bf16", "q4_0")
    ]
    if not device.unified:
        shipped = PROJECT / "images" / "windlass-mini" / "safetensors"
        subjects.append(Subject(name="transformers-mini", folder=shipped, tokens=128, pairs=7, counts=False))
    rows = [hardware_row(device)]
    with stack("gpu", budget=BUDGET) as running:
        for subject in subjects:
            manifest = f"context = {CONTEXT}\n" if subject.counts else 'engine = "transformers"\n'
            place_model(subject.folder, running.models / subject.name, manifest=manifest)
        running.wait_for_models(*(subject.name for subject in subjects))
        for subject in subjects:
            rows += go_through(running, device, subject)
    return rows


def main() -> None:
    """Run models on the GPU of this box."""
    device, why = find_gpu()
    if why:
        console.print(f"  nothing was measured: {why}")
        raise typer.Exit(NO_GPU_STATUS)
    if os.geteuid() != 0:
        console.print("  a worker's socket is open to root and to the workers' group alone: as another user this fails")
    if not publish("gpu", TITLE, measure(device)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
