"""
Power and heat, as the kernel and a Jetson's `nvpmodel` tell them in files.

Two names mislead. A zone of an engine that is switched off gives an error, or -256 degrees. And a cooling device is a fan as
often as something that is slowed down; of those of the GPU's clock, some boards show a state when nothing is hot at all, so that
only the alert that goes with it counts.
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Final

from controller.power import Card, HotSpot, PowerMode, PowerModes, PowerReading, Throttle
from controller.probes.system import System

CONFIGURATION: Final = "/etc/nvpmodel.conf"
STATUS: Final = "/var/lib/nvpmodel/status"
_THERMAL: Final = "/sys/class/thermal"
_HWMON: Final = "/sys/class/hwmon"
_PROCESSORS: Final = "/sys/devices/system/cpu"
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
_CLOCKS: Final = "index,clocks.sm,clocks.max.sm,power.limit,power.default_limit"
_SLOWDOWN: Final = 0x8 | 0x20 | 0x40 | 0x80
"""Of NVIDIA's reasons: hardware slowdown, heat as driver or hardware sees it, power brake. Power at its cap is normal."""
_MODE: Final = re.compile(r"<\s*POWER_MODEL\s+ID=(?P<number>\d+)\s+NAME=(?P<name>[^\s>]+)")
_CAP: Final = re.compile(r"(?P<what>GPU|EMC|CPU_\w+)\s+MAX_FREQ\s+(?P<value>-?\d+)")


def read_power(system: System) -> PowerReading:
    """Read everything that says whether the box is slowed down; what is not there is left out."""
    spots = (_spot(system, folder) for folder in _folders(system, _THERMAL, "thermal_zone*"))
    throttles = (_throttle(system, folder) for folder in _folders(system, _THERMAL, "cooling_device*"))
    slowed_s = _slowed_s(system)
    return PowerReading(
        modes=read_modes(system),
        spots=tuple(spot for spot in spots if spot),
        throttles=tuple(throttle for throttle in throttles if throttle),
        counts=_counts(system, heat=slowed_s is None),
        slowed_s=slowed_s,
        processor_share=_processor_share(system),
        cards=read_card_clocks(system),
    )


def read_modes(system: System) -> PowerModes:
    """Read which power modes a Jetson has, and which one `nvpmodel` has set last."""
    status = re.search(r"pmode:0*(\d+)", _text(system, STATUS))
    return PowerModes(modes=parse_modes(_text(system, CONFIGURATION)), current=int(status[1]) if status else None)


def read_card_clocks(system: System) -> tuple[Card, ...]:
    """Ask NVIDIA's tool how fast the cards are and why; nothing where there is no such tool, or the cards do not tell."""
    for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):  # the second is what older drivers call it
        query = ("nvidia-smi", f"--query-gpu={_CLOCKS},{reasons}", "--format=csv,noheader,nounits")
        ended = system.run(query)
        if ended is None:
            return ()
        if ended.code == 0:
            rows = ([field.strip() for field in line.split(",")] for line in ended.out.splitlines())
            return tuple(card for row in rows if len(row) == 6 and (card := _card(row)) is not None)
    return ()


def _card(row: list[str]) -> Card | None:
    try:
        clock, most, limit, sold_with = (float(field) for field in row[1:5])
        return Card(
            index=int(row[0]),
            share=min(1.0, clock / most),
            hot=bool(int(row[5], 16) & _SLOWDOWN),
            limit_share=min(1.0, limit / sold_with),
        )
    except (ValueError, ZeroDivisionError):  # `[N/A]`: a Jetson, or a card that does not tell
        return None


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


def _spot(system: System, folder: str) -> HotSpot | None:
    millicelsius = _number(system, f"{folder}/temp")
    if millicelsius is None or millicelsius / 1000 < _COLDEST:
        return None
    limits = []
    for kind in system.names(folder):
        if not fnmatch(kind, "trip_point_*_type") or _text(system, f"{folder}/{kind}") not in _LIMITS:
            continue
        limit = _number(system, f"{folder}/{kind.removesuffix('type')}temp")
        if limit is not None and limit / 1000 >= _LEAST_LIMIT:
            limits.append(limit / 1000)
    name = _text(system, f"{folder}/type") or folder.rpartition("/")[2]
    return HotSpot(name=name, celsius=millicelsius / 1000, limit_celsius=min(limits, default=None))


def _throttle(system: System, folder: str) -> Throttle | None:
    name = _text(system, f"{folder}/type")
    state, most = _number(system, f"{folder}/cur_state"), _number(system, f"{folder}/max_state")
    if not _SLOWING.fullmatch(name) or state is None or most is None:
        return None
    return Throttle(name=name, state=state, most=most)


def _counts(system: System, *, heat: bool) -> dict[str, int]:
    counts: dict[str, int] = {}
    for chip in _folders(system, _HWMON, "hwmon*"):
        if _text(system, f"{chip}/name") != "soctherm_oc":
            continue
        for file, what in _EVENTS.items():
            if (count := _number(system, f"{chip}/{file}")) is not None:
                counts[what] = count
    if heat and (events := _of_processors(system, "core_throttle_count")):
        counts["heat of the processors"] = sum(events)
    return counts


def _slowed_s(system: System) -> float | None:
    slowed_ms = _of_processors(system, "package_throttle_total_time_ms")
    return max(slowed_ms) / 1000 if slowed_ms else None


def _processor_share(system: System) -> float:
    shares = []
    for policy in _folders(system, f"{_PROCESSORS}/cpufreq", "policy*"):
        limit, most = _number(system, f"{policy}/scaling_max_freq"), _number(system, f"{policy}/cpuinfo_max_freq")
        if limit and most:
            shares.append(min(1.0, limit / most))
    return sum(shares) / len(shares) if shares else 1.0


def _of_processors(system: System, name: str) -> list[int]:
    files = (f"{folder}/thermal_throttle/{name}" for folder in _folders(system, _PROCESSORS, "cpu[0-9]*"))
    return [count for file in files if (count := _number(system, file)) is not None]


def _folders(system: System, parent: str, pattern: str) -> Iterator[str]:
    """Go through folders in the order of their numbers."""
    names = [name for name in system.names(parent) if fnmatch(name, pattern)]
    return (f"{parent}/{name}" for name in sorted(names, key=lambda name: int(re.sub(r"\D", "", name) or 0)))


def _text(system: System, path: str) -> str:
    return (system.read(path) or "").strip()


def _number(system: System, path: str) -> int | None:
    try:
        return int(_text(system, path))
    except ValueError:
        return None
