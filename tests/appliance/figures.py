"""Where the figures are written that a run measures."""

from typing import Final

from bench.stack import BUILD

TARGET: Final = "qemu-amd64"
"""The image that the tests start."""
FIGURES: Final = BUILD / "appliance" / TARGET / "figures.json"
