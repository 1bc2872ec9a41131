"""Temperature and power, as far as the board tells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_COLDEST_MILLICELSIUS: Final = -50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One thermal zone."""

    name: str
    celsius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One measured supply."""

    name: str
    watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalReading:
    """All zones and rails that could be read, by name."""

    zones: tuple[Zone, ...]
    rails: tuple[Rail, ...]


def read_thermal(*, root: Path = _ROOT) -> ThermalReading:
    """Read the kernel's thermal zones and the power sensors of its hardware monitors."""
    zones = (_read_zone(folder) for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")))
    rails = [rail for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")) for rail in _read_rails(folder)]
    return ThermalReading(zones=tuple(zone for zone in zones if zone), rails=tuple(rails))


def _read_zone(folder: Path) -> Zone | None:
    millicelsius = _read_number(folder / "temp")
    if millicelsius is None or millicelsius < _COLDEST_MILLICELSIUS:  # a Jetson's idle accelerators answer EAGAIN or -256 C
        return None
    return Zone(name=_read_text(folder / "type") or folder.name, celsius=millicelsius / 1000)


def _read_rails(folder: Path) -> list[Rail]:
    chip = _read_text(folder / "name") or folder.name
    rails = []
    for power in sorted(folder.glob("power*_input")):
        microwatts = _read_number(power)
        if microwatts is not None:
            label = _read_text(folder / power.name.replace("_input", "_label"))
            rails.append(Rail(name=label or f"{chip} {power.name.removesuffix('_input')}", watts=microwatts / 1e6))
    for current in sorted(folder.glob("curr*_input")):  # INA3221, on Jetson boards: volts and amperes apart
        channel = current.name.removeprefix("curr").removesuffix("_input")
        milliamperes, millivolts = _read_number(current), _read_number(folder / f"in{channel}_input")
        if milliamperes is not None and millivolts is not None:
            label = _read_text(folder / f"in{channel}_label")
            rails.append(Rail(name=label or f"{chip} {channel}", watts=milliamperes * millivolts / 1e6))
    return rails


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
