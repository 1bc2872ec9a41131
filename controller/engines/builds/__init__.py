"""
What a build does to make the file an engine loads fastest: the steps, each a sealed container, and what they will need.

Pure: a source is described by whoever has read its folder, and the answer is a recipe as data. Nothing here runs.
"""

from controller.engines.base import SOURCE_MOUNT
from controller.engines.builds.quantization import Quantization, best_first, estimate_bytes
from controller.engines.builds.recipe import recipe
from controller.engines.builds.values import (
    OUT_MOUNT,
    Adapter,
    AdapterFormat,
    BuildRecipe,
    BuildStep,
    SourceDescription,
    Want,
)

__all__ = [
    "OUT_MOUNT",
    "SOURCE_MOUNT",
    "Adapter",
    "AdapterFormat",
    "BuildRecipe",
    "BuildStep",
    "Quantization",
    "SourceDescription",
    "Want",
    "best_first",
    "estimate_bytes",
    "recipe",
]
