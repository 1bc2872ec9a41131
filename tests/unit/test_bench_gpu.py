"""`make gpu` without a GPU: what it would make of readings, and that it does not pretend."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu import REST_BYTES, Loaded, hardware_row, taken_bytes, unusable, weights_of
from controller.device import NO_GPU, Device
from controller.errors import WindlassError
from controller.gpu_memory import GpuReading, Pid
from controller.probes.device import read_device
from controller.units import GIB, MIB
from tests.devices import recorded

LOADED = Loaded(
    name="qwen",
    weights_bytes=3 * GIB,
    load_s=2.5,
    before_bytes=GIB,
    during_bytes=4 * GIB + 512 * MIB,
    after_bytes=GIB + REST_BYTES,
    given_back_s=0.4,
)


def device(name: str) -> Device:
    """Return a recorded box."""
    recording = recorded(name)
    return read_device(recording.system, recording.engine)


def met(loaded: Loaded) -> list[bool | None]:
    """Say which goals are met."""
    return [row.met for row in loaded.rows()]


def test_a_box_without_a_usable_gpu_is_told_so() -> None:
    """Nothing is measured where nothing can be: the reason says whether the box or its container engine lacks it."""
    assert "no GPU that an engine of ours can use" in unusable(NO_GPU)
    assert "`windlass check`" in unusable(device("orin-nano-jp7.2-iso"))
    assert ["", ""] == [unusable(device(name)) for name in ("discrete-2", "orin-nano-jp7.2")]


def test_a_model_that_took_and_gave_back_meets_its_goals() -> None:
    """What it took is at least its weights; what is left is within what two readings may differ by."""
    assert [None, True, True, True] == met(LOADED)
    assert [2.5, 3.5, 32.0, 0.4] == [row.value for row in LOADED.rows()]


def test_weights_that_never_were_on_the_gpu_are_a_failure() -> None:
    """A model that ran on the processors took next to nothing of the GPU: that is no result."""
    assert [None, False, True, True] == met(replace(LOADED, during_bytes=GIB + 600 * MIB))


def test_memory_that_does_not_come_back_is_a_failure() -> None:
    """Beyond what two readings may differ by, memory is lost; and it must come back soon."""
    assert [None, True, False, False] == met(replace(LOADED, after_bytes=2 * GIB, given_back_s=10.2))
    assert [None, True, True, True] == met(replace(LOADED, after_bytes=GIB - MIB))


def test_cards_say_what_is_taken_and_jetsons_are_added_up() -> None:
    """A card counts what no process is shown for, too; on a Jetson there are the processes alone."""
    held = {Pid(1): {0: GIB}, Pid(2): {0: MIB, 1: MIB}}

    assert 5 * GIB == taken_bytes(GpuReading(held_bytes=held, used_bytes={0: 2 * GIB, 1: 3 * GIB}))
    assert GIB + 2 * MIB == taken_bytes(GpuReading(held_bytes=held))
    with pytest.raises(WindlassError, match="does not tell"):
        taken_bytes(None)


def test_figures_carry_the_name_of_the_gpu() -> None:
    """A table names the cards with their memory and the driver, or the board's release."""
    cards, board = (str(hardware_row(device(name)).value) for name in ("discrete-2", "orin-nano-jp7.2"))

    assert "driver 580.95.05, CUDA 13.0" in cards
    assert "RTX 3060 (SM 86, 12 GiB)" in cards
    assert "L4T 39.2.0" in board


def test_weights_are_what_engines_read(tmp_path: Path) -> None:
    """Other files of a folder are no weights."""
    for name in ("b.safetensors", "a.gguf", "config.json"):
        (tmp_path / name).touch()

    assert ["a.gguf", "b.safetensors"] == [file.name for file in weights_of(tmp_path)]
