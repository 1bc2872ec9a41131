"""
Make the images that are missing: `python -m controller.ops.images build controller llama-cpp`, for the box that DEVICE names.

What an image is made of and what its tag is, `recipes` decides; here files are read and commands run. The base comes from the
distribution's packages, the rest from the package index through the host's own pip; what is pulled instead has a digest.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer
from rich.console import Console

from controller.ops import bill, bill_table, recipes, wheels
from controller.ops.bill import Bill, Shown
from controller.ops.recipes import Recipe
from controller.ops.shelf import Shelf
from controller.ops.steps import StepError, console, run_program, run_step
from controller.ops.targets import CPU, DEBIAN, Base, Target, find_architecture, guess_target, read_wish, recall_target
from controller.probes.jetson import read_jetson
from controller.probes.system import LocalSystem, System
from controller.units import format_bytes

DRIVER_VERSION: Final = Path("/proc/driver/nvidia/version")


def read_files(project: Path, inputs: Iterable[PurePosixPath]) -> dict[str, bytes]:
    """Read every file in *inputs* (folders and files), keyed by its path in the project, with `*` after it if executable."""
    found: dict[str, bytes] = {}
    for start in inputs:
        top = project / start
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            inside = path.relative_to(project)
            if path.is_file() and recipes.is_content(inside):
                executable = "*" if path.stat().st_mode & 0o100 else ""
                found[f"{inside.as_posix()}{executable}"] = path.read_bytes()
    return found


def read_tags(file: Path) -> dict[str, str]:
    """Read back the tags an earlier build has written, as variable → tag."""
    if not file.exists():
        return {}
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)


class Builder:
    """Makes images of one checkout for one kind of box, with one engine."""

    def __init__(self, project: Path, *, environ: Mapping[str, str], target: Target = CPU) -> None:
        """Keep the place and the environment; nothing is looked at yet."""
        self._project = project
        self._build = project / "build"
        self._environ = environ
        self._target = target
        self._architecture = find_architecture(target, platform.machine())
        self._torch = environ.get("WINDLASS_TORCH", "")
        self._shelf = Shelf(project, architecture=self._architecture, torch=self._torch)

    @property
    def base(self) -> str:
        """The tag of the plain base image."""
        return self.base_tag(DEBIAN)

    @property
    def makes_here(self) -> bool:
        """Whether this machine has the processors that the images are for."""
        return self._architecture == platform.machine()

    def base_tag(self, base: Base) -> str:
        """Return the tag a base has, or will have when it is made."""
        return recipes.base_tag(base, read_files(self._project, base.inputs), architecture=self._architecture)

    def tag(self, recipe: Recipe) -> str:
        """Return the tag the image has, or will have when it is made."""
        files = read_files(self._project, recipe.inputs)
        own = {name: content for name, content in files.items() if recipe.holds(PurePosixPath(name.removesuffix("*")))}
        bases = [self.base_tag(base) for base in recipe.bases]
        return recipes.image_tag(recipe, own, bases=bases, torch=self._torch if recipe.torch else "")

    def bills(self, names: Iterable[str]) -> list[Bill]:
        """Say what images would be made of, from the lists in the tree."""
        wanted = recipes.find_recipes(list(names), self._target)
        shown = Shown(
            files={path: (self._project / path).read_text(encoding="utf-8") for path in bill.paths(wanted)},
            pins=wheels.read_pins((self._project / "requirements" / "files.txt").read_text(encoding="utf-8")),
            torch=self._torch,
        )
        return [
            bill.write_bill(
                recipe,
                self.tag(recipe),
                bases=list(dict.fromkeys(self.base_tag(base) for base in recipe.bases)),
                shown=shown,
                machine=self._architecture,
            )
            for recipe in wanted
        ]

    def ensure_base(self, base: Base = DEBIAN) -> str:
        """Make a base image if it is missing, and return its tag."""
        tag = self.base_tag(base)
        if _exists(tag):
            return tag
        if not base.inputs:
            run_step(f"{base.name}, of many gigabytes", ["docker", "pull", tag], log=self._log(base.name))
            return tag
        if base is DEBIAN:
            script = self._project / base.inputs[0]
            run_step("base image from Debian's packages, about 1 min", [str(script), tag], log=self._log("base"))
            return tag
        context = self._build / "context" / base.name
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        for path in base.inputs:
            shutil.copy(self._project / path, context)
        argv = recipes.build_argv(
            tags=(tag,),
            context=str(context),
            dockerfile=str(context / base.inputs[0].name),
            stage=base.stage,
            arguments={"BASE": base.pulled, "JETPACK": base.jetpack},
            environ=self._environ,
        )
        run_step(f"{base.name} ({base.stage}) for JetPack {base.jetpack}", argv, log=self._log(f"{base.name}-{base.stage}"))
        shutil.rmtree(context)
        return tag

    def ensure(self, names: Iterable[str]) -> dict[str, str]:
        """Make what is missing, and return the tags of all images for this kind of box that exist now."""
        asked = list(names)
        wanted = recipes.find_recipes(asked, self._target) if asked else ()
        if wanted and not self.makes_here:
            raise StepError(
                f"images for DEVICE={self._target.device} are made on {self._architecture}, and this is {platform.machine()}: "
                "run this on the board, or see with DRY_RUN=1 what would be made"
            )
        tags = {recipe.name: self.tag(recipe) for recipe in recipes.recipes_for(self._target).values()}
        for recipe in wanted:
            tag = tags[recipe.name]
            if _exists(tag):
                _docker("tag", tag, recipes.local_tag(recipe))
                console.print(f"  [green]ready[/] {tag}")
            else:
                self._make(recipe, tag)
                _forget_old(recipe)
        return {name: tag for name, tag in tags.items() if _exists(tag)}

    def record(self, tags: Mapping[str, str]) -> Path:
        """Write the tags where Compose and the tests read them, and remember for which box they are where a person said so."""
        self._build.mkdir(exist_ok=True)
        # What a Jetson says of itself is asked again: its next release needs other images.
        if read_wish(self._environ):
            (self._build / "device").write_text(f"{self._target}\n", encoding="utf-8")
        file = self._build / "images.env"
        file.write_text(recipes.image_variables(tags, base=self.base, target=self._target), encoding="utf-8")
        return file

    def _make(self, recipe: Recipe, tag: str) -> None:
        stands_on = dict(zip(("BASE", "TOOLS"), [self.ensure_base(base) for base in recipe.bases], strict=False))
        context = self._stage(recipe)
        argv = recipes.build_argv(
            tags=(tag, recipes.local_tag(recipe)),
            context=str(context),
            dockerfile="" if recipe.dockerfile == "Dockerfile" else str(context / recipe.dockerfile),
            arguments={**stands_on, **dict(recipe.arguments)},
            environ=self._environ,
        )
        name = tag.removeprefix(f"{recipes.REPOSITORY}/").partition(":")[0]
        run_step(f"image {name}, about {recipe.minutes} min", argv, log=self._log(name))
        shutil.rmtree(context)

    def _stage(self, recipe: Recipe) -> Path:
        """Lay out a build context: the image's folder, the trees, the lock, `wheels/`, and the sources."""
        context = self._build / "context" / recipe.name
        shutil.rmtree(context, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(self._project / recipe.folder, context, ignore=skip)
        for tree in recipe.trees:
            shutil.copytree(self._project / tree, context / tree.name, ignore=skip)
        # A compiler may come as wheels or with the base, and its Dockerfile copies the folder in either case.
        (context / "wheels").mkdir()
        if recipe.lock:
            shutil.copy(self._project / recipe.lock, context / "requirements.lock")
            _link_tree(self._shelf.wheels(recipe, recipe.lock), context / "wheels")
        if recipe.torch:
            _link_tree(self._shelf.torch(recipe, recipe.torch), context / "wheels")
        if recipe.sources:
            # Named as the Dockerfile knows them: without the version.
            for file in self._shelf.sources(recipe.sources).iterdir():
                shutil.copy(file, context / f"{file.name.rpartition('-')[0]}.tar.gz")
        return context

    def _log(self, name: str) -> Path:
        return self._build / "logs" / f"{name}.log"


def _docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepError(f"docker {argv[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _exists(tag: str) -> bool:
    try:
        _docker("image", "inspect", "--format", "{{.Id}}", tag)
    except StepError as exc:
        if "no such image" in str(exc).lower():
            return False
        raise
    return True


def _forget_old(recipe: Recipe) -> None:
    """Remove all but the newest few images of this name, so that working on the code does not fill the disk; one in use stays."""
    listed = _docker("images", "--format", "{{.Tag}}", recipe.repository).splitlines()
    for tag in recipes.old_tags(listed):
        subprocess.run(["docker", "rmi", f"{recipe.repository}:{tag}"], capture_output=True, check=False)
    subprocess.run(recipes.forget_stages_argv(recipe), capture_output=True, check=False)


def _link_tree(source: Path, target: Path) -> None:
    """Make the files of *source* appear in *target*, without copying where both are on one file system."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        try:
            (target / file.name).hardlink_to(file)
        except FileExistsError:
            continue
        except OSError:
            shutil.copy(file, target / file.name)


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Images of this checkout.")


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Images to make if they are missing; all for the box without any.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make nothing; say what would be made of what.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: for programs.")] = False,
) -> None:
    """Make the images that are missing and record their tags in build/images.env; DEVICE and JETPACK choose for which box."""
    project = Path.cwd()
    target = find_target(project, os.environ, LocalSystem())
    builder = Builder(project, environ=os.environ, target=target)
    if dry_run:
        _show(target, builder.bills(names or ()), as_json=json)
        return
    if target == CPU and DRIVER_VERSION.exists():
        console.print(
            "  this box has NVIDIA's driver, and these images do not use it; make images DEVICE=cuda makes some that do"
        )
    builder.ensure_base()  # the tests make an image of their own on it
    builder.record(builder.ensure(recipe.name for recipe in recipes.find_recipes(names or (), target)))


def _show(target: Target, bills: Sequence[Bill], *, as_json: bool) -> None:
    if as_json:
        print(dumps(bill.as_json(target, bills), indent=2))  # noqa: T201 -- for programs
        return
    wide = Console(highlight=False, width=None if console.is_terminal else 200)
    for one in bills:
        wide.print(bill_table.draw(one), "")
    wide.print(bill_table.conclude(target, bills))


def said_target(project: Path, environ: Mapping[str, str]) -> Target | None:
    """
    Return the kind of box that somebody has named, now or last time; `None` if nobody has.

    Raises:
        ConfigError: there are no images for what DEVICE and JETPACK say.

    """
    remembered = project / "build" / "device"
    if not (wish := read_wish(environ)) and remembered.exists():
        return recall_target(remembered.read_text(encoding="utf-8"))
    return wish


def find_target(project: Path, environ: Mapping[str, str], system: System) -> Target:
    """
    Find out for which box images are made: what DEVICE says, said last time, a Jetson says of itself, or else one without a GPU.

    Raises:
        ConfigError: there are no images for what DEVICE and JETPACK say.

    """
    if said := said_target(project, environ):
        return said
    jetson = read_jetson(system)
    return (jetson and guess_target(jetson.family, jetson.l4t)) or CPU


@app.command()
def sizes() -> None:
    """List the images of this checkout that exist, with their sizes."""
    builder = Builder(Path.cwd(), environ=os.environ, target=find_target(Path.cwd(), os.environ, LocalSystem()))
    for name, tag in builder.ensure([]).items():
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", tag))
        console.print(f"{name:14} {format_bytes(size):>9}  {tag}")


if __name__ == "__main__":
    run_program(app)
