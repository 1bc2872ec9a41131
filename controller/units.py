"""
Bytes and seconds: the two units everything here is counted in.

Bytes are `int`, durations are `float` seconds, and a name that holds one says so (`memory_bytes`, `patience_s`).
"""

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_FACTORS: Final = {
    "": 1,
    "B": 1,
    "K": KIB,
    "KB": 1000,
    "KIB": KIB,
    "M": MIB,
    "MB": 1000**2,
    "MIB": MIB,
    "G": GIB,
    "GB": 1000**3,
    "GIB": GIB,
}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """
    Read a size such as `7.4GiB`, `900 MB` or `1048576`.

    `KiB`, `MiB` and `GiB` (also `K`, `M`, `G`) are powers of 1024, `KB`, `MB` and `GB` powers of 1000, as in IEC 80000-13.

    Raises:
        ValueError: the text is not a size.

    """
    match = _SIZE.fullmatch(text)
    factor = _FACTORS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise ValueError(f"wanted a size such as 7.4GiB or 900MB, got {text!r}")
    return round(float(match[1]) * factor)


def format_bytes(count_bytes: int) -> str:
    """Write a size for people, in powers of 1024: `2.88 GiB`, `512 KiB`, `17 B`."""
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(count_bytes) >= factor:
            return (
                f"{count_bytes / factor:.3g} {unit}" if abs(count_bytes) < 1000 * factor else f"{count_bytes / factor:.0f} {unit}"
            )
    return f"{count_bytes} B"


def format_seconds(duration_s: float) -> str:
    """Write a duration for people: `350 ms`, `2.4 s`, `3 min 05 s`, `2 h 10 min`."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
