"""
What an image would be made of, before anything is fetched: from the lists in the tree alone, on any machine.

What a list does not say is shown as unknown and counted as such; nothing is estimated.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from controller.ops.recipes import Recipe
from controller.ops.targets import L4T_PACKAGES, Base, Target
from controller.ops.wheels import FilePin, torch_pin

MEASURED: Final = "x86_64"
"""The processors for which images were made and weighed."""

_APT: Final = re.compile(r"apt-get install((?: --[\w-]+)*) ([^&|;\n]+?)\s*(?:\\?\n|&&|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """
    One thing that goes into an image, or is needed to make it.

    Attributes:
        kind: `base`, `package`, `wheel` or `source`.
        name: what it is called.
        version: which one; empty where the newest of the day is taken.
        sha256: its hash; empty where no list has one.
        size_bytes: what fetching it takes; `None` where no list says so.
        stays: it is in the image, and not only in what the image is compiled on.

    """

    kind: str
    name: str
    version: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    stays: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """
    One image and what it is made of.

    Attributes:
        image: its name.
        tag: the tag it would get.
        bases: the image it stands on, and the one it is compiled on where that is another.
        arguments: what its Dockerfile is told.
        disk_bytes: what one took that was made, its base included; `None` if nobody has made one.
        items: what goes in.

    """

    image: str
    tag: str
    bases: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    disk_bytes: int | None = None
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """
    The lists that a bill is read from.

    Attributes:
        files: path in the project → content, for every list and Dockerfile that recipes name.
        pins: what `requirements/files.txt` says.
        torch: the torch that was asked for; empty for the pinned one.

    """

    files: Mapping[PurePosixPath, str]
    pins: Sequence[FilePin]
    torch: str = ""


def paths(recipes: Iterable[Recipe]) -> list[PurePosixPath]:
    """Name the lists that `write_bill` reads for some images."""
    found = {
        path
        for recipe in recipes
        for path in (
            recipe.folder / recipe.dockerfile,
            recipe.lock,
            recipe.torch,
            recipe.sources,
            *(path for base in recipe.bases for path in base.inputs),
        )
        if path is not None
    }
    return sorted(found)


def write_bill(recipe: Recipe, tag: str, *, bases: Sequence[str], shown: Shown, machine: str) -> Bill:
    """
    List what one image would be made of, for one kind of processors.

    Args:
        recipe: the image.
        tag: what it would be called.
        bases: the tags of what it stands on and is compiled on.
        shown: the lists.
        machine: the processors, as the kernel calls them.

    """
    return Bill(
        image=recipe.name,
        tag=tag,
        bases=tuple(bases),
        arguments=recipe.arguments,
        disk_bytes=recipe.disk_bytes if machine == MEASURED else None,
        items=(
            *(item for base in dict.fromkeys(recipe.bases) for item in _base_items(base, shown, stays=base == recipe.base)),
            *_apt_items(shown.files[recipe.folder / recipe.dockerfile]),
            *_wheel_items(recipe, shown, machine),
            *_source_items(recipe, shown),
        ),
    )


def totals(bills: Iterable[Bill]) -> tuple[int, int, int]:
    """Add up what must be fetched, each thing once: bytes, how many things that is, and of how many the size is unknown."""
    items = {(item.kind, item.name, item.version, item.sha256): item for bill in bills for item in bill.items}
    known = [item.size_bytes for item in items.values() if item.size_bytes is not None]
    return sum(known), len(items), len(items) - len(known)


def as_json(target: Target, bills: Sequence[Bill]) -> dict[str, object]:
    """Return it for programs."""
    known_bytes, count, unknown = totals(bills)
    return {
        "device": target.device,
        "jetpack": target.jetpack or None,
        "images": [
            {
                "image": bill.image,
                "tag": bill.tag,
                "bases": list(bill.bases),
                "arguments": dict(bill.arguments),
                "disk_bytes": bill.disk_bytes,
                "items": [
                    {
                        "kind": item.kind,
                        "name": item.name,
                        "version": item.version or None,
                        "sha256": item.sha256 or None,
                        "bytes": item.size_bytes,
                        "in_image": item.stays,
                    }
                    for item in bill.items
                ],
            }
            for bill in bills
        ],
        "download": {"known_bytes": known_bytes, "items": count, "of_unknown_size": unknown},
    }


def _base_items(base: Base, shown: Shown, *, stays: bool) -> Iterable[Item]:
    if not base.pulled:
        yield Item(kind="base", name=f"{base.system}, packages of the day it is made", stays=stays)
        return
    name, _, digest = base.pulled.partition("@sha256:")
    yield Item(kind="base", name=name, version=base.system.split()[-1], sha256=digest, size_bytes=base.pulled_bytes, stays=stays)
    if not base.inputs:
        return
    listed = next(shown.files[path] for path in base.inputs if path.parent == L4T_PACKAGES and path.suffix != ".sh")
    for line in listed.splitlines():
        match line.split():
            case [stage, package, version, sha256] if stage == base.stage:
                yield Item(kind="package", name=package, version=version, sha256=sha256.removeprefix("-"), stays=stays)


def _apt_items(dockerfile: str) -> Iterable[Item]:
    """Read which packages of the distribution a Dockerfile asks for; those of its last stage stay in the image."""
    stages = re.split(r"^FROM ", dockerfile.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    for number, stage in enumerate(stages, start=1):
        for _, listed in _APT.findall(stage):
            for package in listed.split():
                if package[0].isalpha():
                    yield Item(kind="package", name=package, stays=number == len(stages))


def _wheel_items(recipe: Recipe, shown: Shown, machine: str) -> Iterable[Item]:
    wanted = {recipe.lock.stem} if recipe.lock else set()
    if recipe.torch:
        pin = shown.torch or torch_pin(shown.files[recipe.torch])
        yield Item(kind="wheel", name="torch", version=pin.partition("==")[2] + ("" if shown.torch else "+cpu"))
    for file in shown.pins:
        if file.lock in wanted and (file.python, file.machine) == (recipe.base.python_version, machine):
            yield Item(
                kind="wheel",
                name=file.name,
                version=file.version,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                stays=not recipe.kept_wheels or file.name in recipe.kept_wheels,
            )


def _source_items(recipe: Recipe, shown: Shown) -> Iterable[Item]:
    if recipe.sources is None:
        return
    sizes = {pin.sha256: pin.size_bytes for pin in shown.pins}
    for name, version, sha256 in re.findall(r"^([\w.-]+)==(\S+) --hash=sha256:(\w+)", shown.files[recipe.sources], re.MULTILINE):
        yield Item(kind="source", name=name, version=version, sha256=sha256, size_bytes=sizes.get(sha256), stays=False)
