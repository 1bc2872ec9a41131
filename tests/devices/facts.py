"""What `windlass check` would look at on a recorded box, and what it would print."""

import re
from pathlib import Path, PurePosixPath
from typing import Final

from controller.config import Settings
from controller.ops import tables
from controller.ops.check.rules import findings
from controller.ops.check.values import Access, EngineFacts, Facts, Port
from controller.probes.condition import disk_kind, read_condition
from controller.probes.device import read_device
from controller.probes.host import DiskReading
from controller.probes.memory import MemoryReading
from controller.units import GIB, KIB
from tests.devices import Recording, recorded

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "check"
HOME: Final = PurePosixPath("/var/lib/windlass")


def facts(recording: Recording) -> Facts:
    """Return everything that is looked at, with a home that is well and no model in it."""
    system, engine = recording.system, recording.engine
    condition = read_condition(system, home=str(HOME), cdi_folders=engine.cdi_folders)
    return Facts(
        config_problems=(),
        settings=Settings(),
        memory=_memory(recording),
        home=Access.WRITABLE,
        run=Access.WRITABLE,
        disk=DiskReading(total_bytes=100 * GIB, free_bytes=50 * GIB, kind=disk_kind(system, str(HOME))),
        engine=EngineFacts(info=engine, missing_images=()),
        port=Port.FREE,
        key_count=None,
        models=(),
        folder_problems=(),
        device=read_device(system, engine),
        condition=condition,
    )


def printed(name: str) -> str:
    """Return what is printed for people, without colours."""
    seen = facts(recorded(name))
    lines = [tables.device_line(seen.device), *tables.findings_lines(findings(seen))]
    return "\n".join(re.sub(r"\[/?(?:red|yellow|green|cyan)\]", "", line).replace("\\[", "[") for line in lines) + "\n"


def write_golden(names: tuple[str, ...]) -> None:
    """Write down what is printed now, for somebody to read before it is kept."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in names:
        (GOLDEN / f"{name}.txt").write_text(printed(name), encoding="utf-8")


def _memory(recording: Recording) -> MemoryReading:
    told = dict(re.findall(r"(?m)^(\w+):\s+(\d+) kB", recording.system.files["/proc/meminfo"]))
    swaps = [line.split() for line in recording.system.files["/proc/swaps"].splitlines()[1:]]
    return MemoryReading(
        total_bytes=int(told["MemTotal"]) * KIB,
        available_bytes=int(told["MemAvailable"]) * KIB,
        swap_total_bytes=int(told["SwapTotal"]) * KIB,
        zram_bytes=sum(int(fields[2]) * KIB for fields in swaps if fields[0].startswith("/dev/zram")),
        pressure_some_avg10=0.0,
        pressure_full_avg10=0.0,
    )
