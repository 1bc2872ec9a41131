"""Where the figures are written that a run measures."""

from typing import Final

from bench.stack import BUILD

TARGET: Final = "qemu-amd64"
"""The image that the tests start."""
FIGURES: Final = BUILD / "appliance" / TARGET / "figures.json"
KEPT: Final = "WINDLASS_APPLIANCE_KEPT"
"""Names a folder in which the disk of the first start is kept for the next run; for whoever works on one of the tests."""
