"""The disk below the home: which one it is, how it is connected, how fast it is, and that this is measured once."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from controller import reports
from controller.probes import disk
from controller.probes.device import read_device
from controller.probes.disk import Link
from controller.probes.host import DiskKind, DiskReading
from controller.probes.system import LocalSystem, RecordedSystem
from controller.store.database import open_database
from controller.store.findings import Finding, Findings
from controller.units import MIB
from controller.yardstick import HomeDisk, Yardstick
from tests.devices import NAMES, recorded

HOME = "/var/lib/windlass"
FULL = Link(width=4, most_width=4, speed="16.0 GT/s PCIe", most_speed="16.0 GT/s PCIe")
LINKS = {
    "orin-nano-jp6.2.2": Link(width=2, most_width=4, speed="8.0 GT/s PCIe", most_speed="16.0 GT/s PCIe"),
    "orin-nano-jp7.2": replace(FULL, speed="8.0 GT/s PCIe"),
    "orin-nano-jp7.2-iso": replace(FULL, speed="8.0 GT/s PCIe"),
    "agx-thor-jp7.2": replace(FULL, speed="32.0 GT/s PCIe", most_speed="32.0 GT/s PCIe"),
    "orin-nano-jp6.2.1": None,
    "no-gpu": None,
}
BLOCKS = {"orin-nano-jp6.2.1": "mmcblk0p1", "no-gpu": "sda1"}


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_home_has_its_disk(name: str) -> None:
    """The innermost mount decides: the home of one board is on a disk of its own."""
    system = recorded(name).system
    block = disk.block_behind(system, HOME)

    assert (BLOCKS.get(name, "nvme0n1p1"), LINKS.get(name, FULL)) == (block, disk.read_link(system, block))


def test_the_home_of_one_board_is_not_where_its_system_is() -> None:
    """A folder that merely begins with the same letters is not below a mount."""
    system = recorded("agx-orin-64-jp6.1").system

    assert ["nvme0n1p1", "nvme0n1p1", "mmcblk0p1", "mmcblk0p1"] == [
        disk.block_behind(system, path) for path in (HOME, f"{HOME}/models", f"{HOME}-old", "/")
    ]


def box(mounts: str, **files: str) -> RecordedSystem:
    """Make a box from its mounts and from what is below `/sys/class`."""
    return RecordedSystem(
        files={disk.MOUNTS: mounts} | {f"/sys/class/{name.replace('__', '/')}": text for name, text in files.items()}
    )


def test_a_file_system_without_a_device_number_of_its_own_names_its_device() -> None:
    """Several devices may be below one file system, such as btrfs."""
    mounts = "25 1 0:25 / / rw shared:1 - btrfs /dev/nvme1n1p2 rw\n26 25 0:30 / /tmp rw - tmpfs tmpfs rw\nnonsense\n"
    system = box(mounts, block__nvme1n1p2__dev="259:4\n")

    assert "nvme1n1p2" == disk.block_behind(system, "/home")
    assert "" == disk.block_behind(system, "/tmp/x")
    assert "" == disk.block_behind(RecordedSystem(), "/home")


def test_the_later_of_two_mounts_at_one_place_counts() -> None:
    """It covers the earlier one."""
    mounts = (
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n26 25 8:2 / /data rw - ext4 /dev/sdb rw\n27 26 8:3 / /data rw - ext4 /dev/sdc rw\n"
    )
    system = box(mounts, block__sda1__dev="8:1", block__sdb__dev="8:2", block__sdc__dev="8:3")

    assert "sdc" == disk.block_behind(system, "/data/models")


def test_a_mapping_is_connected_as_what_it_maps() -> None:
    """Encryption and volumes lie over the disk."""
    system = box("", **{"block__dm-0__slaves__nvme0n1p3__dev": "x", "nvme__nvme0__device__current_link_width": "4"})
    told = {**system.files, "/sys/class/nvme/nvme0/device/max_link_width": "4"}

    assert disk.read_link(system, "dm-0") is None, "half of it is not told"
    assert Link(width=4, most_width=4, speed="", most_speed="") == disk.read_link(replace(system, files=told), "dm-0")


def test_this_box_knows_its_own_disk() -> None:
    """The real files are read as the recorded ones."""
    assert isinstance(disk.block_behind(LocalSystem(), str(Path.cwd())), str)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """Give the test a folder on the disk of this checkout: the system's for temporary files may be memory."""
    build = Path(__file__).parents[2] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        yield Path(folder)


def large(tmp_path: Path, size_bytes: int = disk.LEAST_BYTES + 5 * MIB) -> Path:
    """Make a file."""
    path = tmp_path / "weights"
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    return path


def test_a_file_is_read_past_the_cache(on_disk: Path) -> None:
    """On a disk that can be read so, there is a speed; of a short file, or none, there is not."""
    path = large(on_disk)
    found = disk.measure_read(path)

    assert found is not None
    assert found > MIB
    assert 0.0 == disk.measure_read(path, most_s=0.0), "time that is up before the first piece reads none"
    assert disk.measure_read(Path(__file__)) is None
    assert disk.measure_read(on_disk / "missing") is None


class Clock:
    """A wall clock that stands."""

    def __call__(self) -> float:
        """Return the time."""
        return 1_790_000_000.0


@pytest.mark.looptime
async def test_the_disk_is_measured_once_and_when_nobody_is_disturbed(tmp_path: Path, on_disk: Path) -> None:
    """It waits for rest and for a file worth reading, and the next life knows the result."""
    path = large(on_disk)
    findings = Findings(open_database(tmp_path / "state.db"))
    system = recorded("orin-nano-jp7.2").system
    asked: list[bool] = []

    def idle() -> bool:
        asked.append(len(asked) > 1)
        return asked[-1]

    first = Yardstick(system, PurePosixPath(HOME), findings, wall=Clock())
    before = first.disk.read_bytes_per_s
    await first.run(lambda: [tmp_path / "gone", Path(__file__), path], idle=idle)
    second = Yardstick(system, PurePosixPath(HOME), findings, wall=Clock())
    elsewhere = Yardstick(recorded("orin-nano-jp6.2.2").system, PurePosixPath(HOME), findings, wall=Clock())

    assert before is None
    assert [False, False, True] == asked
    assert first.disk == second.disk
    assert second.disk.read_bytes_per_s
    assert 1_790_000_000.0 == second.disk.measured_at_s
    assert elsewhere.disk.read_bytes_per_s is None, "another slot is another speed"
    await second.run(list, idle=idle)  # returns at once: it is known


def test_findings_that_cannot_be_kept_are_no_error(tmp_path: Path) -> None:
    """The newest counts; a database that has failed costs a second try."""
    database = open_database(tmp_path / "state.db")
    findings = Findings(database)
    findings.put("a", 1, at_s=1.0)
    findings.put("a", {"b": None}, at_s=2.0)
    database.write("INSERT INTO findings VALUES ('odd', 'no json', 3.0)")

    assert Finding(value={"b": None}, at_s=2.0) == findings.get("a")
    assert findings.get("b") is None
    assert findings.get("odd") is None

    database.write("DROP TABLE findings")
    findings.put("a", 1, at_s=1.0)

    assert findings.get("a") is None


def test_the_status_says_what_is_known_of_the_disk() -> None:
    """Nothing is made up where nothing is known."""
    reading = DiskReading(total_bytes=10, free_bytes=5, kind=DiskKind.NVME)

    assert {
        "home_total_bytes": 10,
        "home_free_bytes": 5,
        "block": None,
        "link": None,
        "read_bytes_per_s": None,
        "measured_at": None,
    } == reports.disk_row(reading, HomeDisk(block=""))
    known = reports.disk_row(reading, HomeDisk(block="nvme0n1", link=FULL, read_bytes_per_s=1.6e9, measured_at_s=Clock()()))
    assert ("nvme0n1", 1_600_000_000, "2026-09-21T14:13:20+00:00") == (
        known["block"],
        known["read_bytes_per_s"],
        known["measured_at"],
    )
    assert {"width": 4, "most_width": 4, "speed": FULL.speed, "most_speed": FULL.most_speed} == known["link"]


@pytest.mark.parametrize("name", NAMES)
def test_the_status_says_what_the_box_is(name: str) -> None:
    """Every recorded device can be told as JSON."""
    recording = recorded(name)
    device = read_device(recording.system, recording.engine)
    row = reports.device_row(device)

    assert (device.jetpack, device.access.value, device.fingerprint) == (row["jetpack"], row["access"], row["fingerprint"])
    assert [gpu.memory_bytes or None for gpu in device.gpus] == [gpu["memory_bytes"] for gpu in row["gpus"]]
