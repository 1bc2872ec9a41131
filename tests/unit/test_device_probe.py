"""What is made of a box that was written down, and of files and answers that are not as they should be."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.device import Device, Family, Gpu, GpuAccess
from controller.drivers.docker import engine_info
from controller.gpu_memory import GpuReading
from controller.probes import jetson, nvidia, nvmap, packages
from controller.probes.device import read_device
from controller.probes.gpu_memory import read_gpu_memory
from controller.probes.system import LocalSystem, Outcome, RecordedSystem
from controller.units import GIB, MIB
from tests.devices import NAMES, recorded

ORIN = Gpu(index=0, name="Orin", sm="87")
NANO = Device(
    architecture="aarch64",
    family=Family.ORIN,
    board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    module="p3767-0005",
    gpus=(ORIN,),
    access=GpuAccess.RUNTIME,
    gpu_groups=(44, 104),
)
TWO_CARDS = (
    Gpu(
        index=0,
        name="NVIDIA GeForce RTX 4090",
        sm="89",
        memory_bytes=24564 * MIB,
        uuid="GPU-7a90d3c4-1f25-4c1e-8a36-9f43d8ab2c01",
    ),
    Gpu(index=1, name="NVIDIA GeForce RTX 3060", sm="86", memory_bytes=12 * GIB, uuid="GPU-0c2f6b1d-95e8-4b7a-a7f2-6de1b5083f52"),
)
DEVICES = {
    "orin-nano-jp6.2.1": replace(NANO, l4t="36.4.7", jetpack="6.2.1", cuda="12.6", tensorrt="10.3.0.30"),
    "orin-nano-jp6.2.2": replace(NANO, l4t="36.5.0", jetpack="6.2.2", cuda="12.6", tensorrt="10.3.0.30"),
    "orin-nano-jp7.2": replace(NANO, l4t="39.2.0", jetpack="7.2", cuda="13.2", tensorrt="10.16.2.10", gpu_groups=(44, 992)),
    "orin-nano-jp7.2-iso": replace(NANO, l4t="39.2.1", jetpack="7.2.1", cuda="13.2", access=GpuAccess.NONE),
    "orin-nx-16-jp6.2": replace(
        NANO,
        board="NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super",
        module="p3767-0000",
        l4t="36.4.3",
        jetpack="6.2",
        cuda="12.6",
        tensorrt="10.3.0.30",
    ),
    "agx-orin-64-jp6.1": replace(
        NANO,
        board="NVIDIA Jetson AGX Orin Developer Kit",
        module="p3701-0005",
        l4t="36.4.0",
        jetpack="6.1",
        cuda="12.6",
        tensorrt="10.3.0.30",
    ),
    "agx-thor-jp7.2": replace(
        NANO,
        family=Family.THOR,
        board="NVIDIA Jetson AGX Thor Developer Kit",
        module="p3834-0008",
        l4t="39.2.0",
        jetpack="7.2",
        cuda="13.2",
        tensorrt="10.16.2.10",
        gpus=(Gpu(index=0, name="Thor", sm="110"),),
        gpu_groups=(44, 992),
    ),
    "discrete-1": Device(
        architecture="x86_64",
        family=Family.DISCRETE,
        driver="570.133.20",
        cuda="12.8",
        gpus=(replace(TWO_CARDS[0], uuid="GPU-3f0c8a52-4a7e-9d1b-6c55-2f6c0f7be911"),),
        access=GpuAccess.RUNTIME,
    ),
    "discrete-2": Device(
        architecture="x86_64", family=Family.DISCRETE, driver="580.95.05", cuda="13.0", gpus=TWO_CARDS, access=GpuAccess.CDI
    ),
    "no-gpu": Device(architecture="x86_64"),
}
GPU_MEMORY = {
    "agx-thor-jp7.2": GpuReading(held_bytes={30211: {0: 5 * GIB}}),
    "discrete-1": GpuReading(held_bytes={48213: {0: 6 * GIB}, 48307: {0: 512 * MIB}}, used_bytes={0: 6997 * MIB}),
    "discrete-2": GpuReading(held_bytes={7011: {0: 12 * GIB, 1: 6 * GIB}}, used_bytes={0: 12611 * MIB, 1: 6233 * MIB}),
    "no-gpu": None,
    "orin-nano-jp7.2": GpuReading(held_bytes={21377: {0: 1288340 * 1024}}),
    "orin-nx-16-jp6.2": GpuReading(),
}
DESKTOP = GpuReading(held_bytes={1893: {0: 38212 * 1024}, 1601: {0: 20480 * 1024}})
CLIENTS = """\
CLIENT                        PROCESS      PID        SIZE
user                VLLM::EngineCor  1792595    14617792K
user                    my program     4321          12M
user                VLLM::EngineCor  1792595           8K
kernel                         nvdla        0         512K
user                     cut off he
user                          odd     77        lots
total                                        14630600K
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_device_is_known_exactly(name: str) -> None:
    """Board, module, releases, GPUs, the way to them and their groups follow from what the box tells."""
    box = recorded(name)

    assert DEVICES[name] == read_device(box.system, box.engine)


@pytest.mark.parametrize("name", NAMES)
def test_gpu_memory_of_each_process_is_read_the_way_the_box_tells_it(name: str) -> None:
    """An Orin tells it by nvmap, Thor and cards by nvidia-smi, a box without a GPU not at all."""
    box = recorded(name)

    assert GPU_MEMORY.get(name, DESKTOP) == read_gpu_memory(box.system, DEVICES[name])


@pytest.mark.parametrize("name", NAMES)
def test_unpacked_files_say_the_same(name: str, tmp_path: Path) -> None:
    """What reads real files sees what the recording says; commands and nodes are not files."""
    box = recorded(name)
    local = LocalSystem((tmp_path / "nowhere", box.unpack(tmp_path / "root")))

    assert jetson.read_jetson(box.system) == jetson.read_jetson(local)
    assert packages.versions(box.system, ".*") == packages.versions(local, ".*")
    assert nvmap.read_clients(box.system) == nvmap.read_clients(local)
    assert [None] * len(box.unreadable) == [local.read(path) for path in box.unreadable]
    assert all(box.system.names(folder) == local.names(folder) for folder in ("/sys/class/block", "/etc", "/nothing"))


def test_without_a_container_engine_nothing_reaches_the_gpu() -> None:
    """The GPU is there all the same, and everything else is known."""
    box = recorded("orin-nano-jp7.2")

    assert replace(DEVICES["orin-nano-jp7.2"], access=GpuAccess.NONE) == read_device(box.system, None)


def test_a_specification_is_looked_for_where_the_engine_does_not_tell_names() -> None:
    """Docker before 28.2 only names the folders."""
    box = recorded("discrete-2")
    engine = replace(box.engine, cdi_devices=())
    written = replace(box.system, files={**box.system.files, "/etc/cdi/nvidia.yaml": "cdiVersion: 0.6.0\n"})
    untold = replace(box.system, files={})

    assert GpuAccess.CDI == read_device(written, engine).access
    assert GpuAccess.REQUEST == read_device(box.system, engine).access, "the toolkit is installed, and nothing is configured"
    assert GpuAccess.NONE == read_device(untold, engine).access


def test_the_engine_that_only_knows_other_devices_gives_no_gpu() -> None:
    """A specification of another maker is no way to this GPU."""
    box = recorded("orin-nano-jp7.2-iso")

    assert GpuAccess.NONE == read_device(box.system, replace(box.engine, cdi_devices=("vendor.com/npu=0",))).access


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic", "36.4.7"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0"),
        ("# R36 (release), REVISION: 5, GCID: 1", "36.5"),
        ("R36, something else", ""),
        ("", ""),
    ],
)
def test_a_release_is_read_or_it_is_not(text: str, release: str) -> None:
    """What is not written as NVIDIA writes it names no release."""
    assert release == jetson.parse_release(text)


def test_releases_that_came_later_belong_to_the_jetpack_of_their_series() -> None:
    """A release between two that are known is not guessed at."""
    assert ["7.2.1", "7.2", "7.0", "6.2.2", "", "", ""] == [
        jetson.jetpack_of(l4t) for l4t in ("39.2.1", "39.2.9", "38.2.5", "36.5.0", "36.4.9", "39.20.0", "")
    ]


def test_a_jetson_without_its_release_file_is_known_by_its_packages() -> None:
    """Images that others build have no such file."""
    box = recorded("orin-nano-jp6.2.2")
    files = {path: text for path, text in box.system.files.items() if path != jetson.RELEASE_FILE}

    assert DEVICES["orin-nano-jp6.2.2"] == read_device(replace(box.system, files=files), box.engine)


def test_an_older_jetson_has_no_gpu_for_us() -> None:
    """It is known for what it is, and models run on its processors."""
    files = {
        jetson.RELEASE_FILE: "# R35 (release), REVISION: 4.1\n",
        f"{jetson.DEVICE_TREE}/compatible": "nvidia,p3668-0001\0nvidia,tegra194\0",
    }
    device = read_device(RecordedSystem(files=files), recorded("no-gpu").engine)

    assert (Family.NONE, "5.1.2", "11.4", (), "p3668-0001") == (
        device.family,
        device.jetpack,
        device.cuda,
        device.gpus,
        device.module,
    )


@pytest.mark.parametrize(
    "ended",
    [
        None,
        Outcome(code=9, out="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"),
        Outcome(code=0, out="No devices were found\n"),
        Outcome(code=0, out="0, Orin (nvgpu), 8.7, [N/A], [N/A], 540.4.0\n"),
        Outcome(code=0, out="0, Some card, [N/A], 1024, GPU-1, 470.1\nx, Some card, 8.6, 1024, GPU-2, 470.1\n"),
    ],
)
def test_without_a_card_that_can_be_named_there_is_none(ended: Outcome | None) -> None:
    """No tool, no driver, no card, a GPU that is part of a Jetson, a driver too old to say what must be known."""
    commands = {" ".join(nvidia.CARDS): ended} if ended else {}

    assert nvidia.Cards() == nvidia.read_cards(RecordedSystem(commands=commands))


def test_a_chip_with_one_memory_for_all_has_none_of_its_own() -> None:
    """Such as GB10, where the tool answers `[N/A]`."""
    row = "0, NVIDIA GB10, 12.1, [N/A], GPU-5, 580.95.05\n"
    cards = nvidia.read_cards(RecordedSystem(commands={" ".join(nvidia.CARDS): Outcome(code=0, out=row)}))

    assert (Gpu(index=0, name="NVIDIA GB10", sm="121", memory_bytes=0, uuid="GPU-5"),) == cards.gpus
    assert "" == cards.cuda


def test_a_process_may_be_told_twice_and_what_is_not_told_counts_nothing() -> None:
    """One row a process and card, or several; a card that nobody has seen before counts as the first."""
    rows = "GPU-1, 7, 100\nGPU-1, 7, 50\nGPU-2, 7, 1\nGPU-1, 8, [N/A]\nGPU-1, 9, [Insufficient Permissions]\n\n"
    system = RecordedSystem(commands={" ".join(nvidia.PROCESSES): Outcome(code=0, out=rows)})
    device = Device(family=Family.DISCRETE, gpus=(replace(TWO_CARDS[0], uuid="GPU-1"),))

    assert {7: {"GPU-1": 150 * MIB, "GPU-2": MIB}} == nvidia.read_processes(system)
    assert GpuReading(held_bytes={7: {0: 151 * MIB}}) == read_gpu_memory(system, device)


def test_a_tool_that_fails_tells_nothing() -> None:
    """That is not the same as saying that nobody holds anything."""
    failing = RecordedSystem(commands={" ".join(nvidia.PROCESSES): Outcome(code=15, out="")})

    assert read_gpu_memory(failing, DEVICES["discrete-1"]) is None
    assert read_gpu_memory(RecordedSystem(), DEVICES["discrete-1"]) is None
    assert read_gpu_memory(RecordedSystem(), DEVICES["orin-nano-jp7.2"]) is None


def test_rows_of_nvmap_that_are_none_are_left_out() -> None:
    """Names with spaces, several rows of one process, the kernel's own, rows cut off, the sum."""
    assert {1792595: (14617792 + 8) * 1024, 4321: 12 * MIB} == nvmap.parse_clients(CLIENTS)


def test_nvmap_is_not_asked_where_it_does_not_answer() -> None:
    """The file is root's, and a kernel without nvmap has none."""
    assert nvmap.read_clients(RecordedSystem()) is None


def test_a_package_that_was_removed_is_not_installed() -> None:
    """Dpkg goes on to know a package whose configuration was kept."""
    removed = "Package: a\nStatus: deinstall ok config-files\nVersion: 1\n"
    installed = "Package: b\nStatus: install ok installed\nVersion: 2-1\nDescription: b\n more: 1\n"
    text = f"{removed}\n{installed}"
    system = RecordedSystem(files={packages.STATUS_FILE: text})

    assert {"b": "2-1"} == packages.versions(system, ".*")
    assert "" == packages.version_of(system, "a")


def test_the_newest_tensorrt_counts() -> None:
    """Numbers are compared as numbers."""
    box = recorded("orin-nano-jp6.2.2")
    more = "\nPackage: libnvinfer8\nStatus: install ok installed\nVersion: 8.6.2.3-1+cuda12.2\n"
    status = box.system.files[packages.STATUS_FILE] + more
    system = replace(box.system, files={**box.system.files, packages.STATUS_FILE: status})

    assert "10.3.0.30" == read_device(system, box.engine).tensorrt


def test_this_box_is_read_without_a_word() -> None:
    """Whatever this is, the real files and commands make a device of it."""
    device = read_device(LocalSystem(), None)

    assert device.architecture in {"x86_64", "aarch64"}


def test_a_command_that_hangs_or_is_missing_is_no_answer(tmp_path: Path) -> None:
    """And one that ends badly is an answer with its code."""
    system = LocalSystem()

    assert system.run(("there-is-no-such-command",)) is None
    assert Outcome(code=3, out="inactive\n") == system.run(("sh", "-c", "echo inactive; exit 3"))
    assert system.read(str(tmp_path)) is None
    assert () == system.names(str(tmp_path / "nothing"))


def test_a_node_for_everyone_needs_no_group(tmp_path: Path) -> None:
    """Only a node that its group alone may open asks for one."""
    system = LocalSystem((tmp_path,))
    for name, mode in (("closed", 0o660), ("open", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)

    assert (tmp_path / "closed").stat().st_gid == system.group("/closed")
    assert system.group("/open") is None
    assert system.group("/nothing") is None


def test_engine_info_of_an_engine_that_knows_nothing_of_cdi() -> None:
    """Names of several kinds of devices are told; only those of CDI are meant."""
    told = {**recorded("no-gpu").docker_info, "DiscoveredDevices": [{"Source": "other", "ID": "x"}]}

    assert ((), ()) == (engine_info(told).cdi_folders, engine_info(told).cdi_devices)
