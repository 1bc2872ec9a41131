"""What `windlass check` says of boards, cards and the systems on them: golden texts of recorded boxes, and each rule apart."""

# ruff: noqa: ANN401 -- changes of any type are handed on

from dataclasses import replace
from typing import Any

import pytest

from controller.config import Settings
from controller.device import Device, Family, Gpu, GpuAccess
from controller.drivers.base import EngineInfo
from controller.ops.check.rules import findings
from controller.ops.check.values import EngineFacts, Facts, Tried
from controller.ops.remedy import Need
from controller.power import Card, HotSpot, PowerMode, PowerModes, PowerReading
from controller.probes.condition import Condition, Specification, Swap
from controller.probes.disk import Link
from controller.probes.host import DiskKind
from controller.spec import Footprint, FootprintSource, Spread
from controller.units import GIB, MIB
from tests.core.world import model_spec
from tests.devices import NAMES, recorded
from tests.devices.facts import GOLDEN, facts, printed

NANO = facts(recorded("orin-nano-jp7.2"))
CARD = facts(recorded("discrete-2"))
MODES = (
    PowerMode(number=0, name="15W", gpu_hz=600e6),
    PowerMode(number=1, name="25W", gpu_hz=900e6),
    PowerMode(number=2, name="MAXN_SUPER"),
)

NO_TENSORRT = ("note", "engines", "no TensorRT engine runs here: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_box_is_told_what_an_expert_would_say(name: str) -> None:
    """Word for word; `python -m tests.devices` writes the texts anew."""
    assert (GOLDEN / f"{name}.txt").read_text(encoding="utf-8") == printed(name)


def test_there_is_a_text_for_each_recorded_box_and_for_no_other() -> None:
    """A recording that is renamed takes its text with it."""
    assert set(NAMES) == {path.stem for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_every_remedy_of_a_recorded_box_is_whole(name: str) -> None:
    """It has a name of its own, steps, a way to see that they worked, and a way back; and what is to be typed is what it does."""
    cures = [(finding, finding.remedy) for finding in findings(facts(recorded(name))) if finding.remedy]

    assert len({remedy.name for _, remedy in cures}) == len(cures)
    for finding, remedy in cures:
        assert remedy.steps
        assert remedy.proofs
        assert remedy.undo
        assert finding.fix.startswith("\n".join(remedy.commands))
        assert finding.as_json()["remedy"] == remedy.name


def test_a_board_as_it_should_be_has_no_findings() -> None:
    """The rules have nothing to say of it, and so each of the next tests shows one rule."""
    assert () == findings(NANO)
    assert () == findings(CARD)


def device(of: Facts = NANO, **changes: Any) -> Facts:
    """Change what the box is."""
    return replace(of, device=replace(of.device, **changes))


def condition(of: Facts = NANO, **changes: Any) -> Facts:
    """Change the state of its system."""
    return replace(of, condition=replace(of.condition, **changes))


def power(**changes: Any) -> Facts:
    """Change power and heat."""
    return condition(power=PowerReading(**changes))


def engine(of: Facts, **changes: Any) -> Facts:
    """Change what the container engine says."""
    info = of.engine.info
    assert info is not None
    return replace(of, engine=EngineFacts(info=replace(info, **changes), missing_images=()))


def reach_none(of: Facts = NANO) -> Facts:
    """Take the way to the GPU away."""
    return device(engine(of, runtimes=("runc",)), access=GpuAccess.NONE)


def zram(*, used_mib: int = 0, service: bool = True) -> Facts:
    """Put compressed swap into a board's memory."""
    swaps = (
        Swap(name="/dev/zram0", total_bytes=2 * GIB, used_bytes=used_mib * MIB),
        Swap(name="/dev/zram1", total_bytes=2 * GIB, used_bytes=0),
    )
    memory = replace(NANO.memory, zram_bytes=4 * GIB, swap_total_bytes=4 * GIB, available_bytes=2 * GIB)
    return condition(replace(NANO, memory=memory), zram_service=service, swaps=swaps)


RULES: dict[str, tuple[Facts, list[tuple[str, str, str]]]] = {
    "a release that loses memory": (
        device(l4t="36.4.7", jetpack="6.2.1"),
        [("error", "L4T", "36.4.7 refuses GPU memory that is free"), NO_TENSORRT],
    ),
    "the release before it": (device(l4t="36.4.4", jetpack="6.2.1"), [NO_TENSORRT]),
    "a release that nobody knows": (
        device(l4t="40.1.0", jetpack=""),
        [("warning", "JetPack", "nobody here knows L4T 40.1.0"), NO_TENSORRT],
    ),
    "a Thor of the first JetPack 7": (
        device(family=Family.THOR, l4t="38.4.0", jetpack="7.1"),
        [("warning", "JetPack", "made for JetPack 7.2, and this is 7.1"), NO_TENSORRT],
    ),
    "a Jetson before Orin": (
        device(family=Family.NONE, l4t="35.4.1", gpus=(), access=GpuAccess.NONE),
        [("warning", "Jetson", "of a kind that no engine here is made for")],
    ),
    "a desktop at every start": (condition(default_target="graphical.target"), [("warning", "desktop", "up to 865 MB")]),
    "a desktop for the last time": (condition(desktop=True), [("note", "desktop", "the next start will be without one")]),
    "a desktop on a computer with a card": (condition(CARD, desktop=True, default_target="graphical.target"), []),
    "compressed swap of a Jetson": (zram(), [("warning", "zram", "memory of the GPU cannot be swapped at all")]),
    "compressed swap of another maker": (zram(service=False), [("warning", "zram", "4 GiB of compressed swap")]),
    "little free before JetPack 7.2": (
        condition(device(l4t="36.5.0", jetpack="6.2.2"), free_bytes=GIB),
        [NO_TENSORRT, ("note", "page cache", "1 GiB are free and 6.59 GiB available")],
    ),
    "little free since": (condition(free_bytes=GIB), []),
    "memory of the GPU that no limit holds": (
        replace(NANO, tried=Tried(gpu_memory_charged=False)),
        [("note", "GPU memory", "does not count against its limit")],
    ),
    "memory of the GPU that limits hold": (replace(NANO, tried=Tried(gpu_memory_charged=True)), []),
    "memory in small pieces": (
        condition(large_free_bytes=16 * MIB),
        [("warning", "fragmentation", "of 2.2 GiB that are free, 16 MiB are in pieces of 4 MiB or more")],
    ),
    "memory in large pieces": (condition(large_free_bytes=GIB), []),
    "little memory in small pieces": (condition(large_free_bytes=0, free_bytes=100 * MIB), []),
    "a weak mode": (
        power(modes=PowerModes(modes=MODES, current=0)),
        [
            (
                "warning",
                "power mode",
                "the mode is 15W (nvpmodel -m 0), and MAXN_SUPER is the strongest of this board: memory or GPU runs at 67%",
            )
        ],
    ),
    "a mode that caps little": (
        power(modes=PowerModes(modes=MODES, current=1)),
        [("note", "power mode", "it caps the GPU at 900 MHz")],
    ),
    "a mode that caps nothing that counts": (
        power(modes=PowerModes(modes=(PowerMode(number=0, name="40W"), PowerMode(number=2, name="MAXN_SUPER")), current=0)),
        [("note", "power mode", "it caps the processors, if anything")],
    ),
    "the strongest mode": (power(modes=PowerModes(modes=MODES, current=2)), []),
    "a mode that nobody knows": (power(modes=PowerModes(modes=MODES, current=7)), []),
    "clocks that move in the strongest mode": (
        condition(clocks_held=False),
        [("note", "clocks", "the first tokens after a pause come later")],
    ),
    "clocks that are held": (condition(clocks_held=True), []),
    "clocks that move in a weaker mode": (
        condition(power(modes=PowerModes(modes=MODES, current=1)), clocks_held=False),
        [("note", "power mode", "it caps the GPU at 900 MHz")],
    ),
    "an older kind of cgroups": (engine(NANO, cgroup_version=1), [("warning", "cgroups", "nobody has tried")]),
    "an older kind of cgroups on a computer": (engine(CARD, cgroup_version=1), []),
    "heat": (
        power(spots=(HotSpot(name="tj-thermal", celsius=99.5, limit_celsius=99.0),)),
        [("warning", "heat", "tj-thermal is at 100 degrees C and slows the box down from 99 on")],
    ),
    "nearly too hot": (
        power(spots=(HotSpot(name="tj-thermal", celsius=91.0), HotSpot(name="cpu-thermal", celsius=60.0))),
        [("warning", "heat", "tj-thermal is at 91 degrees C: a board that stays above 90 is about to be slowed down")],
    ),
    "processors that are held back": (
        condition(CARD, power=PowerReading(processor_share=0.5)),
        [("note", "power limit", "a limit holds the processors at 50% of their highest clock, and fewer callers")],
    ),
    "a card that is held back": (
        condition(CARD, power=PowerReading(cards=(Card(index=0, limit_share=0.8),))),
        [("note", "power limit", "the power of GPU 0 is limited to 80% of what it was sold with")],
    ),
    "warm": (power(spots=(HotSpot(name="tj-thermal", celsius=89.0),)), []),
    "a processor that may be hotter": (
        condition(CARD, power=PowerReading(spots=(HotSpot(name="x86_pkg_temp", celsius=95.0),))),
        [],
    ),
    "a card that is slowed down": (
        power(cards=(Card(index=0, share=0.5, hot=True),)),
        [("warning", "heat", "GPU 0 is slowed down")],
    ),
    "a weak supply": (
        power(counts={"under-voltage of its supply": 3, "over-current at an instant": 0}),
        [("warning", "supply", "slowed down 3 times by under-voltage")],
    ),
    "heat that was counted": (power(counts={"heat of the processors": 3}), []),
    "a slot of two lanes": (
        condition(home_link=Link(width=2, most_width=4, speed="8.0 GT/s PCIe", most_speed="16.0 GT/s PCIe")),
        [("warning", "NVMe", "uses 2 of its 4 lanes, each at 8.0 GT/s PCIe: loading a model takes up to 2 times as long")],
    ),
    "a slot of as many lanes as the disk has": (
        condition(home_link=Link(width=4, most_width=4, speed="8.0 GT/s PCIe", most_speed="16.0 GT/s PCIe")),
        [],
    ),
    "a disk that was found slow": (
        replace(NANO, tried=Tried(read_bytes_per_s=400e6)),
        [("warning", "disk speed", "was found to read 381 MiB a second, and one of its kind (nvme) reads 1000 MiB or more")],
    ),
    "a disk that was found quick": (replace(NANO, tried=Tried(read_bytes_per_s=1.7e9)), []),
    "a disk of a kind that may be slow": (
        replace(NANO, tried=Tried(read_bytes_per_s=40e6), disk=replace(NANO.disk, kind=DiskKind.VIRTUAL)),
        [],
    ),
    "images on a card": (condition(engine_disk=DiskKind.SD_CARD), [("warning", "images", "in /var/lib/docker, on an SD card")]),
    "images on a disk that nobody knows": (condition(engine_disk=DiskKind.UNKNOWN), []),
    "no way to the GPU": (
        condition(reach_none(), toolkit=""),
        [("warning", "GPU", "since nvidia-container-toolkit is not installed")],
    ),
    "no way to the GPU, and a toolkit": (
        condition(reach_none(), toolkit="1.19.1"),
        [("warning", "GPU", "neither NVIDIA's runtime nor CDI; models run on the processors")],
    ),
    "no engine that could have a way": (
        replace(reach_none(), engine=EngineFacts(problem="away")),
        [("error", "engine", "does not answer")],
    ),
    "a specification for another driver": (
        condition(CARD, specifications=(Specification(path="/etc/cdi/nvidia.yaml", driver="570.1"),)),
        [("warning", "CDI", "it was made for driver 570.1, and the driver is 580.95.05")],
    ),
    "a specification of what is gone": (
        condition(specifications=(Specification(path="/etc/cdi/nvidia.yaml", gone=("/dev/fb0",)),)),
        [("warning", "CDI", "it names /dev/fb0, which is not there")],
    ),
    "a good specification": (
        condition(CARD, specifications=(Specification(path="/etc/cdi/nvidia.yaml", driver="580.95.05"),)),
        [],
    ),
    "images for processors on a card": (
        replace(CARD, tried=Tried(uses_gpu=False)),
        [("warning", "GPU", "and the workers do not: the images of what runs are made for processors")],
    ),
    "images for processors by choice": (replace(CARD, tried=Tried(uses_gpu=False), settings=Settings(use_gpu=False)), []),
    "images for a card": (replace(CARD, tried=Tried(uses_gpu=True)), []),
    "images for processors where there is no GPU": (replace(facts(recorded("no-gpu")), tried=Tried(uses_gpu=False)), []),
    "an old driver": (
        device(CARD, driver="570.1", cuda="12.8"),
        [("warning", "driver", "made with CUDA 13, which it does not run: models run on the processors")],
    ),
    "a driver that does not say": (device(CARD, cuda=""), []),
    "no table raw": (condition(raw_table=False), [("note", "iptable_raw", "publish none and are not affected")]),
    "no table raw, and an engine that wants none": (condition(engine(NANO, version="27.5.1"), raw_table=False), []),
    "a table raw": (condition(raw_table=True), []),
    "memory limits switched off": (
        condition(engine(NANO, memory_limits=False), kernel_arguments=("ro", "cgroup_disable=memory")),
        [("error", "memory limits", "one model could take the whole box")],
    ),
}


@pytest.mark.parametrize(
    ("gpu_bytes", "counts", "fits"),
    [(23 * GIB, (), True), (25 * GIB, (), False), (25 * GIB, (2,), True), (40 * GIB, (2,), False), (0, (), True)],
)
def test_a_model_that_no_card_can_hold_is_named(gpu_bytes: int, counts: tuple[int, ...], fits: bool) -> None:
    """Of two cards with 24 and 12 GiB; whole, or split where its engine can."""
    footprint = Footprint(
        total_bytes=GIB,
        weights_bytes=0,
        private_bytes=GIB,
        source=FootprintSource.ESTIMATE,
        gpu_bytes=gpu_bytes,
        spread=Spread(counts=counts),
    )
    found = findings(replace(CARD, models=(replace(model_spec("a"), footprint=footprint),)))

    assert [] == [finding.text for finding in found] if fits else ["model"] == [finding.subject for finding in found]
    if not fits:
        assert "the largest card has 23.5 GiB for models" in found[0].text


@pytest.mark.parametrize(("seen", "expected"), RULES.values(), ids=RULES.keys())
def test_each_state_has_its_finding(seen: Facts, expected: list[tuple[str, str, str]]) -> None:
    """One thing that is not as it should be, one finding, with what it means and what to do."""
    found = findings(seen)

    assert [(finding.severity.value, finding.subject) for finding in found] == [(how, what) for how, what, _ in expected]
    for finding, (_, _, text) in zip(found, expected, strict=True):
        assert text in finding.text
        assert finding.fix


def test_the_images_that_are_missing_are_named_for_the_box() -> None:
    """As `make images` wants to be told: the kind of box, and the release where it is not the newest."""
    seen = {
        name: findings(replace(facts(recorded(name)), tried=Tried(uses_gpu=False)))
        for name in ("orin-nano-jp7.2", "orin-nano-jp6.2.2", "agx-orin-64-jp6.1", "agx-thor-jp7.2", "discrete-2")
    }

    assert {
        "orin-nano-jp7.2": "make images DEVICE=orin && make run",
        "orin-nano-jp6.2.2": "make images DEVICE=orin JETPACK=6.2.2 && make run",
        "agx-orin-64-jp6.1": "make images DEVICE=orin JETPACK=6.1 && make run",
        "agx-thor-jp7.2": "make images DEVICE=thor && make run",
        "discrete-2": "make images DEVICE=cuda && make run",
    } == {name: next(one.fix for one in found if one.subject == "GPU") for name, found in seen.items()}


def test_what_is_on_the_kernels_command_line_is_named() -> None:
    """Taken off where it switches limits off, and added where the kernel wants to be asked for them."""
    off = condition(engine(NANO, memory_limits=False), kernel_arguments=("cgroup_disable=memory",))
    unasked = engine(NANO, memory_limits=False)
    computer = engine(CARD, memory_limits=False)

    assert "take `cgroup_disable=memory` off the kernel's command line (/boot/extlinux/extlinux.conf)" in findings(off)[0].fix
    assert "add `cgroup_enable=memory swapaccount=1`" in findings(unasked)[0].fix
    assert "/etc/default/grub" in findings(computer)[0].fix


@pytest.mark.parametrize(
    ("used_mib", "steps", "need"),
    [
        (0, ["sudo systemctl disable nvzramconfig", "sudo swapoff /dev/zram0 /dev/zram1"], Need.NOTHING),
        (1535, ["sudo systemctl disable nvzramconfig", "sudo swapoff /dev/zram0 /dev/zram1"], Need.NOTHING),
        (1536, ["sudo systemctl disable nvzramconfig"], Need.REBOOT),
    ],
)
def test_swap_is_emptied_only_where_there_is_room_for_what_is_in_it(used_mib: int, steps: list[str], need: Need) -> None:
    """With 2 GiB available, of which half a GiB must stay; otherwise it goes with the next start."""
    (finding,) = findings(zram(used_mib=used_mib))

    assert finding.remedy
    assert (tuple(steps), need) == (finding.remedy.commands, finding.remedy.need)


def test_a_mode_is_asked_for_by_the_number_that_its_name_has() -> None:
    """Two on a Nano, nought on an AGX; and who is asked whether to reboot at once says no."""
    nano, agx = (
        next(f.remedy for f in findings(facts(recorded(name))) if f.subject == "power mode")
        for name in ("orin-nano-jp6.2.1", "agx-orin-64-jp6.1")
    )

    assert nano
    assert agx
    assert (("sudo nvpmodel -m 2",), ("sudo nvpmodel -m 0",)) == (nano.commands, agx.commands)
    assert nano.steps[0].answer == "no\n"  # type: ignore[union-attr]
    assert nano.consent


def test_an_orin_has_its_specification_made_from_files() -> None:
    """Its toolkit reads lists of files there; elsewhere it asks the driver."""
    stale = (Specification(path="/etc/cdi/n.yaml", gone=("/dev/fb0",)),)
    orin, thor, card = (
        next(f.remedy for f in findings(one) if f.subject == "CDI")
        for one in (
            condition(specifications=stale),
            condition(device(family=Family.THOR), specifications=stale),
            condition(CARD, specifications=stale),
        )
    )

    assert orin
    assert orin.commands == ("sudo nvidia-ctk cdi generate --mode=csv --output=/etc/cdi/n.yaml",)
    assert thor
    assert card
    assert thor.commands == card.commands == ("sudo nvidia-ctk cdi generate --output=/etc/cdi/n.yaml",)


def test_an_empty_state_says_nothing() -> None:
    """What nobody could look at is unknown, and unknown is not wrong."""
    bare = Device(
        architecture="aarch64", family=Family.ORIN, l4t="39.2.0", jetpack="7.2", gpus=(Gpu(index=0, name="Orin", sm="87"),)
    )
    info = EngineInfo(
        version="28.1.1",
        cgroup_version=2,
        memory_limits=True,
        swap_limits=True,
        runtimes=("nvidia", "runc"),
        storage_driver="overlay2",
        architecture="aarch64",
    )
    seen = replace(
        NANO,
        device=replace(bare, access=GpuAccess.RUNTIME),
        condition=Condition(),
        engine=EngineFacts(info=info, missing_images=()),
    )

    assert () == findings(seen)


@pytest.mark.parametrize(("sm", "said"), [("61", True), ("", True), ("75", False), ("120", False)])
def test_a_card_that_is_too_old_is_named(sm: str, said: bool) -> None:
    """One card that the images hold no code for keeps all models from the cards, and that is said."""
    first, second = CARD.device.gpus
    found = findings(replace(CARD, device=replace(CARD.device, gpus=(first, replace(second, sm=sm)))))
    texts = [one.text for one in found if one.subject == "cards"]

    assert said == bool(texts)
    assert all(f"{second.name} (SM {sm or 'unknown'})" in text for text in texts)
