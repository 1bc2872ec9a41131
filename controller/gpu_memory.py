"""
What processes hold on GPUs, as a reading and as a worker's share of it. Pure; `probes` makes the readings.

No cgroup counts the memory of a card, and whether one counts what a Jetson's GPU takes depends on the release of L4T. So the
driver of the GPU is asked, which knows processes and no containers, and a container's processes are added up.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Pid = int
"""A process as the host counts it, whatever it is called inside its container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """
    One look at the memory of all GPUs.

    Attributes:
        held_bytes: what each process holds, by the index of the GPU; where GPU and processors share one memory, all of it is the
            first GPU's.
        used_bytes: what is taken of each card's own memory by whomever, by its index; empty where there is no such memory.

    """

    held_bytes: Mapping[Pid, Mapping[int, int]] = field(default_factory=dict)
    used_bytes: Mapping[int, int] = field(default_factory=dict)

    def of(self, pids: Iterable[Pid]) -> Mapping[int, int]:
        """Return what these processes hold together, by the index of the GPU."""
        total: Counter[int] = Counter()
        for pid in pids:
            total.update(self.held_bytes.get(pid, {}))
        return dict(total)


ReadGpuMemory = Callable[[], GpuReading | None]
"""Looks at the GPUs, from any thread; `None` if nothing can be seen: a driver that does not tell, a file that may not be read."""
