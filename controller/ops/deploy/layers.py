"""
Which pieces of images a box lacks. Pure.

An image is a list of layers. An engine keeps each layer once for every stack of layers that it lies on, and knows the stack by
its chain id. A layer that the box has on another stack must be sent again; of a stack that it has, nothing is opened in what it
loads, and so nothing need be there.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

MANIFEST: Final = "manifest.json"
"""The name by which `docker load` finds what is in an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    One image, wherever it lies.

    Attributes:
        tag: its name.
        layers: the digests of its unpacked layers, lowest first.
        architecture: the processors it is for, as the engine calls them.

    """

    tag: str
    layers: tuple[str, ...]
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """
    One image as it travels: a configuration and the names of its layers' files.

    Attributes:
        tag: its name.
        config: the name of the configuration's file.
        layers: the digests of its unpacked layers, lowest first.

    """

    tag: str
    config: str
    layers: tuple[str, ...]


def chains(layers: Sequence[str]) -> list[str]:
    """Return the chain id of every stack from the lowest layer up, as the OCI image specification defines it."""
    return list(accumulate(layers, lambda below, layer: f"sha256:{hashlib.sha256(f'{below} {layer}'.encode()).hexdigest()}"))


def missing_images(wanted: Iterable[Image], there: Iterable[Image]) -> tuple[Image, ...]:
    """Return the images that a box lacks, or has under this name with other content."""
    known = {(image.tag, image.layers) for image in there}
    return tuple(image for image in wanted if (image.tag, image.layers) not in known)


def missing_layers(wanted: Iterable[Image], there: Iterable[Image], *, whole: bool = False) -> tuple[str, ...]:
    """
    Return the layers to send, each once, in the order in which they are needed.

    Args:
        wanted: the images that the box lacks.
        there: the images it has.
        whole: send all of them, for an engine that takes only whole images.

    """
    stacks = set() if whole else {chain for image in there for chain in chains(image.layers)}
    needed = (
        layer for image in wanted for layer, chain in zip(image.layers, chains(image.layers), strict=True) if chain not in stacks
    )
    return tuple(dict.fromkeys(needed))


def layer_file(digest: str) -> str:
    """Name the file a layer travels in."""
    return f"{digest.removeprefix('sha256:')}.tar"


def write_manifest(images: Iterable[Packed]) -> str:
    """Write the list by which an engine loads *images*; it names every layer, those that are not sent as well."""
    content = [
        {"Config": image.config, "RepoTags": [image.tag], "Layers": [layer_file(layer) for layer in image.layers]}
        for image in images
    ]
    return json.dumps(content, indent=2) + "\n"


def write_tags(images: Iterable[Packed]) -> str:
    """Write which images these are, for the box to give them up should their loading be cut."""
    return "".join(f"{image.tag}\n" for image in images)


def write_sums(layers: Collection[str]) -> str:
    """Write what `sha256sum --check` holds the files of *layers* against."""
    return "".join(f"{layer.removeprefix('sha256:')}  {layer_file(layer)}\n" for layer in layers)
