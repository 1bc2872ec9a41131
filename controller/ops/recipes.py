"""
What each image is made of, as values: its folder, its wheels, its tag, and the command lines that make it.

A tag is a hash of everything that goes in, the base's tag included. An image whose tag exists is never made again, and a changed
file changes the tag; nothing else decides.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Final

from controller.errors import ConfigError

REPOSITORY: Final = "windlass"
PYTHON_VERSION: Final = "3.11"
"""The Python of Debian 12, which is what the base image is."""
GLIBC_MINOR: Final = 36
"""The C library of Debian 12 is 2.36: wheels made for an older one run, wheels made for a newer one do not."""
KEPT_IMAGES: Final = 3
"""Going back to the commit before needs no build."""
CONTENT_TAG: Final = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """
    One image.

    Attributes:
        name: the image's name, and its folder in `images/`.
        trees: folders of the project that are copied in, beside the image's own.
        lock: the locked wheels it installs, collected on the host.
        torch: the list that pins torch, which no lock holds, since each build of it comes from another index.
        sources: a locked list of source releases that are copied in unopened.
        minutes: how long a first build takes on two cores, for the one who waits.

    """

    name: str
    trees: tuple[PurePosixPath, ...] = ()
    lock: PurePosixPath | None = None
    torch: PurePosixPath | None = None
    sources: PurePosixPath | None = None
    minutes: int

    @property
    def folder(self) -> PurePosixPath:
        """Where its Dockerfile is."""
        return PurePosixPath("images") / self.name

    @property
    def inputs(self) -> tuple[PurePosixPath, ...]:
        """Everything in the project that decides what the image holds."""
        files = (self.lock, self.torch, self.sources)
        return (self.folder, *self.trees, *(file for file in files if file is not None))

    @property
    def variable(self) -> str:
        """The environment variable that carries its tag."""
        return f"WINDLASS_IMAGE_{self.name.upper().replace('-', '_')}"


BASE_SCRIPT: Final = PurePosixPath("images/base/make.sh")

RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="controller",
            trees=(PurePosixPath("controller"),),
            lock=PurePosixPath("requirements/run.lock"),
            minutes=1,
        ),
        Recipe(name="llama-cpp", sources=PurePosixPath("images/llama-cpp/sources.txt"), minutes=10),
        Recipe(
            name="transformers",
            lock=PurePosixPath("requirements/transformers.lock"),
            torch=PurePosixPath("images/transformers/requirements.in"),
            sources=PurePosixPath("images/llama-cpp/sources.txt"),
            minutes=3,
        ),
    )
}


def find_recipes(names: Sequence[str]) -> tuple[Recipe, ...]:
    """
    Look the images up by name.

    Raises:
        ConfigError: naming every one that does not exist, and those that do.

    """
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        known = ", ".join(sorted(RECIPES))
        raise ConfigError([f"no image is called {name!r}; there are {known}" for name in unknown])
    return tuple(RECIPES[name] for name in dict.fromkeys(names))


def content_hash(parts: Iterable[tuple[str, bytes]]) -> str:
    """Hash named pieces of content to twelve hex digits; neither their order nor where one ends can be mistaken."""
    digest = hashlib.sha256()
    for name, content in sorted(parts):
        for piece in (name.encode(), content):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)
    return digest.hexdigest()[:12]


def base_tag(script: bytes, *, architecture: str) -> str:
    """Tag the base image by the script that makes it: its packages are those of the day it was made, and stay."""
    return f"{REPOSITORY}/base:{content_hash([('make.sh', script), ('architecture', architecture.encode())])}"


def image_tag(recipe: Recipe, files: Mapping[str, bytes], *, base: str, torch: str = "") -> str:
    """Tag an image by its files (path in the project → content), its base, and the torch it was asked to install."""
    extras = [("base", base.encode()), ("torch", torch.encode())]
    return f"{REPOSITORY}/{recipe.name}:{content_hash([*files.items(), *extras])}"


def local_tag(recipe: Recipe) -> str:
    """Name the newest image of this checkout."""
    return f"{REPOSITORY}/{recipe.name}:local"


def old_tags(newest_first: Sequence[str]) -> list[str]:
    """Pick the tags of content that are not among the newest few; a name somebody chose is never picked."""
    return [tag for tag in newest_first if CONTENT_TAG.fullmatch(tag)][KEPT_IMAGES:]


def forget_stages_argv(recipe: Recipe) -> list[str]:
    """Build the command that removes yesterday's nameless build stages of an image; today's are the cache of the next build."""
    return ["docker", "image", "prune", "--force", "--filter", f"label=windlass.stage={recipe.name}", "--filter", "until=24h"]


def is_content(path: PurePath) -> bool:
    """Tell files that go into images from what tools leave beside them."""
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def wheel_platforms(architecture: str) -> tuple[str, ...]:
    """List the wheel platforms that run on the base image, the newest C library first."""
    numbered = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC_MINOR, 16, -1)]
    aliases = ["manylinux2014", "manylinux2010", "manylinux1"] if architecture == "x86_64" else ["manylinux2014"]
    return (*numbered, *(f"{alias}_{architecture}" for alias in aliases))


def wheels_argv(pip: Sequence[str], wanted: Sequence[str], *, destination: str, architecture: str) -> list[str]:
    """Build the command that collects wheels for the image's Python, whatever Python collects them."""
    abi = f"cp{PYTHON_VERSION.replace('.', '')}"
    return [
        *pip, "download", "--quiet", "--progress-bar=off", "--disable-pip-version-check",
        "--only-binary=:all:",
        "--implementation", "cp",
        "--python-version", PYTHON_VERSION,
        *(part for tag in (abi, "abi3", "none") for part in ("--abi", tag)),
        *(part for platform in wheel_platforms(architecture) for part in ("--platform", platform)),
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


def build_argv(*, tags: Sequence[str], context: str, base: str, environ: Mapping[str, str]) -> list[str]:
    """
    Build the `docker build` command; it is the same for the legacy builder and for BuildKit.

    The build uses the host's network, since apt may have to go through a proxy that only the host can reach.
    """
    proxies = [name for name in ("http_proxy", "https_proxy", "no_proxy") if environ.get(name)]
    return [
        "docker", "build",
        "--network", "host",
        "--build-arg", f"BASE={base}",
        *(part for name in proxies for part in ("--build-arg", f"{name}={environ[name]}")),
        *(part for tag in tags for part in ("--tag", tag)),
        context,
    ]  # fmt: skip


def image_variables(tags: Mapping[str, str], *, base: str) -> str:
    """Write the tags (image name → tag) as an environment file for Compose and the tests, which build on the base."""
    named = {RECIPES[name].variable: tag for name, tag in tags.items()}
    return "".join(f"{variable}={tag}\n" for variable, tag in sorted({"WINDLASS_BASE_IMAGE": base, **named}.items()))
