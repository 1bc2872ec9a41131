"""
Make the images that are missing: `python -m controller.ops.images build controller llama-cpp`.

What an image is made of and what its tag is, `recipes` decides; here files are read and commands run. Nothing is pulled: the base
comes from the distribution's packages, the rest from the package index through the host's own pip.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from controller.errors import WindlassError
from controller.ops import recipes
from controller.ops.recipes import RECIPES, Recipe
from controller.ops.steps import StepError, console, run_step
from controller.units import format_bytes

PIP: Final = (sys.executable, "-m", "pip")


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
    """Makes images of one checkout with one engine."""

    def __init__(self, project: Path, *, environ: Mapping[str, str]) -> None:
        """Keep the place and the environment; nothing is looked at yet."""
        self._project = project
        self._build = project / "build"
        self._environ = environ
        self._architecture = platform.machine()
        self._torch = environ.get("WINDLASS_TORCH", "")

    @property
    def base(self) -> str:
        """The tag of the base image."""
        script = (self._project / recipes.BASE_SCRIPT).read_bytes()
        return recipes.base_tag(script, architecture=self._architecture)

    def tag(self, recipe: Recipe) -> str:
        """Return the tag the image has, or will have when it is made."""
        files = read_files(self._project, recipe.inputs)
        return recipes.image_tag(recipe, files, base=self.base, torch=self._torch if recipe.torch else "")

    def ensure_base(self) -> None:
        """Make the base image if it is missing."""
        if not _exists(self.base):
            script = self._project / recipes.BASE_SCRIPT
            run_step("base image from Debian's packages, about 1 min", [str(script), self.base], log=self._log("base"))

    def ensure(self, names: Iterable[str]) -> dict[str, str]:
        """Make what is missing, and return the tags of all images of this checkout that exist now."""
        wanted = recipes.find_recipes(list(names))
        tags = {recipe.name: self.tag(recipe) for recipe in RECIPES.values()}
        for recipe in wanted:
            tag = tags[recipe.name]
            if _exists(tag):
                _docker("tag", tag, recipes.local_tag(recipe))
                console.print(f"  [green]ready[/] {tag}")
            else:
                self.ensure_base()
                self._make(recipe, tag)
                _forget_old(recipe)
        return {name: tag for name, tag in tags.items() if _exists(tag)}

    def record(self, tags: Mapping[str, str]) -> Path:
        """Write the tags where Compose and the tests read them."""
        self._build.mkdir(exist_ok=True)
        file = self._build / "images.env"
        file.write_text(recipes.image_variables(tags, base=self.base), encoding="utf-8")
        return file

    def _make(self, recipe: Recipe, tag: str) -> None:
        context = self._stage(recipe)
        argv = recipes.build_argv(
            tags=(tag, recipes.local_tag(recipe)), context=str(context), base=self.base, environ=self._environ
        )
        run_step(f"image {recipe.name}, about {recipe.minutes} min", argv, log=self._log(recipe.name))
        shutil.rmtree(context)

    def _stage(self, recipe: Recipe) -> Path:
        """Lay out a build context: the image's folder, the trees, the lock, `wheels/`, and the sources."""
        context = self._build / "context" / recipe.name
        shutil.rmtree(context, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(self._project / recipe.folder, context, ignore=skip)
        for tree in recipe.trees:
            shutil.copytree(self._project / tree, context / tree.name, ignore=skip)
        if recipe.lock:
            shutil.copy(self._project / recipe.lock, context / "requirements.lock")
            _link_tree(self._wheels(recipe, recipe.lock), context / "wheels")
        if recipe.torch:
            _link_tree(self._torch_wheels(recipe.torch, recipe.lock), context / "wheels")
        if recipe.sources:
            self._add_sources(recipe, context)
        return context

    def _wheels(self, recipe: Recipe, lock: PurePosixPath) -> Path:
        """Collect the wheels of a lock once."""
        content = (self._project / lock).read_bytes()
        folder = self._cache("wheels", recipe.name, content)
        if not folder.exists():
            self._collect(f"wheels for {recipe.name}", recipes.locked(str(self._project / lock)), folder)
        return folder

    def _torch_wheels(self, listed: PurePosixPath, lock: PurePosixPath | None) -> Path:
        """Collect torch once, trying the build without CUDA first."""
        pin = recipes.torch_pin((self._project / listed).read_text(encoding="utf-8"))
        choices = recipes.torch_choices(pin, self._torch)
        folder = self._cache("wheels", "torch", " ".join(choices).encode())
        if folder.exists():
            return folder
        constraints = self._build / "torch-constraints.txt"
        locked = (self._project / lock).read_text(encoding="utf-8") if lock else ""
        constraints.write_text("\n".join(recipes.pinned(locked)) + "\n", encoding="utf-8")
        for number, choice in enumerate(choices, start=1):
            alone = ["--no-deps"] if choice.endswith("+cpu") else ["--constraint", str(constraints)]
            try:
                self._collect(f"{choice} (0.2 GB for CPU, some GB with CUDA)", [*alone, choice], folder)
            except StepError:
                if number == len(choices):
                    raise
                console.print(f"  the package index has no {choice}; taking its default build, which may bring CUDA")
            else:
                break
        return folder

    def _collect(self, title: str, wanted: list[str], folder: Path) -> None:
        """Download into a temporary name and rename, so that a folder that exists is whole."""
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        argv = recipes.wheels_argv(PIP, wanted, destination=str(partial), architecture=self._architecture)
        run_step(title, argv, log=self._log(f"wheels-{folder.name}"))
        partial.rename(folder)

    def _add_sources(self, recipe: Recipe, context: Path) -> None:
        """Put the source releases into the context, named as the Dockerfile knows them: without the version."""
        assert recipe.sources is not None
        listed = self._project / recipe.sources
        # Named after the list and not the image: two images are made of the same release.
        folder = self._cache("sources", recipe.sources.parent.name, listed.read_bytes())
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            argv = recipes.sources_argv(PIP, str(listed), destination=str(partial))
            run_step(f"source release for {recipe.name}", argv, log=self._log(f"sources-{recipe.name}"))
            partial.rename(folder)
        for file in folder.iterdir():
            shutil.copy(file, context / f"{file.name.rpartition('-')[0]}.tar.gz")

    def _cache(self, kind: str, name: str, content: bytes) -> Path:
        return self._build / kind / f"{name}-{recipes.content_hash([(name, content)])}"

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
    listed = _docker("images", "--format", "{{.Tag}}", f"{recipes.REPOSITORY}/{recipe.name}").splitlines()
    for tag in recipes.old_tags(listed):
        subprocess.run(["docker", "rmi", f"{recipes.REPOSITORY}/{recipe.name}:{tag}"], capture_output=True, check=False)
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
def build(names: Annotated[list[str], typer.Argument(help="Images to make if they are missing.")]) -> None:
    """Make the images that are missing and record their tags in build/images.env."""
    builder = Builder(Path.cwd(), environ=os.environ)
    try:
        builder.ensure_base()  # the tests make an image of their own on it
        builder.record(builder.ensure(names))
    except WindlassError as exc:
        console.print(f"[red]{exc}[/]")
        raise typer.Exit(1) from None


@app.command()
def sizes() -> None:
    """List the images of this checkout that exist, with their sizes."""
    builder = Builder(Path.cwd(), environ=os.environ)
    for name, tag in builder.ensure([]).items():
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", tag))
        console.print(f"{name:14} {format_bytes(size):>9}  {tag}")


if __name__ == "__main__":
    app()
