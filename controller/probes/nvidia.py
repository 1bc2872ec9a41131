"""NVIDIA's own tool, `nvidia-smi`: the cards of a box, the version of their driver, and what each process has of their memory."""

import re
from dataclasses import dataclass
from typing import Final

from controller.device import Gpu
from controller.probes.system import System
from controller.units import MIB

CARDS: Final = (
    "nvidia-smi",
    "--query-gpu=index,name,compute_cap,memory.total,uuid,driver_version",
    "--format=csv,noheader,nounits",
)
PROCESSES: Final = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
USED: Final = ("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
OVERVIEW: Final = ("nvidia-smi",)
INTEGRATED: Final = "(nvgpu)"
"""In the name of a GPU that is part of an Orin: of those the tool knows little more."""
_CUDA: Final = re.compile(r"CUDA Version\s*:\s*(\d+\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The cards of a box and their driver; no cards, no driver."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: str = ""


def read_cards(system: System) -> Cards:
    """Ask which cards there are; GPUs that are part of a Jetson are none."""
    rows = _rows(system, CARDS)
    known = [(gpu, row[-1]) for row in rows if len(row) == 6 and (gpu := _gpu(row)) is not None]
    if not known:
        return Cards()
    overview = system.run(OVERVIEW)
    cuda = _CUDA.search(overview.out) if overview else None
    return Cards(
        gpus=tuple(sorted((gpu for gpu, _ in known), key=lambda gpu: gpu.index)),
        driver=known[0][1],
        cuda=cuda[1] if cuda else "",
    )


def read_processes(system: System) -> dict[int, dict[str, int]] | None:
    """Return the bytes each process, as the host numbers it, has on each card, by its uuid; `None` if the tool cannot tell."""
    ended = system.run(PROCESSES)
    if ended is None or ended.code:
        return None
    taken: dict[int, dict[str, int]] = {}
    for uuid, pid, mebibytes in (row for row in _fields(ended.out) if len(row) == 3):
        if pid.isdecimal() and mebibytes.isdecimal():  # `[N/A]` where a process, or the driver, keeps it to itself
            held = taken.setdefault(int(pid), {})
            held[uuid] = held.get(uuid, 0) + int(mebibytes) * MIB
    return taken


def read_used(system: System) -> dict[int, int]:
    """Return the bytes that are taken of each card, by its index; without those whose memory is not their own."""
    rows = (row for row in _rows(system, USED) if len(row) == 2)
    return {int(index): int(mebibytes) * MIB for index, mebibytes in rows if index.isdecimal() and mebibytes.isdecimal()}


def _gpu(row: list[str]) -> Gpu | None:
    index, name, capability, mebibytes, uuid, _ = row
    if INTEGRATED in name or not index.isdecimal() or re.fullmatch(r"\d+\.\d+", capability) is None:
        return None
    # A chip that has one memory for all, such as GB10, answers `[N/A]`: it has none of its own.
    own_bytes = int(mebibytes) * MIB if mebibytes.isdecimal() else 0
    return Gpu(index=int(index), name=name, sm=capability.replace(".", ""), memory_bytes=own_bytes, uuid=uuid)


def _rows(system: System, argv: tuple[str, ...]) -> list[list[str]]:
    ended = system.run(argv)
    return _fields(ended.out) if ended is not None and ended.code == 0 else []


def _fields(text: str) -> list[list[str]]:
    return [[field.strip() for field in line.split(",")] for line in text.splitlines() if line.strip()]
