"""The memory that models share, and swap."""

from collections.abc import Iterable
from typing import Final

from controller.cards import for_models, ways
from controller.charges import Capacity
from controller.ops.check.values import Facts, Finding, curable, error, warning
from controller.ops.remedy import Lacks, Need, Remedy, Run, Says
from controller.probes.condition import ZRAM_ENABLED, ZRAM_SERVICE
from controller.probes.host import DiskKind
from controller.units import MIB, format_bytes

LEAST_RESERVE_BYTES: Final = 512 * MIB
SWAP_FILE: Final = (
    "for builds of large engines, swap on an NVMe disk helps instead; where /mnt is on one: "
    "sudo fallocate -l 16G /mnt/16GB.swap && sudo chmod 600 /mnt/16GB.swap && sudo mkswap /mnt/16GB.swap && "
    "sudo swapon /mnt/16GB.swap, and for every start `/mnt/16GB.swap none swap sw 0 0` in /etc/fstab"
)


def budget_bytes(facts: Facts) -> int:
    """Return what models may use together."""
    memory = facts.settings.memory
    return memory.budget if memory.budget is not None else max(facts.memory.total_bytes - memory.reserve, 0)


def memory(facts: Facts) -> Iterable[Finding]:
    """Judge the budget of models."""
    total, budget = facts.memory.total_bytes, budget_bytes(facts)
    advice = f"set memory.budget to {format_bytes(max(total - 2 * LEAST_RESERVE_BYTES, 0))} or less"
    if budget <= 0:
        yield error(
            "budget",
            f"nothing is left for models: the box has {format_bytes(total)}, and {format_bytes(facts.settings.memory.reserve)} "
            "are reserved",
            "lower memory.reserve, or set memory.budget",
        )
    elif budget > total:
        yield error(
            "budget",
            f"the budget of {format_bytes(budget)} is more than the box has, {format_bytes(total)}: it would run out of memory",
            advice,
        )
    elif budget > total - LEAST_RESERVE_BYTES:
        yield warning(
            "budget",
            f"the budget of {format_bytes(budget)} leaves {format_bytes(total - budget)} for system, controller and gateway",
            advice,
        )
    pinned = sum(model.footprint.total_bytes for model in facts.models if model.pinned)
    if pinned > budget > 0:
        yield error(
            "budget",
            f"the pinned models need {format_bytes(pinned)} together, and the budget is {format_bytes(budget)}",
            "set pinned = false in the model.toml of one of them",
        )


def swap(facts: Facts) -> Iterable[Finding]:
    """Judge compressed swap, and swap on slow disks."""
    memory = facts.memory
    on_disk = memory.swap_total_bytes - memory.zram_bytes
    if memory.zram_bytes > memory.total_bytes // 4:
        text = (
            f"{format_bytes(memory.zram_bytes)} of compressed swap are kept in the box's own memory, and weights hardly compress"
        )
        if facts.device.is_jetson:
            text += "; memory of the GPU cannot be swapped at all"
        if facts.condition.zram_service:
            yield curable("zram", text, _without_zram(facts), also=SWAP_FILE)
        else:
            yield warning("zram", text, "sudo apt-get remove zram-tools systemd-zram-generator, and reboot")
    if on_disk > 0 and facts.disk.kind in {DiskKind.SD_CARD, DiskKind.EMMC, DiskKind.ROTATING}:
        yield warning(
            "swap",
            f"{format_bytes(on_disk)} of swap are on a slow disk: the box stands still when they are used, and flash wears out",
            "sudo swapoff -a, and remove the line from /etc/fstab",
        )


def _without_zram(facts: Facts) -> Remedy:
    """Switch compressed swap off for good, and at once where what is in it has room elsewhere."""
    compressed = [swap for swap in facts.condition.swaps if swap.compressed]
    at_once = sum(swap.used_bytes for swap in compressed) + LEAST_RESERVE_BYTES < facts.memory.available_bytes
    off = (Run(argv=("swapoff", *(swap.name for swap in compressed))),) if at_once else ()
    disabled = Says(argv=ZRAM_ENABLED, text="disabled")
    return Remedy(
        name="zram",
        steps=(Run(argv=("systemctl", "disable", ZRAM_SERVICE)), *off),
        proofs=(disabled, Lacks(path="/proc/swaps", text="/dev/zram")) if at_once else (disabled,),
        undo=f"sudo systemctl enable --now {ZRAM_SERVICE}",
        need=Need.NOTHING if at_once else Need.REBOOT,
    )


def cards(facts: Facts) -> Iterable[Finding]:
    """Name the models that can never fit on the cards, neither whole nor split as their engine can."""
    wanted = facts.settings.gpu
    rooms = for_models(facts.device, budget_bytes=wanted.budget, reserve_bytes=wanted.reserve)
    for model in facts.models:
        footprint = model.footprint
        if footprint.gpu_bytes and not ways(Capacity(ram_bytes=0, cards=rooms), footprint):
            most_bytes = max((size_bytes for _, size_bytes in rooms), default=0)
            yield warning(
                "model",
                f"{model.name} needs {format_bytes(footprint.gpu_bytes)} of the memory of cards ({footprint.source}) and can "
                f"never fit: the largest card has {format_bytes(most_bytes)} for models",
                f"lower context or parallel in {model.folder / 'model.toml'}, or take weights of fewer bits",
            )


def models(facts: Facts) -> Iterable[Finding]:
    """Name the folders that cannot be served, and the models that can never fit."""
    for folder, text in facts.folder_problems:
        yield error("model folder", f"{folder}: {text}", f"ls -l {facts.settings.home / 'models' / folder}")
    budget = budget_bytes(facts)
    for model in facts.models:
        footprint = model.footprint
        if footprint.total_bytes > budget > 0:
            yield warning(
                "model",
                f"{model.name} needs {format_bytes(footprint.total_bytes)} ({footprint.source}) and can never fit "
                f"into the budget of {format_bytes(budget)}",
                f"raise memory.budget, lower context or parallel in {model.folder / 'model.toml'}, or set memory there",
            )
