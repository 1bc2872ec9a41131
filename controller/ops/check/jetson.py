"""Jetson boards: the release, the desktop, and memory that GPU and processors share."""

from collections.abc import Iterable
from typing import Final

from controller.device import Family
from controller.ops.check.values import Facts, Finding, curable, error, note, warning
from controller.ops.remedy import Need, Remedy, Run, Says
from controller.probes.condition import DEFAULT_TARGET
from controller.units import GIB, MIB, format_bytes

BROKEN_RELEASE: Final = "36.4.7"
FIXED_RELEASE: Final = "36.5"
TEXT_TARGET: Final = "multi-user.target"
GRAPHICAL_TARGET: Final = "graphical.target"
UNACCOUNTED_MAJOR: Final = 39
"""JetPack 7.2: before it, NVIDIA's own notes have caches dropped by hand where memory looks taken."""
SCATTERED_SHARE: Final = 1 / 16
"""With less of its free memory in large pieces, a Jetson may refuse a large allocation for its GPU."""
LITTLE_SHARE: Final = 1 / 4
"""With less of the box's memory free, what the page cache holds is missed."""
LEAST_HIDDEN_BYTES: Final = 1 * GIB
"""Less than this in the page cache keeps no model worth a word from the GPU."""
LEAST_FREE_BYTES: Final = 512 * MIB
"""Where less is free, it is short and not scattered, and the latter is not worth a word."""


def release(facts: Facts) -> Iterable[Finding]:
    """Judge the release of Jetson Linux."""
    device = facts.device
    if not device.l4t:
        return
    if device.family is Family.NONE:
        yield warning(
            "Jetson",
            f"{device.board or 'this Jetson'} runs L4T {device.l4t}, and its GPU is of a kind that no engine here is made for: "
            "models run on its processors",
            "an Orin or a Thor, or models that are small enough for the processors",
        )
        return
    if device.l4t == BROKEN_RELEASE:
        yield error(
            "L4T",
            f"L4T {BROKEN_RELEASE} refuses GPU memory that is free: owners of an Orin Nano saw 4 GiB fail with 5.4 GiB free "
            f"(NvMapMemAllocInternalTagged, error 12); NVIDIA's notes for {FIXED_RELEASE} name a changed allocation policy",
            f"sudo sed -i 's/r36\\.4/r{FIXED_RELEASE}/' /etc/apt/sources.list.d/nvidia-l4t-apt-source.list\n"
            "sudo apt-get update && sudo apt-get dist-upgrade   (to JetPack 6.2.2, then reboot; not verified here)\n"
            "or stay on L4T 36.4.4, which is JetPack 6.2.1 as well",
        )
    if not device.jetpack:
        yield warning(
            "JetPack",
            f"nobody here knows L4T {device.l4t}: images for another release may not find the driver they want",
            "JetPack 7.2 (L4T 39.2) is what images are made for",
        )
    elif device.family is Family.THOR and device.l4t.startswith("38."):
        yield warning(
            "JetPack",
            f"images for Thor are made for JetPack 7.2, and this is {device.jetpack} (L4T {device.l4t})",
            "install JetPack 7.2 (L4T 39.2) with NVIDIA's installer",
        )


def desktop(facts: Facts) -> Iterable[Finding]:
    """Judge a desktop that takes memory from models."""
    condition = facts.condition
    if not facts.device.is_jetson or not (condition.desktop or condition.default_target == GRAPHICAL_TARGET):
        return
    remedy = Remedy(
        name="desktop",
        steps=(Run(argv=("systemctl", "set-default", TEXT_TARGET)),),
        proofs=(Says(argv=DEFAULT_TARGET, text=TEXT_TARGET),),
        undo=f"sudo systemctl set-default {GRAPHICAL_TARGET}",
        need=Need.REBOOT,
    )
    if condition.default_target == TEXT_TARGET:
        yield note(
            "desktop",
            "a desktop runs, and the next start will be without one",
            "sudo systemctl isolate multi-user.target   ends it now, and everything that is open in it",
        )
    else:
        yield curable(
            "desktop",
            "a desktop takes up to 865 MB, by NVIDIA's figures, of the memory that GPU and models share",
            remedy,
            also="sudo reboot   (or `sudo systemctl isolate multi-user.target`, which ends what is open in it)",
        )


def memory(facts: Facts) -> Iterable[Finding]:
    """Say what keeps memory that is free from the GPU, and whether limits hold what it takes."""
    if not facts.device.is_jetson:
        return
    if facts.tried.gpu_memory_charged is False:
        yield note(
            "GPU memory",
            "it was tried here: what a container takes for the GPU does not count against its limit; the budget and the guard "
            "count it all the same, and other containers on this box are held by nothing",
            "JetPack 7.2, by its sources, charges it; until then run no other GPU program beside Windlass",
        )
    condition, available = facts.condition, facts.memory.available_bytes
    major = int(facts.device.l4t.partition(".")[0] or 0)
    hidden_bytes = available - condition.free_bytes
    little = 0 < condition.free_bytes < facts.memory.total_bytes * LITTLE_SHARE
    if 0 < major < UNACCOUNTED_MAJOR and little and hidden_bytes > LEAST_HIDDEN_BYTES:
        yield note(
            "page cache",
            f"{format_bytes(condition.free_bytes)} are free and {format_bytes(available)} available: before JetPack 7.2, owners "
            "report, CUDA refuses memory that only the page cache holds (not verified here)",
            "sudo sh -c 'sync; sysctl -w vm.drop_caches=3'   before a load that fails with NvMapMemAllocInternalTagged",
        )
    large_bytes = condition.large_free_bytes
    if large_bytes is None or condition.free_bytes <= LEAST_FREE_BYTES:
        return
    if large_bytes < condition.free_bytes * SCATTERED_SHARE:
        yield warning(
            "fragmentation",
            f"of {format_bytes(condition.free_bytes)} that are free, {format_bytes(large_bytes)} are in pieces of 4 MiB or more: "
            "large allocations of the GPU can fail although memory is free",
            "sudo sh -c 'sync; sysctl -w vm.drop_caches=3; sysctl -w vm.compact_memory=1'\n"
            "if that does not help: reboot, and load the large models first",
        )
