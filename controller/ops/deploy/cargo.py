"""What is brought to a box. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.ops.deploy.layers import Image
from controller.ops.release import release_env
from controller.ops.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """
    One release.

    Attributes:
        version: its name.
        files: the files that lie in its folder on a box, by name.
        tags: the images it runs.

    """

    version: str
    files: Mapping[str, str]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    What a box is to run.

    Attributes:
        release: its files and its images.
        images: those of its images that this machine has.
        target: the kind of box they are made for.
        folder: where layers and files lie here until they are copied.
        guessed: nobody has said which kind of box it is.
        break_lock: somebody's lock is taken away.

    """

    release: Release
    images: tuple[Image, ...]
    target: Target
    folder: Path
    guessed: bool = False
    break_lock: bool = False


def compose_release(
    version: str, images: Mapping[str, str], *, settings: Mapping[str, str], files: Mapping[str, str], chosen: Sequence[str] = ()
) -> Release:
    """
    Put a release together.

    Args:
        version: what this checkout is called.
        images: tags by the variables that carry them.
        settings: what else goes with the images.
        files: the Compose files, by name.
        chosen: engines, where somebody wants these alone; a release with fewer images is another one, and is called so.

    """
    named = "-".join((version, *sorted(chosen)))
    return Release(
        version=named,
        files={"release.env": release_env(named, {**images, **settings}), **files},
        tags=tuple(images.values()),
    )
