"""Whether a box can take a release, and why not. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from controller.ops.deploy.host import Host
from controller.ops.deploy.layers import Image
from controller.ops.targets import JETPACKS, Target
from controller.probes.jetson import jetpack_of
from controller.units import GIB, MIB, format_bytes

OLDEST_ENGINE: Final = (20, 10)
SMALLEST_MEMORY_BYTES: Final = GIB
"""Controller and gateway twice, for the time of a trial, the system, and the built-in model."""
SPARE_BYTES: Final = 256 * MIB
"""What must stay free on a disk that something is copied to."""

FULL: Final = (
    "the disk of its container engine is full: remove models that nobody wants, or images with `docker image prune`, "
    "and run this again; what has come stays there"
)
"""Said where an engine has run out of room, although there were as many bytes free as its layers have."""


def access_problems(host: Host) -> Iterator[str]:
    """Say what keeps anything from being done on the box."""
    if not host.root and not host.sudo:
        yield (
            "wanted root, or sudo without a password, and there is neither: log in as root, or allow it on the box with\n"
            '  echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/windlass'
        )
    if host.on_trial:  # what is done to it now would be held against the update, or taken back with it
        yield (
            "its operating system was updated and is on trial: run this again when it is confirmed or gone, "
            "ten minutes after its start as a rule; `windlass update --status` on the box says so"
        )


def target_problems(host: Host, target: Target, *, guessed: bool) -> Iterator[str]:
    """
    Say why images for a kind of box are not for this one.

    Args:
        host: the box.
        target: the kind of box.
        guessed: nobody has named it.

    """
    jetpack = jetpack_of(host.l4t) if host.l4t else ""
    if target.jetpack and jetpack != target.jetpack:
        runs = f"JetPack {jetpack} (L4T {host.l4t})" if host.l4t else f"{host.system or 'another system'}, no JetPack"
        yield f"the images are for JetPack {target.jetpack} and the box runs {runs}: choose with DEVICE= and JETPACK="
    elif host.l4t and guessed and not target.jetpack:
        yield (
            f"the box is a Jetson (L4T {host.l4t}), and the images are not for one: "
            f"name it with DEVICE={' or DEVICE='.join(JETPACKS)}; DEVICE=cpu if it is to go without its GPU"
        )


def problems(
    host: Host, *, name: str, target: Target, images: Sequence[Image], tags: Iterable[str], guessed: bool = False
) -> Iterator[str]:
    """
    Say why a box cannot take a release.

    Args:
        host: the box.
        name: what ssh calls it.
        target: the kind of box that the images are made for.
        images: those of the release that this machine has.
        tags: all that the release needs, those that only the box has as well.
        guessed: nobody has named the kind of box.

    """
    yield from access_problems(host)
    yield from _software(host, name)
    yield from target_problems(host, target, guessed=guessed)
    there = {image.tag for image in host.images}
    here = {image.tag: image for image in images}
    for tag in tags:
        if tag in there:
            continue
        if tag not in here:
            yield f"{tag} is neither here nor on the box: make images DEVICE={target.device} on a machine with its processors"
        elif here[tag].architecture != host.architecture:
            yield f"{tag} is for {here[tag].architecture} and the box is {host.architecture}: run make images on such a machine"
    if 0 < host.memory_bytes < SMALLEST_MEMORY_BYTES:
        yield f"the box has {format_bytes(host.memory_bytes)} of memory: wanted {format_bytes(SMALLEST_MEMORY_BYTES)} at least"


def _software(host: Host, name: str) -> Iterator[str]:
    provision = f"make provision HOST={name}"
    if not host.engine:
        yield f"no container engine answers ({host.engine_error or 'docker is not installed'}): {provision}"
    elif _parts(host.engine) < OLDEST_ENGINE:
        yield f"its container engine is {host.engine}: wanted 20.10 or newer; update it"
    elif not host.compose:
        yield f"it has no Compose: {provision}"
    if not host.rsync:
        yield f"it has no rsync: {provision}"
    if not host.package:
        yield f"the package windlass-box is not installed: {provision}"


def room_problems(host: Host, *, sent_bytes: int, arrived_bytes: int = 0) -> Iterator[str]:
    """
    Say where a box has no room for layers, which for a while lie there twice: as they came, and in its engine.

    An engine that keeps images with containerd has each of them twice itself: packed as in an archive, and unpacked.

    Args:
        host: the box.
        sent_bytes: all layers that it is to get.
        arrived_bytes: what of them lies there already, as an earlier copy has left it.

    """
    if not sent_bytes:
        return
    missing_bytes = sent_bytes - arrived_bytes
    kept_bytes = (2 if host.whole_images else 1) * sent_bytes
    needs = {"for models": (missing_bytes, host.data_free_bytes), "of its container engine": (kept_bytes, host.engine_free_bytes)}
    if host.one_disk:
        needs = {"of the box": (missing_bytes + kept_bytes, host.data_free_bytes)}
    for which, (wanted, free) in needs.items():
        if free < wanted + SPARE_BYTES:
            yield (
                f"the disk {which} has {format_bytes(free)} free: wanted {format_bytes(wanted + SPARE_BYTES)} for new layers; "
                "remove models that nobody wants, or images with `docker image prune`"
            )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+", maxsplit=1)[0].split(".")[:2] if part.isdecimal())
