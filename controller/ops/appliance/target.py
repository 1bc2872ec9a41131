"""
What kind of box an operating system image is for: `appliance/targets/<name>.toml`, read into values.

Unknown keys are errors, and everything that is wrong with a file is listed at once.
"""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from controller.errors import ConfigError
from controller.ops.targets import Target, choose_target
from controller.units import MIB, parse_bytes

FOLDER: Final = Path("appliance/targets")
UEFI_LOADERS: Final = {"amd64": ("x86_64-efi", "BOOTX64.EFI"), "arm64": ("arm64-efi", "BOOTAA64.EFI")}
"""GRUB's name of the platform, and the name under which firmware looks for a loader that nobody has registered."""
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""What the kernel calls the processors that Debian calls so."""


def _read_bytes(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_read_bytes), Field(ge=0, multiple_of=MIB)]
"""A size in whole MiB, such as `2GiB`."""


class BoxTarget(BaseModel):
    """One kind of box."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The file's own name."""
    description: str
    """For people who choose one."""
    architecture: Literal["amd64", "arm64"]
    """Debian's name of the processors."""
    suite: str = "trixie"
    """The release of Debian."""
    components: tuple[str, ...] = ("main",)
    """Parts of the distribution that packages are taken from."""
    packages: tuple[str, ...] = Field(min_length=1)
    """Files in `appliance/os` that list packages, one a line."""
    trees: tuple[str, ...] = Field(min_length=1)
    """Folders in `appliance/os` with files of ours, which are laid over it in this order."""
    kernel: str
    """The package of the kernel."""
    compatible: str
    """What an update must say that it is for."""
    consoles: tuple[str, ...] = Field(min_length=1)
    """Where the kernel speaks; the last one is where `/dev/console` leads."""
    device: str = "cpu"
    """For which kind of box the container images are made, and `jetpack` for which release of a Jetson."""
    jetpack: str = ""
    images: tuple[str, ...] = Field(min_length=1)
    """The container images that the release brings along."""
    esp: Size = 256 * MIB
    """The partition of the boot loader."""
    root: Size = 2048 * MIB
    """Each of the two partitions that hold a system."""
    data: Size = 256 * MIB
    """The last partition, as it is in the image; it grows when the machine first starts."""
    swap: Size = 0
    """A swap file on the data partition; 0 for none."""

    @property
    def machine(self) -> str:
        """What the kernel calls its processors."""
        return MACHINES[self.architecture]

    @property
    def images_target(self) -> Target:
        """Say for which box the container images are."""
        return choose_target(self.device, self.jetpack)

    def variables(self) -> str:
        """Write what the box's own scripts must know of what it is: `/usr/share/windlass/target.env`."""
        return f"TARGET={self.name}\nCOMPATIBLE={self.compatible}\nSWAP_BYTES={self.swap}\n"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "controller" not in self.images:
            raise ValueError("images: wanted the controller among them, since nothing runs without it")
        if self.compatible != f"windlass-{self.name}":
            raise ValueError(f"compatible: wanted windlass-{self.name}, so that no two kinds of box take each other's updates")
        choose_target(self.device, self.jetpack)
        return self


def parse_target(name: str, text: str) -> BoxTarget:
    """
    Read a target's file.

    Raises:
        ConfigError: it cannot be used; everything that is wrong with it is listed.

    """
    try:
        return BoxTarget(name=name, **tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError([f"{FOLDER}/{name}.toml: {exc}"]) from exc
    except ValidationError as exc:
        raise ConfigError([f"{FOLDER}/{name}.toml: {_sentence(problem)}" for problem in exc.errors()]) from exc


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(place, BoxTarget.model_fields, n=1)
        return f"{place}: no such key{f'; did you mean {near[0]}?' if near else ''}"
    said = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def load_target(project: Path, name: str) -> BoxTarget:
    """
    Read the target of this name.

    Raises:
        ConfigError: there is none, or its file cannot be used.

    """
    file = project / FOLDER / f"{name}.toml"
    if not file.is_file():
        raise ConfigError([f"no target {name!r}; there are {', '.join(target_names(project))} (make image TARGET=...)"])
    return parse_target(name, file.read_text(encoding="utf-8"))


def target_names(project: Path) -> Sequence[str]:
    """List the kinds of boxes that there are files for."""
    return sorted(file.stem for file in (project / FOLDER).glob("*.toml"))


def read_packages(text: str) -> tuple[str, ...]:
    """Read a list of packages: one a line, `#` begins a remark."""
    return tuple(name for line in text.splitlines() if (name := line.partition("#")[0].strip()))
