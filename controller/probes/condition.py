"""
In what state the operating system of a box is, as far as its owner can change it: what `windlass check` judges of a host.

Everything is asked through the seam, so that a recorded board can be judged like the one at hand. What nobody answers is unknown,
and unknown is never taken for wrong.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Final

from controller.power import QUIET, PowerReading
from controller.probes.disk import Link, block_behind, read_link
from controller.probes.host import DiskKind, read_disk_kind
from controller.probes.packages import version_of
from controller.probes.power import read_power
from controller.probes.system import System
from controller.units import KIB

DAEMON_CONFIGURATION: Final = "/etc/docker/daemon.json"
ENGINE_DROP_INS: Final = "/etc/systemd/system/docker.service.d"
NO_RAW_TABLE: Final = "DOCKER_INSECURE_NO_IPTABLES_RAW=1"
CDI_KIND: Final = "nvidia.com/gpu"
DEFAULT_TARGET: Final = ("systemctl", "get-default")
DESKTOP: Final = ("systemctl", "is-active", "display-manager")
ZRAM_SERVICE: Final = "nvzramconfig"
ZRAM_ENABLED: Final = ("systemctl", "is-enabled", ZRAM_SERVICE)
RAW_TABLE: Final = ("modinfo", "-F", "filename", "iptable_raw")
TOOLKIT: Final = "nvidia-container-toolkit"
_CLOCKS: Final = "/sys/class/devfreq"
_PAGE_BYTES: Final = 4 * KIB
_LARGE_ORDER: Final = 10
"""Blocks of so many doublings of a page, 4 MiB, are what a Jetson's own tool counts as its largest."""
_NODE: Final = re.compile(r"^\s*(?:- )?(?:path|hostPath): [\"']?(/dev/[^\s\"']+)", re.MULTILINE)
_LIBRARY: Final = re.compile(r"libcuda\.so\.(\d+\.\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One swap area."""

    name: str
    total_bytes: int
    used_bytes: int

    @property
    def compressed(self) -> bool:
        """Whether it is memory, and no disk."""
        return self.name.startswith("/dev/zram")


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """
    One file of the Container Device Interface that names NVIDIA's GPUs.

    Attributes:
        path: of the file.
        driver: the version of the driver it was made for; empty if it does not say.
        gone: device nodes it names that are not there.

    """

    path: str
    driver: str = ""
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """
    The state of a host.

    Attributes:
        default_target: what it starts into, such as `graphical.target`; empty if nobody knows.
        desktop: a desktop runs.
        zram_service: the service that makes compressed swap on a Jetson begins at every start.
        swaps: the swap areas in use.
        kernel_arguments: what the kernel was started with.
        free_bytes: memory that nothing uses, not even as a cache.
        large_free_bytes: how much of it is in large pieces; `None` if nobody knows.
        toolkit: the version of NVIDIA's container toolkit; empty if it is not installed.
        specifications: of GPUs, in the folders where the container engine looks.
        raw_table: whether the kernel has the table `raw` for packets, or the container engine was told to do without; `None` if
            nobody knows.
        engine_disk: what the container engine keeps its images on.
        engine_root: where that is.
        home_link: how the NVMe disk is connected that holds the models; `None` where there is none, or it does not tell.
        clocks_held: the GPU's clock is held at its highest, as `jetson_clocks` does; `None` if nobody knows.
        power: power and heat.

    """

    default_target: str = ""
    desktop: bool = False
    zram_service: bool = False
    swaps: tuple[Swap, ...] = ()
    kernel_arguments: tuple[str, ...] = ()
    free_bytes: int = 0
    large_free_bytes: int | None = None
    toolkit: str = ""
    specifications: tuple[Specification, ...] = ()
    raw_table: bool | None = None
    engine_disk: DiskKind = DiskKind.UNKNOWN
    engine_root: str = "/var/lib/docker"
    home_link: Link | None = None
    clocks_held: bool | None = None
    power: PowerReading = QUIET


UNKNOWN: Final = Condition()
"""A host that nobody has looked at."""


def read_condition(system: System, *, home: str = "/", cdi_folders: Sequence[str] = ()) -> Condition:
    """Look at everything once: *home* is where the models are, *cdi_folders* where the container engine looks for GPUs."""
    free = re.search(r"^MemFree:\s+(\d+) kB", system.read("/proc/meminfo") or "", re.MULTILINE)
    engine_root = _engine_root(system)
    return Condition(
        default_target=_said(system, DEFAULT_TARGET),
        desktop=_said(system, DESKTOP) == "active",
        zram_service=_said(system, ZRAM_ENABLED).startswith("enabled"),
        swaps=tuple(_swaps(system)),
        kernel_arguments=tuple((system.read("/proc/cmdline") or "").split()),
        free_bytes=int(free[1]) * KIB if free else 0,
        large_free_bytes=_large_free_bytes(system),
        toolkit=version_of(system, TOOLKIT),
        specifications=tuple(_specifications(system, cdi_folders)),
        raw_table=_raw_table(system),
        engine_disk=disk_kind(system, engine_root),
        engine_root=engine_root,
        home_link=read_link(system, block_behind(system, home)),
        clocks_held=_clocks_held(system),
        power=read_power(system),
    )


def disk_kind(system: System, path: str) -> DiskKind:
    """Tell what kind of disk the file system is on that holds *path*, by what is mounted."""
    block = block_behind(system, path)
    return read_disk_kind(block, system) if block else DiskKind.UNKNOWN


def _said(system: System, argv: Sequence[str]) -> str:
    """Return what a command says, whatever its exit code: `systemctl` fails where the answer is no."""
    ended = system.run(argv)
    return ended.out.strip() if ended else ""


def _swaps(system: System) -> Iterator[Swap]:
    for line in (system.read("/proc/swaps") or "").splitlines()[1:]:
        match line.split():
            case [name, _, total, used, *_] if total.isdecimal() and used.isdecimal():
                yield Swap(name=name, total_bytes=int(total) * KIB, used_bytes=int(used) * KIB)


def _large_free_bytes(system: System) -> int | None:
    """Add up the large free blocks of all zones: the figures after the zone's name are the blocks of each order."""
    found = None
    for line in (system.read("/proc/buddyinfo") or "").splitlines():
        counts = line.partition("zone")[2].split()[1:]
        large = (int(count) << order for order, count in enumerate(counts) if order >= _LARGE_ORDER and count.isdecimal())
        found = (found or 0) + sum(large) * _PAGE_BYTES
    return found


def _clocks_held(system: System) -> bool | None:
    """Tell by the range in which the GPU's clock may move: an integrated GPU is a device of that kind whose name says so."""
    for name in system.names(_CLOCKS):
        if name.endswith(".gpu") or name.startswith("gpu-gpc"):
            least, most = (system.read(f"{_CLOCKS}/{name}/{end}_freq") or "" for end in ("min", "max"))
            return least.strip() == most.strip() if least.strip() and most.strip() else None
    return None


def _raw_table(system: System) -> bool | None:
    drop_ins = (system.read(f"{ENGINE_DROP_INS}/{name}") or "" for name in system.names(ENGINE_DROP_INS))
    if any(NO_RAW_TABLE in text for text in drop_ins):
        return True
    ended = system.run(RAW_TABLE)
    return None if ended is None else ended.code == 0


def _engine_root(system: System) -> str:
    try:
        configured = json.loads(system.read(DAEMON_CONFIGURATION) or "{}")
    except ValueError:
        configured = {}
    root = configured.get("data-root") if isinstance(configured, dict) else None
    return root if isinstance(root, str) else "/var/lib/docker"


def _specifications(system: System, folders: Sequence[str]) -> Iterator[Specification]:
    for folder in folders:
        for name in system.names(folder):
            path = f"{folder}/{name}"
            text = system.read(path) or ""
            if not fnmatch(name, "*.yaml") or CDI_KIND not in text:
                continue
            driver = _LIBRARY.search(text)
            nodes = dict.fromkeys(_NODE.findall(text))
            gone = tuple(node for node in nodes if not _exists(system, node))
            yield Specification(path=path, driver=driver[1] if driver else "", gone=gone)


def _exists(system: System, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name in system.names(folder)
