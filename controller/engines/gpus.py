"""What any process on a GPU costs and is told: the driver's context, the order of the cards, a cache of its own. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from controller.device import Device, Family, Gpu
from controller.spec import Footprint, FootprintSource, Spread
from controller.units import MIB

CARD_CONTEXT_BYTES: Final = 512 * MIB
"""What the driver takes of a card for each process: its context, the code of the kernels, the libraries' work space."""
UNIFIED_CONTEXT_BYTES: Final = 320 * MIB
"""The same on a Jetson, where all of it is the box's memory."""
HOST_BYTES: Final = 192 * MIB
"""What the driver and CUDA's libraries take of the box's memory beside that, in each process."""
WHOLE: Final = Spread()
"""On one card, or nowhere."""
LEAST_SM: Final = 75
"""Turing: older GPUs are not known to the CUDA release that the images for cards are made with."""
LEAST_DRIVER_CUDA: Final = 13
"""The CUDA release of the images for cards: a driver runs its own and older ones, and this is one of the 580 series or newer."""
MOST_CARDS: Final = 8
"""Over more cards than this nothing is split."""

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        # By their place on the bus, as the driver and we count them. By default the fastest card is the first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # For code that the driver compiles itself, where the card is newer than the image: the root is read-only, and the file
        # system of its own that a worker has is small.
        "CUDA_CACHE_PATH": "/tmp/cuda",  # noqa: S108 -- the container's own
        "CUDA_CACHE_MAXSIZE": str(32 * MIB),
    }
)


def too_old(device: Device, least_sm: int = LEAST_SM) -> tuple[Gpu, ...]:
    """Return the GPUs that images with code for *least_sm* and later hold none for."""
    return tuple(gpu for gpu in device.gpus if not gpu.sm.isdecimal() or int(gpu.sm) < least_sm)


def driver_too_old(device: Device) -> bool:
    """Say whether the driver of cards is known to be older than what the images are made with; a Jetson's images are its own."""
    major = device.cuda.partition(".")[0]
    return device.family is Family.DISCRETE and major.isdecimal() and int(major) < LEAST_DRIVER_CUDA


def computes(device: Device) -> bool:
    """
    Say whether workers compute with the GPU, and not with the processors; `windlass check` says why they do not.

    One card that is too old keeps the others from it, since a model may be laid on any of them.
    """
    return device.has_gpu and not too_old(device) and not driver_too_old(device)


def footprint(device: Device, *, here_bytes: int, there_bytes: int, spread: Spread = WHOLE, each_bytes: int = 0) -> Footprint:
    """
    Lay a process out over the box's memory and a GPU's, with the driver's part: nothing of it is a page of a file.

    Args:
        device: whose GPU is a card, or shares the box's memory.
        here_bytes: what the process takes of the box's memory.
        there_bytes: what it computes with on the GPU.
        spread: over how many cards it can be split.
        each_bytes: the part of *there_bytes* that each further card has once more.

    """
    if device.unified:
        total_bytes = here_bytes + there_bytes + UNIFIED_CONTEXT_BYTES
        return Footprint(total_bytes=total_bytes, weights_bytes=0, private_bytes=total_bytes, source=FootprintSource.ESTIMATE)
    return Footprint(
        total_bytes=here_bytes,
        weights_bytes=0,
        private_bytes=here_bytes,
        source=FootprintSource.ESTIMATE,
        gpu_bytes=there_bytes + CARD_CONTEXT_BYTES,
        gpu_each_bytes=each_bytes + CARD_CONTEXT_BYTES,
        spread=spread,
    )


def shares(parts_bytes: tuple[int, ...]) -> tuple[int, ...]:
    """Say in whole percent which share of a model each card is to take; coarse, so that a better estimate rarely changes it."""
    total_bytes = sum(parts_bytes)
    return tuple(max(1, round(100 * part / total_bytes)) for part in parts_bytes) if total_bytes else ()
