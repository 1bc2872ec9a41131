"""What an engine file is built from, and the name that follows: whoever wants the same gets the same file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from controller.engines.builds import BuildRecipe

DIGITS: Final = 24
"""Hex digits of a fingerprint: 96 bits, far more than needed to tell any two builds of a box apart."""
ANY_DEVICE: Final = "any"
"""The device of what was not compiled for one: a GGUF that a laptop has quantised is served on a Jetson."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildKey:
    """
    Everything an engine file depends on.

    Attributes:
        source: identifies the source's files: names, sizes, times of change and headers.
        engine: the engine that will load it.
        quantization: how its weights are stored; empty is as they were.
        options: the commands of the build.
        images: the images that run them, by engine.
        device: what it is built for, or `ANY_DEVICE`.

    """

    source: str
    engine: str
    quantization: str
    options: tuple[tuple[str, ...], ...]
    images: Mapping[str, str]
    device: str

    fingerprint: str = field(default="", init=False, repr=False, compare=False)
    """The hash of all of it, and the name of the file's folder."""
    lineage: str = field(default="", init=False, repr=False, compare=False)
    """The hash of all of it but the images: files of one lineage may stand in for each other until the newest is built."""

    def __post_init__(self) -> None:
        """Compute the hashes."""
        parts = {key: value for key, value in asdict(self).items() if key not in ("fingerprint", "lineage")}
        object.__setattr__(self, "fingerprint", _digest(parts))
        del parts["images"]
        object.__setattr__(self, "lineage", _digest(parts))

    @classmethod
    def of(cls, recipe: BuildRecipe, *, source: str, images: Mapping[str, str], device: str) -> "BuildKey":
        """Return the key of what *recipe* makes of *source*, for *device* where the recipe depends on it."""
        used = sorted({step.image for step in recipe.steps})
        return cls(
            source=source,
            engine=recipe.engine,
            quantization=recipe.quantization.value if recipe.quantization else "",
            options=tuple(step.argv for step in recipe.steps),
            images={name: images[name] for name in used},
            device=device if recipe.one_device else ANY_DEVICE,
        )


def _digest(parts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:DIGITS]
