"""What a box says of itself, read from what `probe.sh` prints. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controller.ops.deploy.layers import Image
from controller.probes.jetson import parse_release

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Processors as the kernel calls them, and as container engines do."""
DIGITS: Final = 18
"""No number of a box has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """
    One box.

    Attributes:
        machine: its processors, as the kernel calls them.
        system: its operating system, for people.
        l4t: its release of Jetson Linux; empty elsewhere.
        root: who logs in is root.
        sudo: who logs in may become root without a password.
        memory_bytes: all of its memory.
        engine: the version of its container engine; empty if none answers.
        engine_error: why none answers.
        whole_images: its engine keeps images with containerd, which wants every layer of what it loads.
        compose: the version of Compose; empty if there is none.
        rsync: whether there is one.
        package: the version of its box package; empty if it is not installed.
        data_free_bytes: room where releases and models lie.
        engine_free_bytes: room where the engine keeps images.
        one_disk: both are the same room.
        arrived: the layers that an earlier copy has left there, by their files' names, with what has come of each.
        images: what its engine holds.
        loading: its engine was loading images when it was cut, or is at it still; which of them are whole nobody knows.
        switching: the release that it is switching to at this moment; empty if to none.
        on_trial: its operating system was updated and has not been confirmed yet.
        status: what the box says of its releases.

    """

    machine: str
    system: str = ""
    l4t: str = ""
    root: bool = True
    sudo: bool = False
    memory_bytes: int = 0
    engine: str = ""
    engine_error: str = ""
    whole_images: bool = False
    compose: str = ""
    rsync: bool = False
    package: str = ""
    data_free_bytes: int = 0
    engine_free_bytes: int = 0
    one_disk: bool = True
    arrived: Mapping[str, int] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    loading: bool = False
    switching: str = ""
    on_trial: bool = False
    status: Mapping[str, Any] | None = None

    @property
    def architecture(self) -> str:
        """Its processors, as container engines call them."""
        return ARCHITECTURES.get(self.machine, self.machine)


def read_host(text: str) -> Host:
    """Read the lines of `probe.sh`: a name, a tab, a value."""
    values: dict[str, str] = {}
    images: list[Image] = []
    arrived: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition("\t")
        if name == "image":
            images.extend(_images(value))
        elif name == "arrived":
            file, _, size = value.partition(" ")
            arrived[file] = _number(size)
        else:
            values[name] = value.strip()
    return Host(
        machine=values.get("machine", ""),
        system=values.get("system", ""),
        l4t=parse_release(values.get("l4t", "")),
        root=values.get("uid") == "0",
        sudo=values.get("sudo") == "yes",
        memory_bytes=_number(values.get("memory_kib", "")) * 1024,
        engine=values.get("engine", ""),
        engine_error=values.get("engine_error", ""),
        whole_images="io.containerd.snapshotter" in values.get("store", ""),
        compose=values.get("compose", ""),
        rsync=bool(values.get("rsync")),
        package=values.get("package", ""),
        data_free_bytes=_number(values.get("data_free", "")),
        engine_free_bytes=_number(values.get("engine_free", "")),
        one_disk=values.get("data_disk") == values.get("engine_disk"),
        arrived=arrived,
        images=tuple(images),
        loading=values.get("loading") == "yes",
        switching=values.get("switching", "").removeprefix("windlass-switch@").removesuffix(".service"),
        on_trial=values.get("trial") == "yes",
        status=_status(values.get("status", "")),
    )


def _images(value: str) -> Iterable[Image]:
    """Read `tag tag|architecture|layer layer`; an image without a name counts as well, since its layers are there."""
    tags, architecture, layers, *_ = (*value.split("|"), "", "")
    for tag in tags.split() or [""]:
        yield Image(tag=tag, layers=tuple(layers.split()), architecture=architecture)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= DIGITS else 0


def _status(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
