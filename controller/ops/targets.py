"""
For which box images are made, and what they stand on. Pure values.

A target is what a person says (`DEVICE=orin JETPACK=7.2`). A base is the system an image begins with, and what Python and C
library it has, since that decides which wheels fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from controller.device import Family
from controller.errors import ConfigError

JETPACKS: Final = {"orin": ("7.2", "6.2.2", "6.1"), "thor": ("7.2",)}
"""The JetPack releases a Jetson's images can be made for, the default first."""
DEVICES: Final = ("cpu", "cuda", *JETPACKS)
OLDEST_GLIBC_MINOR: Final = 17
"""Wheels for an older C library than this are named by the year of their standard."""

_SINCE: Final = (((36, 0), "6.1"), ((36, 4, 3), "6.2.2"), ((37,), ""), ((39,), "7.2"), ((40,), ""))
"""From which release of Jetson Linux on which JetPack's images are made for it, the oldest first; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    The kind of box that images are made for.

    Attributes:
        device: `cpu`, `cuda` for cards, or a Jetson: `orin`, `thor`.
        jetpack: a Jetson's JetPack release; empty elsewhere.

    """

    device: str = "cpu"
    jetpack: str = ""

    def __str__(self) -> str:
        """Name it as it is remembered and shown."""
        return f"{self.device} {self.jetpack}".strip()


CPU: Final = Target()
CUDA: Final = Target(device="cuda")
ORIN: Final = Target(device="orin", jetpack="7.2")
ORIN_6: Final = Target(device="orin", jetpack="6.2.2")
ORIN_6_1: Final = Target(device="orin", jetpack="6.1")
THOR: Final = Target(device="thor", jetpack="7.2")
TARGETS: Final = (CPU, CUDA, ORIN, ORIN_6, ORIN_6_1, THOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """
    What an image stands on.

    Attributes:
        name: of its own image.
        stage: which stage of its Dockerfile; empty where it has none.
        jetpack: the release whose packages it holds; empty for the plain one.
        system: the distribution and its release.
        pulled: the image it begins with, by digest; empty if it is made from packages alone.
        pulled_bytes: what that image takes to fetch, for arm64.
        python_version: of the Python in the distribution.
        glibc_minor: of the C library 2.x: wheels made for an older one run, wheels made for a newer one do not.
        inputs: the files of the project that decide what it holds; none, if it is the pulled image itself.

    """

    name: str
    stage: str = ""
    jetpack: str = ""
    system: str
    pulled: str = ""
    pulled_bytes: int | None = None
    python_version: str
    glibc_minor: int
    inputs: tuple[PurePosixPath, ...]

    def wheel_platforms(self, architecture: str) -> tuple[str, ...]:
        """List the wheel platforms that run on it, the newest C library first."""
        minors = range(self.glibc_minor, OLDEST_GLIBC_MINOR - 1, -1)
        numbered = [f"manylinux_2_{minor}_{architecture}" for minor in minors]
        aliases = ["manylinux2014", "manylinux2010", "manylinux1"] if architecture == "x86_64" else ["manylinux2014"]
        return (*numbered, *(f"{alias}_{architecture}" for alias in aliases))


DEBIAN: Final = Base(
    name="base",
    system="Debian 12",
    python_version="3.11",
    glibc_minor=36,
    inputs=(PurePosixPath("images/base/make.sh"),),
)
"""Made from Debian's packages: no registry is asked for anything."""
TENSORRT_LLM: Final = Base(
    name="tensorrt-llm-release",
    system="Ubuntu 24.04 with TensorRT-LLM 1.2.1",
    pulled="nvcr.io/nvidia/tensorrt-llm/release@sha256:33cd085b772947bd22b7273886539331420404e5d2a4a039945241945ff927b9",
    python_version="3.12",
    glibc_minor=39,
    inputs=(),
)
"""NVIDIA's own release 1.2.1, pulled as it is: its wheel is not on the public index."""

TENSORRT_LLM_JETSON: Final = Base(
    name="tensorrt-llm-jetson-release",
    system="Ubuntu 22.04 with TensorRT-LLM 0.12",
    pulled="dustynv/tensorrt_llm:0.12-r36.4.0",
    python_version="3.10",
    glibc_minor=35,
    inputs=(),
)
"""As the jetson-containers project publishes it for Jetson Linux 36.4.0. By its name alone: its digest is not known here."""

L4T_DOCKERFILE: Final = PurePosixPath("l4t-base.Dockerfile")
L4T_PACKAGES: Final = PurePosixPath("images/l4t-base")
UBUNTU_24: Final = "ubuntu@sha256:69cecf4bbf72d2d44a9eef1b71fb98c7fb973d78af11399deccef19beb008ad9"
UBUNTU_22: Final = "ubuntu@sha256:3b06811b2afd352be909dd088a004166d665dc76d38b13eada33522a9d915c6f"


def l4t_base(jetpack: str, stage: str) -> Base:
    """
    Describe the base of a Jetson's GPU images.

    Args:
        jetpack: one of `JETPACKS`.
        stage: `system` without CUDA, `runtime` with CUDA's runtime and TensorRT, `build` with NVIDIA's compiler.

    """
    jammy = jetpack.startswith("6")
    return Base(
        name="l4t-base",
        stage=stage,
        jetpack=jetpack,
        system="Ubuntu 22.04" if jammy else "Ubuntu 24.04",
        pulled=UBUNTU_22 if jammy else UBUNTU_24,
        # Of the arm64 image that these digests list.
        pulled_bytes=27_620_032 if jammy else 28_941_580,
        python_version="3.10" if jammy else "3.12",
        glibc_minor=35 if jammy else 39,
        inputs=(
            L4T_DOCKERFILE,
            L4T_PACKAGES / "install.sh",
            L4T_PACKAGES / f"jetpack-{jetpack}",
        ),
    )


def choose_target(device: str, jetpack: str = "") -> Target:
    """
    Read what a person asked for.

    Raises:
        ConfigError: there are no images for that; the sentence names what there is.

    """
    if device not in DEVICES:
        raise ConfigError([f"no images are made for DEVICE={device}; there are {', '.join(DEVICES)}"])
    known = JETPACKS.get(device, ())
    if jetpack and jetpack not in known:
        instead = f"there are {', '.join(known)}" if known else "only a Jetson has one"
        raise ConfigError([f"no images are made for DEVICE={device} with JETPACK={jetpack}; {instead}"])
    return Target(device=device, jetpack=jetpack or (known[0] if known else ""))


def recall_target(text: str) -> Target:
    """Read a target as `str` has written it."""
    device, _, jetpack = text.strip().partition(" ")
    return choose_target(device, jetpack)


def guess_target(family: Family, l4t: str) -> Target | None:
    """
    Tell which images a Jetson needs; `None` on any other box, and for a release that has no images.

    Args:
        family: of its chip.
        l4t: its release of Jetson Linux, such as `36.4.7`.

    """
    release = tuple(int(part) for part in l4t.split(".") if part.isdecimal())
    jetpack = next((jetpack for since, jetpack in reversed(_SINCE) if release >= since), "")
    return Target(device=family.value, jetpack=jetpack) if jetpack in JETPACKS.get(family.value, ()) else None


def find_architecture(target: Target, machine: str) -> str:
    """Name the processors that images for a target run on: a Jetson's are ARM, whatever machine is asked."""
    return "aarch64" if target.device in JETPACKS else machine


def read_wish(environ: Mapping[str, str]) -> Target | None:
    """
    Read `DEVICE` and `JETPACK` from the environment; `None` if nobody asked.

    Raises:
        ConfigError: there are no images for that.

    """
    device, jetpack = environ.get("DEVICE", ""), environ.get("JETPACK", "")
    if not device:
        if jetpack:
            raise ConfigError([f"JETPACK={jetpack} needs a DEVICE beside it: {' or '.join(JETPACKS)}"])
        return None
    return choose_target(device, jetpack)
