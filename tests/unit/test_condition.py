"""The state of a host: what recorded boxes tell of it, and files that are not as they should be."""

from pathlib import Path

import pytest

from controller.probes.condition import UNKNOWN, Condition, Specification, Swap, disk_kind, read_condition
from controller.probes.host import DiskKind
from controller.probes.system import LocalSystem, Outcome, RecordedSystem
from controller.units import KIB, MIB
from tests.devices import recorded

CDI = """cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvmap
    - path: /dev/fb0
      hostPath: /dev/fb0
containerEdits:
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.133.20
"""


def box(**files: str) -> RecordedSystem:
    """Make a box of these files; two underlines stand for a slash."""
    return RecordedSystem(files={"/" + name.replace("__", "/"): text for name, text in files.items()})


def test_a_fresh_nano_is_seen_as_it_is() -> None:
    """Desktop, compressed swap, card, and no way to know what nobody has written down."""
    recording = recorded("orin-nano-jp6.2.1")
    seen = read_condition(recording.system)

    assert (seen.default_target, seen.desktop, seen.zram_service) == ("graphical.target", True, True)
    assert (len(seen.swaps), all(swap.compressed for swap in seen.swaps)) == (6, True)
    assert seen.swaps[0] == Swap(name="/dev/zram0", total_bytes=650152 * KIB, used_bytes=0)
    assert (seen.free_bytes, seen.engine_disk, seen.raw_table) == (1631080 * KIB, DiskKind.SD_CARD, None)
    assert seen.toolkit


def test_a_nano_as_it_should_be_is_seen_as_it_is() -> None:
    """No desktop, no compressed swap; what is not enabled is told with a failure."""
    seen = read_condition(recorded("orin-nano-jp7.2").system)

    assert (seen.default_target, seen.desktop, seen.zram_service) == ("multi-user.target", False, False)
    assert [swap.compressed for swap in seen.swaps] == [False]
    assert seen.engine_disk is DiskKind.NVME


def test_a_home_of_its_own_disk_is_found_by_what_is_mounted() -> None:
    """The system is on eMMC, the home on NVMe; the longest mount point that holds a path counts."""
    system = recorded("agx-orin-64-jp6.1").system

    assert [DiskKind.NVME, DiskKind.NVME, DiskKind.EMMC, DiskKind.EMMC] == [
        disk_kind(system, path) for path in ("/var/lib/windlass", "/var/lib/windlass/models", "/var/lib/windlassed", "/")
    ]


def test_an_empty_box_is_unknown() -> None:
    """Nothing is taken for wrong because nobody could look."""
    assert UNKNOWN == read_condition(RecordedSystem())
    assert Condition() == UNKNOWN


def test_the_box_at_hand_can_be_looked_at() -> None:
    """Whatever it is, it has a kernel with a command line and some free memory."""
    seen = read_condition(LocalSystem([Path("/")]))

    assert seen.kernel_arguments
    assert seen.free_bytes > 0
    assert seen.large_free_bytes is not None


def test_large_free_blocks_are_added_up_over_all_zones() -> None:
    """Blocks of 4 MiB and more; the ten columns before are smaller ones."""
    text = (
        "Node 0, zone      DMA    100 1 1 1 1 1 1 1 1 1 2\n"
        "Node 0, zone   Normal    100 1 1 1 1 1 1 1 1 1 3 1\n"
    )  # fmt: skip

    assert 28 * MIB == read_condition(box(proc__buddyinfo=text)).large_free_bytes


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ('{"data-root": "/mnt/nvme/docker"}', "/mnt/nvme/docker"),
        ("{}", "/var/lib/docker"),
        ("[]", "/var/lib/docker"),
        ('{"data-root": 1}', "/var/lib/docker"),
        ("{oops", "/var/lib/docker"),
    ],
)
def test_images_are_where_the_engine_was_told_to_keep_them(text: str, root: str) -> None:
    """A file that cannot be read says nothing."""
    assert root == read_condition(RecordedSystem(files={"/etc/docker/daemon.json": text})).engine_root


def test_a_specification_says_what_it_was_made_for_and_what_is_gone() -> None:
    """Only files of GPUs count, and only in the folders where the engine looks."""
    files = {
        "/etc/cdi/nvidia.yaml": CDI,
        "/etc/cdi/other.yaml": "kind: vendor.com/thing\n",
        "/etc/cdi/nvidia.txt": CDI,
        "/run/cdi/n.yaml": CDI,
    }
    system = RecordedSystem(files=files, groups={"/dev/nvmap": 44})

    assert (Specification(path="/etc/cdi/nvidia.yaml", driver="570.133.20", gone=("/dev/fb0",)),) == read_condition(
        system, cdi_folders=("/etc/cdi", "/none")
    ).specifications


@pytest.mark.parametrize(
    ("code", "drop_in", "known"), [(0, "", True), (1, "", False), (1, 'Environment="DOCKER_INSECURE_NO_IPTABLES_RAW=1"', True)]
)
def test_a_kernel_without_the_table_raw_is_known(code: int, drop_in: str, known: bool) -> None:
    """By the tool that finds modules; and an engine that was told to do without misses nothing."""
    files = {"/etc/systemd/system/docker.service.d/x.conf": drop_in}
    system = RecordedSystem(files=files, commands={"modinfo -F filename iptable_raw": Outcome(code=code, out="")})

    assert known is read_condition(system).raw_table


@pytest.mark.parametrize(
    ("name", "least", "most", "held"),
    [
        ("17000000.gpu", "306000000", "1020000000", False),
        ("17000000.gpu", "1020000000", "1020000000", True),
        ("gpu-gpc-0", "1575000000", "1575000000", True),
        ("17000000.gpu", "", "1020000000", None),
        ("some-bus", "1", "2", None),
    ],
)
def test_a_clock_that_cannot_move_is_held(name: str, least: str, most: str, held: bool | None) -> None:
    """Only the GPU's counts, whatever it is called on the board."""
    folder = f"/sys/class/devfreq/{name}"
    system = RecordedSystem(files={f"{folder}/min_freq": f"{least}\n", f"{folder}/max_freq": f"{most}\n"})

    assert held is read_condition(system).clocks_held


def test_the_slot_of_the_models_disk_is_read() -> None:
    """A card has none."""
    nvme, card = (read_condition(recorded(name).system).home_link for name in ("orin-nano-jp6.2.2", "orin-nano-jp6.2.1"))

    assert nvme
    assert (2, 4) == (nvme.width, nvme.most_width)
    assert card is None


def test_odd_lines_of_swap_are_left_out() -> None:
    """The kernel writes a heading, and names with their spaces escaped."""
    text = "Filename Type Size Used Priority\n/swap.img file 1024 512 -2\nodd\n/x file many few 0\n"

    assert (Swap(name="/swap.img", total_bytes=MIB, used_bytes=512 * KIB),) == read_condition(box(proc__swaps=text)).swaps
