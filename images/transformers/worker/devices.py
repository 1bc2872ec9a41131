"""What computes the model, and in which precision there. Decides from what torch has been asked; it is not imported here."""

import enum
from collections.abc import Mapping
from typing import Any, Final

from worker.errors import LoadError

AUTO: Final = "auto"
"""As the checkpoint is stored."""
_BFLOAT16_SINCE: Final = (8, 0)
"""Cards before this compute capability have no such numbers, and torch makes up for it slowly."""


class Device(str, enum.Enum):  # noqa: UP042 -- one of our images has Python 3.10
    """What computes."""

    CPU = "cpu"
    """The processors."""
    CUDA = "cuda"
    """The first GPU of the container."""

    __str__ = str.__str__


def check(wanted: Device, *, gpus: int, built_for: str | None) -> None:
    """
    Say whether what is wanted is there; the processors never stand in for a GPU, since nobody would be told.

    Args:
        wanted: what shall compute.
        gpus: how many GPUs torch sees.
        built_for: the CUDA version that torch is built for; None if it is built for none.

    Raises:
        LoadError: it is not there, with what is wrong: the image or the container.

    """
    if wanted is Device.CPU or gpus > 0:
        return
    if built_for is None:
        raise LoadError("wanted a GPU, and the torch of this image is built for processors alone: use the image made for CUDA")
    raise LoadError(
        f"wanted a GPU, and torch, built for CUDA {built_for}, sees none: the container was given none, or the driver is too old"
    )


def precision(config: Mapping[str, Any], *, capability: tuple[int, int] | None) -> str:
    """Return how weights are kept: as they are stored, but for 16-bit floats of a kind that this card does not compute with."""
    text = config.get("text_config")
    said = {str(each.get(key)) for each in (config, text) if isinstance(each, Mapping) for key in ("dtype", "torch_dtype")}
    return "float16" if capability is not None and capability < _BFLOAT16_SINCE and "bfloat16" in said else AUTO
