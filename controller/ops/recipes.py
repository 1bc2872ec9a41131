"""
What each image is made of, as values: its folder, its base, its wheels, its tag, and the command lines that make it.

One name may have several recipes, each for other targets: `llama-cpp` for an Orin is another image than `llama-cpp` for a box
without a GPU, and both are what the engine `llama-cpp` runs in. A tag is a hash of all that goes in, the base's tag included. An
image whose tag exists is never made again, and a changed file changes the tag; nothing else decides.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Final

from controller.device import Family
from controller.engines import tensorrt_edge_llm, tensorrt_llm_jetson
from controller.errors import ConfigError
from controller.ops.targets import (
    CPU,
    CUDA,
    DEBIAN,
    ORIN,
    ORIN_6,
    ORIN_6_1,
    TARGETS,
    TENSORRT_LLM,
    TENSORRT_LLM_JETSON,
    THOR,
    Base,
    Target,
    l4t_base,
)

REPOSITORY: Final = "windlass"
KEPT_IMAGES: Final = 3
"""Going back to the commit before needs no build."""
CONTENT_TAG: Final = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """
    One image.

    Attributes:
        name: the image's name, which is that of the engine it runs; its folder in `images/` is called the same.
        variant: tells images of one name apart, such as `orin`; empty for the plain one.
        targets: the boxes it is made for.
        dockerfile: in its folder.
        base: what it stands on.
        tools: what its parts are compiled on, where that is not the base.
        arguments: further arguments of its Dockerfile, as pairs.
        trees: folders of the project that are copied in, beside the image's own.
        lock: the locked wheels it installs, collected on the host.
        torch: the list that pins torch where no lock holds it, since the build without CUDA comes from another index.
        sources: a locked list of source releases that are copied in unopened.
        kept_wheels: the packages of the lock that stay in the image; none named means all.
        disk_bytes: what one took that was made on x86-64, its base included; `None` if nobody has made one.
        minutes: how long a first build takes on two cores, for the one who waits.

    """

    name: str
    variant: str = ""
    targets: tuple[Target, ...] = TARGETS
    dockerfile: str = "Dockerfile"
    base: Base = DEBIAN
    tools: Base | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    trees: tuple[PurePosixPath, ...] = ()
    lock: PurePosixPath | None = None
    torch: PurePosixPath | None = None
    sources: PurePosixPath | None = None
    kept_wheels: tuple[str, ...] = ()
    disk_bytes: int | None = None
    minutes: int

    @property
    def folder(self) -> PurePosixPath:
        """Where its Dockerfile is."""
        return PurePosixPath("images") / self.name

    def holds(self, path: PurePath) -> bool:
        """Whether a file of its folder is its own, and not the Dockerfile of another variant."""
        return path.parent != self.folder or path.name == self.dockerfile or not path.name.endswith("Dockerfile")

    @property
    def inputs(self) -> tuple[PurePosixPath, ...]:
        """Everything in the project that decides what the image holds, its base apart."""
        files = (self.lock, self.torch, self.sources)
        return (self.folder, *self.trees, *(file for file in files if file is not None))

    @property
    def variable(self) -> str:
        """The environment variable that carries its tag."""
        return f"WINDLASS_IMAGE_{self.name.upper().replace('-', '_')}"

    @property
    def repository(self) -> str:
        """What its tags begin with."""
        return f"{REPOSITORY}/{self.name}" + (f"-{self.variant}" if self.variant else "")

    @property
    def bases(self) -> tuple[Base, ...]:
        """What must be there before it can be made."""
        return (self.base,) if self.tools is None else (self.base, self.tools)


def _llama_cpp_cuda(target: Target, sms: str, *, minutes: int) -> Recipe:
    """Describe llama.cpp for a GPU: on a Jetson with the compiler of its JetPack, elsewhere with the one in NVIDIA's wheels."""
    jetson = bool(target.jetpack)
    return Recipe(
        name="llama-cpp",
        variant=variant(target),
        targets=(target,),
        dockerfile="cuda.Dockerfile",
        base=l4t_base(target.jetpack, "system") if jetson else DEBIAN,
        tools=l4t_base(target.jetpack, "build") if jetson else DEBIAN,
        arguments=(("CUDA_ARCHITECTURES", sms),),
        trees=(PurePosixPath("images/gpu-trial"),),
        lock=None if jetson else PurePosixPath("requirements/cuda.lock"),
        kept_wheels=("nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"),
        sources=LLAMA_CPP_SOURCES,
        minutes=minutes,
    )


def _edge_llm(target: Target, family: Family) -> Recipe:
    """Describe NVIDIA's engine for Jetsons: of its package the code for one device."""
    return Recipe(
        name=tensorrt_edge_llm.NAME,
        variant=variant(target),
        targets=(target,),
        base=l4t_base(target.jetpack, "runtime"),
        arguments=(("PAYLOAD", tensorrt_edge_llm.PAYLOADS[family]),),
        trees=(ENTRY,),
        lock=PurePosixPath("requirements/tensorrt-edge-llm.lock"),
        minutes=10,
    )


def variant(target: Target) -> str:
    """Name a target in an image's name, where a full stop would be read as the beginning of a tag by people."""
    return "" if target.device == "cpu" else str(target).replace(" ", "-jp").replace(".", "")


ENTRY: Final = PurePosixPath("images/entry")
"""The programs that come before a server which knows nothing of us."""
LLAMA_CPP_SOURCES: Final = PurePosixPath("images/llama-cpp/sources.txt")
CARD_SMS: Final = "75-real;80-real;86-real;89-real;90-real;100-real;120a-real;90-virtual"
"""Turing to Blackwell as they are made, and for what comes later code that the driver compiles at every start."""

RECIPES: Final = (
    Recipe(
        name="controller",
        trees=(PurePosixPath("controller"),),
        lock=PurePosixPath("requirements/run.lock"),
        disk_bytes=223_000_000,
        minutes=1,
    ),
    Recipe(name="llama-cpp", targets=(CPU,), sources=LLAMA_CPP_SOURCES, disk_bytes=151_000_000, minutes=10),
    _llama_cpp_cuda(CUDA, CARD_SMS, minutes=240),
    *(_llama_cpp_cuda(target, "87-real", minutes=60) for target in (ORIN, ORIN_6, ORIN_6_1)),
    _llama_cpp_cuda(THOR, "110-real", minutes=60),
    # An Orin gets the one without CUDA, to turn checkpoints into engine files: torch's wheels hold no code for its GPU.
    Recipe(
        name="transformers",
        targets=(CPU, ORIN, ORIN_6, ORIN_6_1),
        lock=PurePosixPath("requirements/transformers.lock"),
        torch=PurePosixPath("images/transformers/requirements.in"),
        sources=LLAMA_CPP_SOURCES,
        disk_bytes=976_000_000,
        minutes=3,
    ),
    Recipe(
        name="transformers",
        variant="cuda",
        targets=(CUDA, THOR),
        lock=PurePosixPath("requirements/transformers-cuda.lock"),
        sources=LLAMA_CPP_SOURCES,
        minutes=15,
    ),
    _edge_llm(ORIN, Family.ORIN),
    _edge_llm(THOR, Family.THOR),
    Recipe(name="tensorrt-llm", variant="cuda", targets=(CUDA,), base=TENSORRT_LLM, tools=DEBIAN, trees=(ENTRY,), minutes=30),
    Recipe(
        name=tensorrt_llm_jetson.NAME,
        variant=variant(ORIN_6_1),
        targets=(ORIN_6_1,),
        base=TENSORRT_LLM_JETSON,
        tools=l4t_base(ORIN_6_1.jetpack, "system"),
        trees=(ENTRY, PurePosixPath("images/transformers/worker")),
        lock=PurePosixPath("requirements/tensorrt-llm-jetson.lock"),
        minutes=30,
    ),
)


def recipes_for(target: Target) -> dict[str, Recipe]:
    """Pick the images of one kind of box, by name."""
    return {recipe.name: recipe for recipe in RECIPES if target in recipe.targets}


def find_recipes(names: Sequence[str], target: Target) -> tuple[Recipe, ...]:
    """
    Look the images for a box up by name; no name means all of them.

    Raises:
        ConfigError: naming every one that does not exist there, and those that do.

    """
    there = recipes_for(target)
    unknown = [name for name in names if name not in there]
    if unknown:
        known = ", ".join(sorted(there))
        raise ConfigError([f"no image for DEVICE={target.device} is called {name!r}; there are {known}" for name in unknown])
    return tuple(there[name] for name in dict.fromkeys(names or there))


def content_hash(parts: Iterable[tuple[str, bytes]]) -> str:
    """Hash named pieces of content to twelve hex digits; neither their order nor where one ends can be mistaken."""
    digest = hashlib.sha256()
    for name, content in sorted(parts):
        for piece in (name.encode(), content):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)
    return digest.hexdigest()[:12]


def base_tag(base: Base, files: Mapping[str, bytes], *, architecture: str) -> str:
    """
    Tag a base by the files that decide what it holds.

    The plain one's packages are those of the day it was made, and stay; a Jetson's have versions in those files.
    """
    if not base.inputs:
        return base.pulled
    parts = [(PurePosixPath(name).name.removesuffix("*"), content) for name, content in files.items()]
    stage = [(name, value.encode()) for name, value in (("stage", base.stage), ("jetpack", base.jetpack)) if value]
    tag = content_hash([*parts, *stage, ("architecture", architecture.encode())])
    return f"{REPOSITORY}/{base.name}:{'-'.join((*((base.stage,) if base.stage else ()), tag))}"


def image_tag(recipe: Recipe, files: Mapping[str, bytes], *, bases: Sequence[str], torch: str = "") -> str:
    """Tag an image by its files (path in the project → content), what it stands on, its arguments, and the torch asked for."""
    base, *tools = bases
    extras = [("base", base), ("torch", torch), *(("tools", tag) for tag in tools), *recipe.arguments]
    given = content_hash([*files.items(), *((name, value.encode()) for name, value in extras)])
    return f"{recipe.repository}:{given}"


def local_tag(recipe: Recipe) -> str:
    """Name the newest image of this checkout, whatever box it is for: it is what an engine runs in where nobody names another."""
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


def build_argv(
    *,
    tags: Sequence[str],
    context: str,
    dockerfile: str = "",
    stage: str = "",
    arguments: Mapping[str, str],
    environ: Mapping[str, str],
) -> list[str]:
    """
    Build the `docker build` command; it is the same for the legacy builder and for BuildKit.

    The build uses the host's network, since apt may have to go through a proxy that only the host can reach.
    """
    proxies = {name: environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if environ.get(name)}
    return [
        "docker", "build",
        "--network", "host",
        *(("--file", dockerfile) if dockerfile else ()),
        *(("--target", stage) if stage else ()),
        *(part for name, value in {**arguments, **proxies}.items() for part in ("--build-arg", f"{name}={value}")),
        *(part for tag in tags for part in ("--tag", tag)),
        context,
    ]  # fmt: skip


def image_variables(tags: Mapping[str, str], *, base: str, target: Target) -> str:
    """
    Write the tags (image name → tag) as an environment file for Compose and the tests, which build on the base.

    Images for processors know no GPU by name, and their workers would not begin where the box has one.
    """
    variables = {recipe.name: recipe.variable for recipe in RECIPES}
    kept = {"WINDLASS_BASE_IMAGE": base, "WINDLASS_USE_GPU": "false" if target == CPU else "true"}
    named = {variables[name]: tag for name, tag in tags.items()}
    return "".join(f"{variable}={tag}\n" for variable, tag in sorted({**kept, **named}.items()))
