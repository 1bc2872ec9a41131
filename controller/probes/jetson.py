"""Which Jetson this is: family, board and module from the device tree, its release of Jetson Linux, and what came with that."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.device import Family
from controller.probes.packages import version_of
from controller.probes.system import System

RELEASE_FILE: Final = "/etc/nv_tegra_release"
DEVICE_TREE: Final = "/sys/firmware/devicetree/base"
"""What `/proc/device-tree` is a link to; a container sees neither unless it is mounted."""
_CHIPS: Final = {"nvidia,tegra234": Family.ORIN, "nvidia,tegra264": Family.THOR}
_RELEASE: Final = re.compile(r"^# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", re.MULTILINE)
_MODULE: Final = re.compile(r"nvidia,(p\d{4}-\d{4})(?:-super)?")
_CORE_PACKAGE: Final = "nvidia-l4t-core"
JETPACKS: Final[Mapping[str, str]] = {
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.0.0": "7.2 EA",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
"""The JetPack that each release of Jetson Linux belongs to."""
_SERIES: Final[Mapping[str, str]] = {"38.2": "7.0", "38.4": "7.1", "39.2": "7.2"}
"""And of releases that came later: the JetPack whose series they go on with."""
_CUDA: Final[Mapping[str, str]] = {
    "35": "11.4",
    "36.2": "12.2",
    "36.3": "12.2",
    "36.4": "12.6",
    "36.5": "12.6",
    "38": "13.0",
    "39": "13.2",
}
"""The CUDA version of the driver that is part of a release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """
    One Jetson.

    Attributes:
        family: of its chip; `NONE` for those before Orin, which no engine of ours runs on.
        board: what it calls itself.
        module: module and variant, such as `p3767-0005`.
        l4t: the release of Jetson Linux; empty if nobody says it.
        jetpack: the JetPack of that release; empty if it is not known.
        cuda: the CUDA version of its driver.

    """

    family: Family
    board: str
    module: str
    l4t: str
    jetpack: str
    cuda: str


def read_jetson(system: System) -> Jetson | None:
    """Tell which Jetson this is; `None` if it is none."""
    names = (system.read(f"{DEVICE_TREE}/compatible") or "").split("\0")
    release = system.read(RELEASE_FILE)
    if release is None and not any("tegra" in name for name in names):
        return None
    l4t = parse_release(release or "") or version_of(system, _CORE_PACKAGE).partition("-")[0]
    return Jetson(
        family=next((_CHIPS[name] for name in names if name in _CHIPS), Family.NONE),
        board=(system.read(f"{DEVICE_TREE}/model") or "").strip("\0\n "),
        module=next((match[1] for name in names if (match := _MODULE.fullmatch(name))), ""),
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        cuda=next((cuda for series, cuda in _CUDA.items() if _is_in(l4t, series)), ""),
    )


def parse_release(text: str) -> str:
    """
    Return the release in three numbers from the text of `/etc/nv_tegra_release`; empty if it is no such text.

    It writes 36.4.7 as `R36 (release), REVISION: 4.7`.
    """
    match = _RELEASE.search(text)
    return f"{match[1]}.{match[2]}" if match else ""


def jetpack_of(l4t: str) -> str:
    """Return the JetPack that a release belongs to; empty if it is not known."""
    return JETPACKS.get(l4t) or next((jetpack for series, jetpack in _SERIES.items() if _is_in(l4t, series)), "")


def _is_in(l4t: str, series: str) -> bool:
    return l4t == series or l4t.startswith(f"{series}.")
