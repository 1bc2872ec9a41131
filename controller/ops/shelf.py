"""
What images are made of and comes from the package index: wheels and source releases, collected once each.

A folder on the shelf is named by a hash of the list that was asked for, and filled under another name first, so that one which
exists is whole.
"""

import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Final

from controller.ops import recipes, wheels
from controller.ops.recipes import Recipe
from controller.ops.steps import StepError, console, run_step

PIP: Final = (sys.executable, "-m", "pip")


class Shelf:
    """The collected wheels and sources of one checkout."""

    def __init__(self, project: Path, *, architecture: str, torch: str = "") -> None:
        """Keep the place, the processors that are collected for, and the torch that was asked for."""
        self._project = project
        self._build = project / "build"
        self._architecture = architecture
        self._torch = torch

    def wheels(self, recipe: Recipe, lock: PurePosixPath) -> Path:
        """Return the folder with the wheels of a lock."""
        name = "-".join(part for part in (recipe.name, recipe.variant) if part)
        folder = self._folder("wheels", name, (self._project / lock).read_bytes())
        if not folder.exists():
            self._collect(recipe, f"wheels for {name}", wheels.locked(str(self._project / lock)), folder)
        return folder

    def torch(self, recipe: Recipe, listed: PurePosixPath) -> Path:
        """Return the folder with torch and what it needs beyond the recipe's lock."""
        pin = wheels.torch_pin((self._project / listed).read_text(encoding="utf-8"))
        choices = wheels.torch_choices(pin, self._torch)
        folder = self._folder("wheels", "torch", " ".join(choices).encode())
        if folder.exists():
            return folder
        constraints = self._build / "torch-constraints.txt"
        locked = (self._project / recipe.lock).read_text(encoding="utf-8") if recipe.lock else ""
        constraints.write_text("\n".join(wheels.pinned(locked)) + "\n", encoding="utf-8")
        for number, choice in enumerate(choices, start=1):
            alone = ["--no-deps"] if choice.endswith("+cpu") else ["--constraint", str(constraints)]
            try:
                self._collect(recipe, f"{choice} (0.2 GB for CPU, some GB with CUDA)", [*alone, choice], folder)
            except StepError:
                if number == len(choices):
                    raise
                console.print(f"  the package index has no {choice}; taking its default build, which may bring CUDA")
            else:
                break
        return folder

    def sources(self, listed: PurePosixPath) -> Path:
        """Return the folder with the source releases of a list."""
        # Named after the list and not the image: several images are made of the same release.
        content = (self._project / listed).read_bytes()
        folder = self._folder("sources", listed.parent.name, content)
        if not folder.exists():
            partial = _begin(folder)
            argv = wheels.sources_argv(PIP, str(self._project / listed), destination=str(partial))
            run_step(f"source release of {listed.parent.name}", argv, log=self._log(f"sources-{listed.parent.name}"))
            partial.rename(folder)
        return folder

    def _collect(self, recipe: Recipe, title: str, wanted: list[str], folder: Path) -> None:
        partial = _begin(folder)
        argv = wheels.wheels_argv(PIP, wanted, destination=str(partial), base=recipe.base, architecture=self._architecture)
        run_step(title, argv, log=self._log(f"wheels-{folder.name}"))
        partial.rename(folder)

    def _folder(self, kind: str, name: str, content: bytes) -> Path:
        return self._build / kind / f"{name}-{recipes.content_hash([(name, content)])}"

    def _log(self, name: str) -> Path:
        return self._build / "logs" / f"{name}.log"


def _begin(folder: Path) -> Path:
    """Make the folder that is filled before it gets its name."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial
