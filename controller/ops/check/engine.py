"""The container engine, and the images it must have."""

import re
from collections.abc import Iterable
from typing import Final

from controller.ops.check.values import EngineFacts, Facts, Finding, error, warning

OLDEST_ENGINE: Final = (20, 10)


def engine(facts: Facts) -> Iterable[Finding]:
    """Judge the container engine."""
    engine = facts.engine
    if engine.info is None:
        yield error(
            "engine",
            f"the container engine does not answer: {engine.problem}",
            "sudo systemctl start docker\n`make run` installs it where it is missing; DOCKER_HOST names another one",
        )
        return
    version = tuple(int(part) for part in re.findall(r"\d+", engine.info.version)[:2])
    if version and version < OLDEST_ENGINE:
        yield error(
            "engine",
            f"wanted Docker Engine 20.10 or newer, got {engine.info.version}",
            "sudo apt-get install docker.io",
        )
    if not engine.info.memory_limits:
        yield error(
            "memory limits",
            "the kernel does not enforce memory limits of containers, so one model could take the whole box",
            f"{_let_limit(facts)}, and reboot",
        )
    elif not engine.info.swap_limits:
        yield warning(
            "swap limits",
            f"the kernel does not count swap for containers (cgroup v{engine.info.cgroup_version}): "
            "a worker over its limit swaps instead of being stopped",
            "add `swapaccount=1` to the kernel's command line and reboot, or turn swap off: sudo swapoff -a",
        )
    if facts.device.is_jetson and engine.info.cgroup_version == 1:
        yield warning(
            "cgroups",
            "this Jetson runs with cgroup version 1, and Ubuntu's default is version 2: nobody has tried whether limits hold the "
            "memory of the GPU like this",
            "take `systemd.unified_cgroup_hierarchy=0` off the kernel's command line (/boot/extlinux/extlinux.conf); reboot",
        )
    if engine.info.storage_driver == "vfs":
        yield warning(
            "engine",
            "the storage driver vfs copies a whole image for every container",
            'add "storage-driver": "overlay2" to what is in /etc/docker/daemon.json, and restart the engine',
        )


def _let_limit(facts: Facts) -> str:
    """Say what to change on the kernel's command line."""
    file = (
        "/boot/extlinux/extlinux.conf" if facts.device.is_jetson else "/etc/default/grub, or /boot/firmware/cmdline.txt on a Pi"
    )
    off = [word for word in facts.condition.kernel_arguments if word.startswith("cgroup_disable=")]
    if off:
        return f"take `{' '.join(off)}` off the kernel's command line ({file})"
    return f"add `cgroup_enable=memory swapaccount=1` to the kernel's command line ({file})"


def images(engine: EngineFacts) -> Iterable[Finding]:
    """Name the images that models want and nobody has built."""
    for name, tag in engine.missing_images or ():
        yield error("image", f"models want the engine {name}, and its image {tag} is not there", f"make images ENGINES={name}")
