"""What the kernel has done to processes."""

from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")


def read_memory_kills(*, root: Path = _ROOT) -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 where it does not count them."""
    try:
        lines = (root / "proc/vmstat").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
