"""What follows from what a box is: how its GPUs are asked for, and what measurements and engine files hold for."""

from dataclasses import replace

import pytest

from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess

ORIN = Device(
    family=Family.ORIN,
    module="p3767-0005",
    l4t="39.2.0",
    tensorrt="10.16.2.10",
    gpus=(Gpu(index=0, name="Orin", sm="87"),),
    access=GpuAccess.RUNTIME,
)
CARDS = Device(
    family=Family.DISCRETE,
    driver="580.95.05",
    gpus=(
        Gpu(index=0, name="NVIDIA GeForce RTX 4090", sm="89", memory_bytes=24),
        Gpu(index=1, name="NVIDIA GeForce RTX 3060", sm="86", memory_bytes=12),
    ),
    access=GpuAccess.RUNTIME,
)


@pytest.mark.parametrize(
    ("device", "indices", "asked"),
    [
        (ORIN, (), ("nvidia=all",)),
        (ORIN, (0,), ("nvidia=all",)),
        (replace(ORIN, access=GpuAccess.CDI), (0,), ("nvidia.com/gpu=all",)),
        (CARDS, (), ("nvidia=all",)),
        (CARDS, (1,), ("nvidia=1",)),
        (CARDS, (0, 1), ("nvidia=0,1",)),
        (replace(CARDS, access=GpuAccess.CDI), (0, 1), ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        (replace(CARDS, access=GpuAccess.CDI), (), ("nvidia.com/gpu=all",)),
        (replace(CARDS, access=GpuAccess.REQUEST), (1,), ("gpus=1",)),
        (replace(CARDS, access=GpuAccess.NONE), (1,), ()),
        (NO_GPU, (), ()),
        (replace(NO_GPU, access=GpuAccess.RUNTIME), (), ()),
    ],
)
def test_gpus_are_asked_for_in_the_words_of_the_way_to_them(
    device: Device, indices: tuple[int, ...], asked: tuple[str, ...]
) -> None:
    """A Jetson has one GPU, which is all; of cards those that are named; without a way, none."""
    assert asked == device.requests(indices)


def test_a_measurement_holds_for_gpu_board_and_versions() -> None:
    """Another module, release, TensorRT or card is another one; without a way to the GPU everything runs on processors."""
    assert "sm87_p3767-0005_l4t39.2.0_trt10.16.2.10" == ORIN.fingerprint
    assert "cpu" == replace(ORIN, access=GpuAccess.NONE).fingerprint == NO_GPU.fingerprint
    assert replace(ORIN, tensorrt="").fingerprint.endswith("_trtnone")
    assert "sm89+86_nvidia-geforce-rtx-4090+nvidia-geforce-rtx-3060_driver580.95.05_trtnone" == CARDS.fingerprint
    twins = replace(CARDS, gpus=(CARDS.gpus[0], replace(CARDS.gpus[0], index=1)))
    assert "sm89_nvidia-geforce-rtx-4090_driver580.95.05_trtnone" == twins.fingerprint
    changes = (
        {"module": "p3767-0000"},
        {"l4t": "39.2.1"},
        {"tensorrt": "10.16.2.11"},
        {"gpus": (replace(ORIN.gpus[0], sm="110"),)},
    )
    assert 5 == len({ORIN.fingerprint, *(replace(ORIN, **change).fingerprint for change in changes)})  # type: ignore[arg-type]


def test_one_memory_for_all_is_not_a_card_with_its_own() -> None:
    """Without a GPU there is nothing to share."""
    assert (True, False, False) == (ORIN.unified, CARDS.unified, NO_GPU.unified)
    assert (True, True, False) == (ORIN.has_gpu, CARDS.has_gpu, NO_GPU.has_gpu)
    assert not replace(ORIN, access=GpuAccess.NONE).has_gpu
    assert ("87", "89", "") == (ORIN.sm, CARDS.sm, NO_GPU.sm)


def test_a_jetson_is_one_whether_its_gpu_can_be_reached_or_not() -> None:
    """Its releases and power modes matter all the same."""
    assert [True, True, False, False] == [
        device.is_jetson for device in (ORIN, replace(ORIN, family=Family.THOR, access=GpuAccess.NONE), CARDS, NO_GPU)
    ]
