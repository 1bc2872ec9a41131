"""
Memory of the GPU of an Orin, per process: what nvmap, which hands it out, shows in the kernel's debugging files.

Only root sees them, and reading them holds a lock that every allocation wants: ask rarely, around a load or an unload.
"""

import re
from typing import Final

from controller.probes.system import System

FOLDER: Final = "/sys/kernel/debug/nvmap"
CLIENTS_FILE: Final = f"{FOLDER}/iovmm/clients"
_ROW: Final = re.compile(r"^\s*\S+\s+(?P<process>\S.*?)\s+(?P<pid>\d+)\s+(?P<size>\d+)(?P<unit>[KMG]?)\s*$")
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def read_clients(system: System) -> dict[int, int] | None:
    """Return the bytes each process has, by its number on the host; `None` if the file is not there or is not for us."""
    text = system.read(CLIENTS_FILE)
    return None if text is None else parse_clients(text)


def parse_clients(text: str) -> dict[int, int]:
    """
    Take the rows apart: client, process, process id, size.

    The name of a process may have spaces in it. The heading, the sum and rows that are cut off are left out; so are the kernel's
    own clients, whose number is no process's.
    """
    taken: dict[int, int] = {}
    for line in text.splitlines():
        match = _ROW.match(line)
        if match is None or int(match["pid"]) == 0:
            continue
        pid = int(match["pid"])
        taken[pid] = taken.get(pid, 0) + int(match["size"]) * _UNITS[match["unit"]]
    return taken
