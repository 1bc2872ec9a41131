"""Readings of the box, from files as kernels write them."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

from controller.probes.host import DiskKind, nearest_existing, read_cpu_count, read_disk, read_disk_kind
from controller.probes.memory import read_memory, read_supply
from controller.probes.system import LocalSystem
from controller.probes.thermal import Rail, ThermalReading, Zone, read_thermal

PRESSURE = """some avg10=1.53 avg60=0.87 avg300=0.23 total=6023
full avg10=0.50 avg60=0.10 avg300=0.00 total=4000
"""
SWAPS = """Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t1949636\t\t0\t\t5
/dev/zram1                              partition\t1949636\t\t0\t\t5
/swapfile                               file\t\t4194300\t\t0\t\t-2
"""


def put(root: Path, **files: str) -> None:
    """Write files below *root*; in a name, `__` stands for a slash."""
    for name, text in files.items():
        write(root / name.replace("__", "/"), text)


def write(path: Path, text: str) -> None:
    """Write one file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_memory_is_the_kernels(tmp_path: Path) -> None:
    """Total, available and swap come from the running kernel."""
    reading = read_memory(root=tmp_path)

    assert reading.total_bytes == psutil.virtual_memory().total
    assert 0 < reading.available_bytes <= reading.total_bytes
    assert reading.swap_total_bytes == psutil.swap_memory().total


def test_pressure_and_zram_are_read_where_the_kernel_tells(tmp_path: Path) -> None:
    """The ten-second averages, and the sum of the compressed swap devices."""
    put(tmp_path, proc__pressure__memory=PRESSURE, proc__swaps=SWAPS)
    reading = read_memory(root=tmp_path)

    assert (reading.pressure_some_avg10, reading.pressure_full_avg10) == (1.53, 0.5)
    assert reading.zram_bytes == 2 * 1949636 * 1024


def test_the_supply_is_what_the_kernel_says_is_available(tmp_path: Path) -> None:
    """Pages of files count as available, and the time that everything has waited is in seconds."""
    put(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n", proc__pressure__memory=PRESSURE)
    reading = read_supply(root=tmp_path)

    assert reading.available_bytes == 2 * 1024 * 1024
    assert reading.stalled_s == pytest.approx(0.004)


def test_the_supply_of_this_kernel_is_read() -> None:
    """The real files have the form we know."""
    reading = read_supply()

    assert reading.available_bytes == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert reading.stalled_s >= 0


def test_a_supply_without_pressure_has_no_stalls(tmp_path: Path) -> None:
    """A kernel that does not count them, or names nothing available, is no reason to stop watching."""
    put(tmp_path, proc__meminfo="MemFree: 1 kB\n")
    reading = read_supply(root=tmp_path)

    assert 0 == reading.stalled_s
    assert reading.available_bytes > 0


def test_a_kernel_without_pressure_says_nothing(tmp_path: Path) -> None:
    """Absent files, and files of another form, are no readings."""
    empty = read_memory(root=tmp_path)
    put(tmp_path, proc__pressure__memory="\u00e4", proc__swaps="Filename Type\n/dev/zram0\n/dev/zram1 partition many 0\n")
    strange = read_memory(root=tmp_path)

    assert [(one.pressure_some_avg10, one.zram_bytes) for one in (empty, strange)] == [(None, 0), (None, 0)]


def test_zones_and_rails_are_read(tmp_path: Path) -> None:
    """Temperatures in degrees; power as it is measured, or as volts times amperes."""
    put(
        tmp_path,
        sys__class__thermal__thermal_zone0__type="cpu-thermal\n",
        sys__class__thermal__thermal_zone0__temp="51250\n",
        sys__class__thermal__thermal_zone1__temp="60000\n",
        sys__class__thermal__thermal_zone2__type="cv0-thermal\n",
        sys__class__thermal__thermal_zone3__type="odd\n",
        sys__class__thermal__thermal_zone3__temp="warm\n",
        sys__class__hwmon__hwmon0__name="ina3221\n",
        sys__class__hwmon__hwmon0__in1_label="VDD_IN\n",
        sys__class__hwmon__hwmon0__in1_input="5000\n",
        sys__class__hwmon__hwmon0__curr1_input="1500\n",
        sys__class__hwmon__hwmon0__in2_input="5000\n",
        sys__class__hwmon__hwmon0__curr2_input="100\n",
        sys__class__hwmon__hwmon0__curr3_input="100\n",
        sys__class__hwmon__hwmon1__power1_input="12500000\n",
        sys__class__hwmon__hwmon1__power2_input="\n",
        sys__class__hwmon__hwmon1__power3_label="SoC\n",
        sys__class__hwmon__hwmon1__power3_input="1000000\n",
    )
    reading = read_thermal(root=tmp_path)

    assert reading.zones == (Zone(name="cpu-thermal", celsius=51.25), Zone(name="thermal_zone1", celsius=60.0))
    assert reading.rails == (
        Rail(name="VDD_IN", watts=7.5),
        Rail(name="ina3221 2", watts=0.5),
        Rail(name="hwmon1 power1", watts=12.5),
        Rail(name="SoC", watts=1.0),
    )


def test_a_board_without_sensors_has_none(tmp_path: Path) -> None:
    """A virtual machine has neither zones nor rails."""
    reading = read_thermal(root=tmp_path)

    assert reading == ThermalReading(zones=(), rails=())


@pytest.mark.parametrize(
    ("name", "files", "kind"),
    [
        ("nvme0n1p2", {}, DiskKind.NVME),
        ("nvme0n1", {}, DiskKind.NVME),
        ("mmcblk0p1", {"mmcblk0/device/type": "SD\n"}, DiskKind.SD_CARD),
        ("mmcblk1", {"mmcblk1/device/type": "MMC\n"}, DiskKind.EMMC),
        ("sda3", {"sda/queue/rotational": "1\n"}, DiskKind.ROTATING),
        ("sda", {"sda/queue/rotational": "0\n"}, DiskKind.SSD),
        ("vda1", {}, DiskKind.VIRTUAL),
        ("xvdb", {}, DiskKind.VIRTUAL),
        ("dm-0", {"dm-0/slaves/nvme0n1p3/dev": "259:3\n"}, DiskKind.NVME),
        ("dm-1", {"dm-1/slaves/dm-0/dev": "", "dm-0/slaves/mmcblk0p2/dev": "", "mmcblk0/device/type": "SD"}, DiskKind.SD_CARD),
        ("sdz9", {}, DiskKind.UNKNOWN),
    ],
)
def test_a_disk_is_known_by_its_block_device(name: str, files: dict[str, str], kind: DiskKind, tmp_path: Path) -> None:
    """Partitions count as their disk, mappings as what they map."""
    for path, text in files.items():
        write(tmp_path / "sys/class/block" / path, text)

    assert read_disk_kind(name, LocalSystem([tmp_path])) is kind


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    """The first start makes the folder; before that, its place is what counts."""
    device = tmp_path.stat().st_dev
    link = tmp_path / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    (tmp_path / "sys/class/block/nvme0n1").mkdir(parents=True)
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "sys/class/block/nvme0n1")
    reading = read_disk(tmp_path / "not" / "yet", root=tmp_path)

    assert reading.kind is DiskKind.NVME
    assert reading.total_bytes == shutil.disk_usage(tmp_path).total
    assert read_disk(tmp_path, root=tmp_path / "elsewhere").kind is DiskKind.UNKNOWN


def test_the_nearest_folder_is_found_from_anywhere(tmp_path: Path) -> None:
    """Also where a name is longer than any file system allows."""
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert nearest_existing(tmp_path / ("x" * 5000)) == tmp_path
    assert nearest_existing(Path("/")) == Path("/")


def test_there_is_a_processor() -> None:
    """Those that this process may use are counted."""
    assert 1 <= read_cpu_count() <= (os.cpu_count() or 1)
