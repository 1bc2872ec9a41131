"""
Power and heat, as the kernel and a Jetson's `nvpmodel` tell them in files.

Two names mislead. A zone of an engine that is switched off gives an error, or -256 degrees. And a cooling device is a fan as
often as something that is slowed down; of those of the GPU's clock, some boards show a state when nothing is hot at all, so that
only the alert that goes with it counts.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from controller.power import HotSpot, PowerMode, PowerModes, PowerReading, Throttle

_ROOT: Final = Path("/")
_T = TypeVar("_T")
_COLDEST: Final = -50.0
"""A zone that is colder than this measures nothing."""
_LEAST_LIMIT: Final = 50.0
"""A zone that slows down a box from less than this on has no such limit: zero and less stand for none."""
_LIMITS: Final = ("passive", "hot", "critical")
_SLOWING: Final = re.compile(r"(thermal-)?cpufreq-.*|Processor|.*-throttle-alert")
"""The cooling devices that slow something down when they are at work."""
_EVENTS: Final = {
    "oc1_event_cnt": "under-voltage of its supply",
    "oc2_event_cnt": "over-current on average",
    "oc3_event_cnt": "over-current at an instant",
}
"""What an Orin's counters count, as NVIDIA's guide to the platform's power says."""
_MODE: Final = re.compile(r"<\s*POWER_MODEL\s+ID=(?P<number>\d+)\s+NAME=(?P<name>[^\s>]+)")
_CAP: Final = re.compile(r"(?P<what>GPU|EMC|CPU_\w+)\s+MAX_FREQ\s+(?P<value>-?\d+)")


def read_power(*, root: Path = _ROOT) -> PowerReading:
    """Read everything that says whether the box is slowed down; what is not there is left out."""
    return PowerReading(
        modes=read_modes(root=root),
        spots=tuple(_each(root / "sys/class/thermal", "thermal_zone*", _spot)),
        throttles=tuple(_each(root / "sys/class/thermal", "cooling_device*", _throttle)),
        counts=_counts(root),
        slowed_s=_slowed_s(root),
    )


def read_modes(*, root: Path = _ROOT) -> PowerModes:
    """Read which power modes a Jetson has, and which one `nvpmodel` has set last."""
    status = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    return PowerModes(
        modes=parse_modes(_text(root / "etc/nvpmodel.conf")),
        current=int(status[1]) if status else None,
    )


def parse_modes(text: str) -> tuple[PowerMode, ...]:
    """Read the modes of an `nvpmodel.conf`. A cap of zero or less is none, and so is one that is not there."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    modes: list[PowerMode] = []
    caps: dict[str, float] = {}
    header: re.Match[str] | None = None
    for line in (*lines, "<"):
        if line.startswith("<"):
            if header is not None:
                modes.append(_mode(header, caps))
            header, caps = _MODE.match(line), {}
        elif cap := _CAP.fullmatch(" ".join(line.split())):
            caps[cap["what"]] = float(cap["value"])
    return tuple(modes)


def _mode(header: re.Match[str], caps: Mapping[str, float]) -> PowerMode:
    set_caps = {what: value for what, value in caps.items() if value > 0}
    cpu_khz = [value for what, value in set_caps.items() if what.startswith("CPU")]
    clocks = {}
    if "GPU" in set_caps:
        clocks["gpu_hz"] = set_caps["GPU"]
    if "EMC" in set_caps:
        clocks["memory_hz"] = set_caps["EMC"]
    if cpu_khz:
        clocks["cpu_hz"] = 1000 * min(cpu_khz)
    return PowerMode(number=int(header["number"]), name=header["name"], **clocks)


def _spot(folder: Path) -> HotSpot | None:
    millicelsius = _number(folder / "temp")
    if millicelsius is None or millicelsius / 1000 < _COLDEST:
        return None
    limits = []
    for kind in sorted(folder.glob("trip_point_*_type")):
        limit = _number(folder / kind.name.replace("_type", "_temp"))
        if _text(kind) in _LIMITS and limit is not None and limit / 1000 >= _LEAST_LIMIT:
            limits.append(limit / 1000)
    name = _text(folder / "type") or folder.name
    return HotSpot(name=name, celsius=millicelsius / 1000, limit_celsius=min(limits, default=None))


def _throttle(folder: Path) -> Throttle | None:
    name, state, most = _text(folder / "type"), _number(folder / "cur_state"), _number(folder / "max_state")
    if not _SLOWING.fullmatch(name) or state is None or most is None:
        return None
    return Throttle(name=name, state=state, most=most)


def _counts(root: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "soctherm_oc":
            continue
        for file, what in _EVENTS.items():
            if (count := _number(chip / file)) is not None:
                counts[what] = count
    if _slowed_s(root) is None and (events := _of_processors(root, "core_throttle_count")):
        counts["heat of the processors"] = sum(events)
    return counts


def _slowed_s(root: Path) -> float | None:
    slowed_ms = _of_processors(root, "package_throttle_total_time_ms")
    return max(slowed_ms) / 1000 if slowed_ms else None


def _of_processors(root: Path, name: str) -> list[int]:
    files = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{name}")
    return [count for file in files if (count := _number(file)) is not None]


def _each(folder: Path, pattern: str, read: Callable[[Path], _T | None]) -> Iterable[_T]:
    found = (read(one) for one in sorted(folder.glob(pattern), key=_in_order))
    return [one for one in found if one is not None]


def _in_order(path: Path) -> int:
    return int(re.sub(r"\D", "", path.name) or 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it is not there, or it is of something that is switched off
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
