"""
The command lines that collect wheels and source releases for an image, and what its lists pin.

pip runs on the host, whatever Python that has, and collects for the Python and the C library of the image's base.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.errors import ConfigError
from controller.ops.targets import Base


def wheels_argv(pip: Sequence[str], wanted: Sequence[str], *, destination: str, base: Base, architecture: str) -> list[str]:
    """Build the command that collects wheels for the Python of an image's base, whatever Python collects them."""
    abi = f"cp{base.python_version.replace('.', '')}"
    return [
        *pip, "download", "--quiet", "--progress-bar=off", "--disable-pip-version-check",
        "--only-binary=:all:",
        "--implementation", "cp",
        "--python-version", base.python_version,
        *(part for tag in (abi, "abi3", "none") for part in ("--abi", tag)),
        *(part for platform in base.wheel_platforms(architecture) for part in ("--platform", platform)),
        "--dest", destination,
        *wanted,
    ]  # fmt: skip


def locked(lock: str) -> list[str]:
    """Ask pip for exactly what a lock lists, each file checked against its hashes."""
    return ["--require-hashes", "--no-deps", "--requirement", lock]


def sources_argv(pip: Sequence[str], sources: str, *, destination: str) -> list[str]:
    """
    Build the command that fetches source releases and checks their hashes.

    pip asks a source release for its name before it keeps it; what answers (scikit-build-core) is among our locked tools.
    """
    return [
        *pip, "download", "--quiet", "--progress-bar=off", "--disable-pip-version-check",
        "--no-binary=:all:", "--no-build-isolation",
        "--dest", destination,
        *locked(sources),
    ]  # fmt: skip


def pinned(lock: str) -> list[str]:
    """Read the `name==version` lines of a lock, without hashes and comments."""
    return [line.removesuffix("\\").strip() for line in lock.splitlines() if line and line[0] not in " #"]


def torch_pin(listed: str) -> str:
    """
    Find the version of torch in a requirements list.

    Raises:
        ConfigError: it is not pinned there.

    """
    pins = [line.strip() for line in listed.splitlines() if line.startswith("torch==")]
    if len(pins) != 1:
        raise ConfigError([f"wanted one line torch==VERSION among the requirements, got {len(pins)}"])
    return pins[0]


def torch_choices(pin: str, asked: str) -> tuple[str, ...]:
    """
    List the torch requirements to try, in order.

    The build without CUDA is a tenth of the other's size, but not every package index has it under its own version; then the
    index's default build is taken, with whatever it needs. What the user asked for is taken as it is.
    """
    return (asked,) if asked else (f"{pin}+cpu", pin)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePin:
    """
    A file that an image gets.

    Attributes:
        lock: the lock it belongs to, without the ending.
        python: for which Python it was picked.
        machine: for which processors.
        file: its name.
        sha256: its hash.
        size_bytes: its size; `None` where the index does not say.

    """

    lock: str
    python: str
    machine: str
    file: str
    sha256: str
    size_bytes: int | None

    @property
    def name(self) -> str:
        """The package, as its file writes it."""
        return self.file.split("-")[0].replace("_", "-")

    @property
    def version(self) -> str:
        """The package's version."""
        return self.file.split("-")[1]


def read_pins(text: str) -> list[FilePin]:
    """Read what `requirements/files.py` has written."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [
        FilePin(
            lock=lock, python=python, machine=machine, file=file, sha256=sha256, size_bytes=None if size == "-" else int(size)
        )
        for lock, python, machine, file, sha256, size in rows
    ]
