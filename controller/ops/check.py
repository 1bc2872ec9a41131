"""
What is wrong with a configuration and a host: facts in, findings out.

Every problem is found at once, and each says what it means and what to do. Nothing here looks at anything; `survey.py` does.
"""

import enum
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from controller.config import Settings
from controller.drivers.base import EngineInfo
from controller.probes.host import DiskKind, DiskReading
from controller.probes.memory import MemoryReading
from controller.spec import ModelSpec
from controller.units import GIB, MIB, format_bytes

SOCKET_PATH_BYTES: Final = 107
"""The longest path of a Unix socket: 108 bytes in the kernel's structure, one of them for the end."""
LONGEST_NAME: Final = "m" * 63
"""A model's name may have 63 characters."""
OLDEST_ENGINE: Final = (20, 10)
LEAST_RESERVE_BYTES: Final = 512 * MIB
LEAST_FREE_BYTES: Final = 256 * MIB
"""Below this the state database, conversations and logs will fail before long."""
LOW_FREE_BYTES: Final = 2 * GIB
"""Below this the next model will not fit on the disk."""


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something will not work."""
    WARNING = "warning"
    """It will work, but slower, shorter or less safely than it could."""


class Access(enum.Enum):
    """What can be done with a folder."""

    WRITABLE = "writable"
    """It exists, or can be made, and can be written."""
    FORBIDDEN = "forbidden"
    """Whoever asked may not write there; the controller, who runs as root, may."""
    READ_ONLY = "read_only"
    """Nobody may: the file system is mounted read-only."""
    NOT_A_FOLDER = "not_a_folder"
    """Something else has its name."""


class Port(enum.Enum):
    """Who has the address that the gateway wants."""

    FREE = "free"
    """Nobody."""
    OURS = "ours"
    """A gateway of Windlass."""
    TAKEN = "taken"
    """Somebody else."""
    NO_ADDRESS = "no_address"
    """This host does not have the address."""
    FORBIDDEN = "forbidden"
    """Whoever asked may not listen there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One problem.

    Attributes:
        severity: how bad it is.
        subject: what it is about, in a word or two.
        text: what is so, and what it means.
        fix: what to do, a command where there is one.

    """

    severity: Severity
    subject: str
    text: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """Return it for programs."""
        return {"severity": self.severity.value, "subject": self.subject, "text": self.text, "fix": self.fix}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """
    What is known of the container engine.

    Attributes:
        info: what it says of itself; `None` if it does not answer.
        problem: why it does not answer.
        missing_images: pairs of engine and image tag that are not there; `None` if nobody could look.

    """

    info: EngineInfo | None = None
    problem: str = ""
    missing_images: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    Everything that was looked at.

    Attributes:
        config_problems: what is wrong with the configuration; then `settings` are the defaults.
        settings: the configuration.
        memory: the box's memory.
        home: what can be done with the home folder.
        run: what can be done with the run folder.
        disk: the file system of the home folder.
        engine: the container engine.
        port: who has the gateway's address.
        key_count: how many API keys exist; `None` if the controller did not tell.
        models: the models that can be served.
        folder_problems: pairs of folder and what is wrong with it.

    """

    config_problems: tuple[str, ...]
    settings: Settings
    memory: MemoryReading
    home: Access
    run: Access
    disk: DiskReading
    engine: EngineFacts
    port: Port
    key_count: int | None
    models: tuple[ModelSpec, ...]
    folder_problems: tuple[tuple[str, str], ...]


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every problem, errors first."""
    found = [
        *_config(facts),
        *_engine(facts.engine),
        *_images(facts.engine),
        *_folders(facts),
        *_disk(facts),
        *_sockets(facts),
        *_memory(facts),
        *_swap(facts),
        *_listening(facts),
        *_models(facts),
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def split_listen(listen: str) -> tuple[str, int] | None:
    """Take `address:port` apart; `None` if it is not one. An IPv6 address stands in brackets."""
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>\d{1,5})", listen)
    if match is None or not 0 < int(match["port"]) < 2**16:
        return None
    return match["v6"] or match["host"] or "0.0.0.0", int(match["port"])  # noqa: S104 - an empty host means every address


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this box can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def worker_socket(run: PurePosixPath, model: str) -> PurePosixPath:
    """Return where a model's worker listens."""
    return run / "workers" / model / "worker.sock"


def _error(subject: str, text: str, fix: str) -> Finding:
    return Finding(severity=Severity.ERROR, subject=subject, text=text, fix=fix)


def _warning(subject: str, text: str, fix: str) -> Finding:
    return Finding(severity=Severity.WARNING, subject=subject, text=text, fix=fix)


def _config(facts: Facts) -> Iterable[Finding]:
    for problem in facts.config_problems:
        yield _error("configuration", problem, "correct the file (or the environment variable) and run `windlass check` again")


def _engine(engine: EngineFacts) -> Iterable[Finding]:
    if engine.info is None:
        yield _error(
            "engine",
            f"the container engine does not answer: {engine.problem}",
            "sudo systemctl start docker\n`make run` installs it where it is missing; DOCKER_HOST names another one",
        )
        return
    version = tuple(int(part) for part in re.findall(r"\d+", engine.info.version)[:2])
    if version and version < OLDEST_ENGINE:
        yield _error(
            "engine",
            f"wanted Docker Engine 20.10 or newer, got {engine.info.version}",
            "sudo apt-get install docker.io",
        )
    if not engine.info.memory_limits:
        yield _error(
            "memory limits",
            "the kernel does not enforce memory limits of containers, so one model could take the whole box",
            "add `cgroup_enable=memory swapaccount=1` to the kernel's command line "
            "(/boot/firmware/cmdline.txt, /boot/extlinux/extlinux.conf or /etc/default/grub) and reboot",
        )
    elif not engine.info.swap_limits:
        yield _warning(
            "swap limits",
            f"the kernel does not count swap for containers (cgroup v{engine.info.cgroup_version}): "
            "a worker over its limit swaps instead of being stopped",
            "add `swapaccount=1` to the kernel's command line and reboot, or turn swap off: sudo swapoff -a",
        )
    if engine.info.storage_driver == "vfs":
        yield _warning(
            "engine",
            "the storage driver vfs copies a whole image for every container",
            'set {"storage-driver": "overlay2"} in /etc/docker/daemon.json and restart the engine',
        )


def _images(engine: EngineFacts) -> Iterable[Finding]:
    for name, tag in engine.missing_images or ():
        yield _error("image", f"models want the engine {name}, and its image {tag} is not there", f"make images ENGINES={name}")


def _folders(facts: Facts) -> Iterable[Finding]:
    for key, path, access in (("home", facts.settings.home, facts.home), ("run", facts.settings.run, facts.run)):
        match access:
            case Access.READ_ONLY:
                yield _error(key, f"{path} is on a read-only file system", f"mount it writable, or set {key} to another folder")
            case Access.NOT_A_FOLDER:
                yield _error(key, f"{path} is not a folder", f"move it away, or set {key} to another folder")
            case Access.FORBIDDEN:
                yield _warning(
                    key,
                    f"you may not write to {path}; the controller runs as root and may, but only root can put models there",
                    f"sudo windlass check, or set WINDLASS_{key.upper()} to a folder of yours",
                )
            case Access.WRITABLE:
                pass


def _disk(facts: Facts) -> Iterable[Finding]:
    home, disk = facts.settings.home, facts.disk
    free = format_bytes(disk.free_bytes)
    if disk.free_bytes < LEAST_FREE_BYTES:
        yield _error(
            "disk",
            f"{free} are free for {home}: the state database and conversations cannot be written",
            f"du -xh -d2 {home} | sort -h",
        )
    elif disk.free_bytes < LOW_FREE_BYTES:
        yield _warning("disk", f"{free} are free for {home}: the next model may not fit", f"du -xh -d2 {home} | sort -h")
    if disk.kind is DiskKind.ROTATING:
        yield _warning(
            "disk",
            f"{home} is on a disk that turns: loading a model takes as long as reading it, about 10 s for each GiB",
            "move it to an SSD and set home to that",
        )
    elif disk.kind is DiskKind.SD_CARD:
        yield _warning(
            "disk",
            f"{home} is on an SD card: loading a model takes about 12 s for each GiB, and writing wears it out",
            "move it to an NVMe or USB SSD and set home to that",
        )
    elif disk.kind is DiskKind.EMMC:
        yield _warning(
            "disk",
            f"{home} is on eMMC: loading a model takes about 4 s for each GiB",
            "move it to an NVMe SSD and set home to that",
        )


def _sockets(facts: Facts) -> Iterable[Finding]:
    run = facts.settings.run
    names = [model.name for model in facts.models]
    too_long = [name for name in names if _path_bytes(worker_socket(run, name)) > SOCKET_PATH_BYTES]
    for name in too_long:
        path = worker_socket(run, name)
        yield _error(
            "run",
            f"{name} cannot be served: a socket path may have {SOCKET_PATH_BYTES} bytes, and {path} has {_path_bytes(path)}",
            "set run to a shorter path such as /run/windlass",
        )
    longest = _path_bytes(worker_socket(run, LONGEST_NAME))
    if not too_long and longest > SOCKET_PATH_BYTES:
        yield _warning(
            "run",
            f"under {run}, model names may have {max(63 + SOCKET_PATH_BYTES - longest, 0)} characters instead of 63: "
            "the path of a socket is limited",
            "set run to a shorter path such as /run/windlass",
        )


def _path_bytes(path: PurePosixPath) -> int:
    return len(str(path).encode())


def budget_bytes(facts: Facts) -> int:
    """Return what models may use together."""
    memory = facts.settings.memory
    return memory.budget if memory.budget is not None else max(facts.memory.total_bytes - memory.reserve, 0)


def _memory(facts: Facts) -> Iterable[Finding]:
    total, budget = facts.memory.total_bytes, budget_bytes(facts)
    advice = f"set memory.budget to {format_bytes(max(total - 2 * LEAST_RESERVE_BYTES, 0))} or less"
    if budget <= 0:
        yield _error(
            "budget",
            f"nothing is left for models: the box has {format_bytes(total)}, and {format_bytes(facts.settings.memory.reserve)} "
            "are reserved",
            "lower memory.reserve, or set memory.budget",
        )
    elif budget > total:
        yield _error(
            "budget",
            f"the budget of {format_bytes(budget)} is more than the box has, {format_bytes(total)}: it would run out of memory",
            advice,
        )
    elif budget > total - LEAST_RESERVE_BYTES:
        yield _warning(
            "budget",
            f"the budget of {format_bytes(budget)} leaves {format_bytes(total - budget)} for system, controller and gateway",
            advice,
        )
    pinned = sum(model.footprint.total_bytes for model in facts.models if model.pinned)
    if pinned > budget > 0:
        yield _error(
            "budget",
            f"the pinned models need {format_bytes(pinned)} together, and the budget is {format_bytes(budget)}",
            "set pinned = false in the model.toml of one of them",
        )


def _swap(facts: Facts) -> Iterable[Finding]:
    memory = facts.memory
    on_disk = memory.swap_total_bytes - memory.zram_bytes
    if memory.zram_bytes > memory.total_bytes // 4:
        yield _warning(
            "zram",
            f"{format_bytes(memory.zram_bytes)} of compressed swap take memory from the same box, and weights hardly compress",
            "sudo systemctl disable --now nvzramconfig (on a Jetson), or remove zram-tools, and reboot",
        )
    if on_disk > 0 and facts.disk.kind in {DiskKind.SD_CARD, DiskKind.EMMC, DiskKind.ROTATING}:
        yield _warning(
            "swap",
            f"{format_bytes(on_disk)} of swap are on a slow disk: the box stands still when they are used, and flash wears out",
            "sudo swapoff -a, and remove the line from /etc/fstab",
        )


def _listening(facts: Facts) -> Iterable[Finding]:
    listen = facts.settings.gateway.listen
    address = split_listen(listen)
    if address is None:
        yield _error("listen", f"wanted an address such as 127.0.0.1:8000 or [::]:8000, got {listen!r}", "correct gateway.listen")
        return
    match facts.port:
        case Port.TAKEN:
            yield _error(
                "port",
                f"somebody else listens on {listen}",
                f"ss -ltnp 'sport = :{address[1]}'   shows who; or set gateway.listen",
            )
        case Port.NO_ADDRESS:
            yield _error("listen", f"this host does not have the address {address[0]}", "ip -brief address   lists those it has")
        case Port.FORBIDDEN:
            yield _error(
                "port",
                f"a port below 1024 is for root, and the gateway is not root: {listen}",
                "set gateway.listen to a port from 1024 on",
            )
        case Port.FREE | Port.OURS:
            pass
    if is_loopback(address[0]):
        return
    if facts.key_count == 0:
        yield _error(
            "keys",
            f"the gateway refuses to listen on {listen} without an API key: everyone on the network could use it",
            "windlass keys create NAME\nor set gateway.listen to 127.0.0.1:8000",
        )
    elif facts.key_count is None:
        yield _warning(
            "keys",
            f"the gateway is to listen on {listen}, which needs an API key, and nobody could tell whether there is one",
            "make run, and then: sudo windlass keys list",
        )


def _models(facts: Facts) -> Iterable[Finding]:
    for folder, text in facts.folder_problems:
        yield _error("model folder", f"{folder}: {text}", f"ls -l {facts.settings.home / 'models' / folder}")
    budget = budget_bytes(facts)
    for model in facts.models:
        footprint = model.footprint
        if footprint.total_bytes > budget > 0:
            yield _warning(
                "model",
                f"{model.name} needs {format_bytes(footprint.total_bytes)} ({footprint.source}) and can never fit "
                f"into the budget of {format_bytes(budget)}",
                f"raise memory.budget, lower context or parallel in {model.folder / 'model.toml'}, or set memory there",
            )
