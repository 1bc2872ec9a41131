"""The seal as data: what the engine is asked to make."""

from pathlib import PurePosixPath
from typing import Any

import pytest

from controller.drivers.base import EngineInfo
from controller.drivers.gpus import remedy
from controller.drivers.sealing import MIN_MEMORY_BYTES, container_body, container_name, job_body, job_name
from controller.errors import EngineError
from controller.spec import GROUP_GID, JobSpec, ModelName, Mount, WorkerSpec
from controller.units import GIB, MIB


def engine(**changes: Any) -> EngineInfo:  # noqa: ANN401 -- any field
    """Describe an engine."""
    known: dict[str, Any] = {
        "version": "27.0",
        "cgroup_version": 2,
        "memory_limits": True,
        "swap_limits": True,
        "runtimes": ("runc",),
        "storage_driver": "overlay2",
        "architecture": "aarch64",
    }
    return EngineInfo(**{**known, **changes})


def worker(**changes: Any) -> WorkerSpec:  # noqa: ANN401 -- any field
    """Describe a worker."""
    known: dict[str, Any] = {
        "model": ModelName("tiny"),
        "image": "windlass/llama-cpp:abc",
        "argv": ("--alias", "tiny"),
        "mounts": (
            Mount(source=PurePosixPath("/data/models/tiny"), target=PurePosixPath("/model"), read_only=True),
            Mount(source=PurePosixPath("/data/kv/tiny"), target=PurePosixPath("/kv"), read_only=False),
        ),
        "memory_bytes": 1 * GIB,
        "socket": PurePosixPath("/run/windlass/workers/tiny/worker.sock"),
    }
    return WorkerSpec(**{**known, **changes})


def host_config(spec: WorkerSpec, info: EngineInfo) -> dict[str, Any]:
    """Return the part about the host."""
    part = container_body(spec, owner="box", engine=info)["HostConfig"]
    assert isinstance(part, dict)
    return part


def test_the_seal_is_whole() -> None:
    """Everything that closes a container is there, for every worker the same."""
    host = host_config(worker(), engine())

    closed = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "Init": False,
        "RestartPolicy": {"Name": "no"},
        "PidsLimit": 256,
        "Memory": 1 * GIB,
        "MemorySwap": 1 * GIB,
        "DeviceRequests": [],
        "Devices": [],
    }
    assert {key: host[key] for key in closed} == closed
    assert "CapAdd" not in host


def test_labels_say_whose_it_is() -> None:
    """Owner, model, the hash of the spec and the memory are labels; the name is for people."""
    spec = worker()

    body = container_body(spec, owner="box", engine=engine())

    assert body["Labels"] == {
        "windlass.owner": "box",
        "windlass.model": "tiny",
        "windlass.spec": spec.spec_hash,
        "windlass.memory": str(GIB),
    }
    assert container_name("box", spec.model) == "box-tiny"


def test_mounts_are_binds_with_their_flag() -> None:
    """A path is mounted as it is described, and no directory is invented for a missing one."""
    host = host_config(worker(), engine())

    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/data/models/tiny", "Target": "/model", "ReadOnly": True},
        {"Type": "bind", "Source": "/data/kv/tiny", "Target": "/kv", "ReadOnly": False},
    ]
    assert "Binds" not in host


def test_a_small_limit_is_rounded_up() -> None:
    """The engine refuses less than it can enforce."""
    host = host_config(worker(memory_bytes=MIB), engine())

    assert (host["Memory"], host["MemorySwap"]) == (MIN_MEMORY_BYTES, MIN_MEMORY_BYTES)


@pytest.mark.parametrize(("version", "swappiness"), [(1, 0), (2, None)])
def test_swappiness_is_set_where_there_is_one(version: int, swappiness: int | None) -> None:
    """Only version 1 of cgroups has it per container."""
    host = host_config(worker(), engine(cgroup_version=version))

    assert host.get("MemorySwappiness") == swappiness


def test_variables_are_sorted() -> None:
    """Two equal specs ask for the same container."""
    body = container_body(worker(env={"B": "2", "A": "1"}), owner="box", engine=engine())

    assert body["Env"] == ["A=1", "B=2"]


CDI = engine(version="28.3", cdi_folders=("/etc/cdi", "/run/cdi"))
NVIDIA = engine(runtimes=("nvidia", "runc"))


@pytest.mark.parametrize(
    ("devices", "request_"),
    [
        (("nvidia.com/gpu=all",), {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}),
        (("nvidia.com/gpu=0", "nvidia.com/gpu=1"), {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}),
        (("nvidia=all",), {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}),
        (("nvidia=0,1",), {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}),
        (("gpus=all",), {"Driver": "nvidia", "Capabilities": [["gpu"]], "Count": -1}),
        (("gpus=0,1",), {"Driver": "nvidia", "Capabilities": [["gpu"]], "DeviceIDs": ["0", "1"]}),
    ],
)
def test_gpus_are_requested(devices: tuple[str, ...], request_: dict[str, object]) -> None:
    """By their CDI names, which stand for those of a runtime that is not there, or by the engine's own request."""
    host = host_config(worker(devices=devices), CDI)

    assert host["DeviceRequests"] == [request_]
    assert "Runtime" not in host


@pytest.mark.parametrize(
    ("devices", "seen"), [(("nvidia=all",), "all"), (("nvidia=0,1",), "0,1"), (("nvidia=0", "nvidia=2"), "0,2")]
)
def test_nvidias_runtime_is_used_where_it_is(devices: tuple[str, ...], seen: str) -> None:
    """The GPU comes through it, and a variable says which; the worker's own variables win."""
    body = container_body(worker(devices=devices, env={"NVIDIA_DRIVER_CAPABILITIES": "all"}), owner="box", engine=NVIDIA)

    assert isinstance(body["HostConfig"], dict)
    assert (body["HostConfig"]["Runtime"], body["HostConfig"]["DeviceRequests"]) == ("nvidia", [])
    assert body["Env"] == ["NVIDIA_DRIVER_CAPABILITIES=all", f"NVIDIA_VISIBLE_DEVICES={seen}"]


@pytest.mark.parametrize("devices", [(), ("/dev/nvmap",), ("nvidia.com/gpu=0",)])
def test_nvidias_runtime_keeps_away_from_who_did_not_ask_it(devices: tuple[str, ...]) -> None:
    """It may be the engine's default, and an image may ask it for all GPUs."""
    both = engine(runtimes=("nvidia", "runc"), cdi_folders=("/etc/cdi",))
    body = container_body(worker(devices=devices), owner="box", engine=both)

    assert body["Env"] == ["NVIDIA_VISIBLE_DEVICES=void"]


@pytest.mark.parametrize(
    ("device", "info", "said"),
    [
        ("nvidia=all", engine(), "neither NVIDIA's runtime nor a folder for CDI"),
        ("nvidia.com/gpu=all", NVIDIA, "no folder for CDI"),
        (
            "nvidia.com/gpu=1",
            engine(cdi_folders=("/etc/cdi",), cdi_devices=("nvidia.com/gpu=0",)),
            "engine knows nvidia.com/gpu=0",
        ),
        ("amd=all", CDI, "wanted a device such as"),
    ],
)
def test_a_gpu_that_cannot_be_given_is_refused(device: str, info: EngineInfo, said: str) -> None:
    """Before anything is made, by name and with what to do: the engine itself would only say so when the container is started."""
    with pytest.raises(EngineError, match=said) as refused:
        container_body(worker(devices=(device,)), owner="box", engine=info)

    assert device in str(refused.value)


def test_a_name_the_engine_has_found_is_asked_for() -> None:
    """Docker 28.2 tells what it knows, and what it knows is not refused."""
    info = engine(cdi_folders=("/etc/cdi",), cdi_devices=("nvidia.com/gpu=0", "nvidia.com/gpu=all"))

    host = host_config(worker(devices=("nvidia.com/gpu=all",)), info)

    assert host["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all", "nvidia-ctk cdi generate"),
        ('failed to inject: failed to stat CDI host device "/dev/fb0": no such file or directory', "not there any more"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "toolkit is not installed"),
        (
            "invoking the NVIDIA Container Runtime Hook directly (e.g. specifying the docker --gpus flag) is not supported. "
            "Please use the NVIDIA Container Runtime instead.: unknown.",
            "nvidia-ctk runtime configure",
        ),
    ],
)
def test_what_engines_say_at_a_start_has_a_remedy(said: str, advice: str) -> None:
    """They refuse in words that say nothing of what to do."""
    assert advice in remedy(said)


def test_other_refusals_have_none() -> None:
    """Nothing is advised that may not help."""
    assert not remedy("error gathering device information while adding custom device: no such file or directory")


def test_device_nodes_are_passed_through() -> None:
    """A path is a device node, readable and writable and never made."""
    host = host_config(worker(devices=("/dev/nvmap",)), engine())

    assert host["Devices"] == [{"PathOnHost": "/dev/nvmap", "PathInContainer": "/dev/nvmap", "CgroupPermissions": "rw"}]
    assert host["DeviceRequests"] == []


def test_a_gpu_worker_is_sealed_like_the_others() -> None:
    """Beside the GPU and its groups, nothing about it differs."""
    plain, gpu = host_config(worker(), NVIDIA), host_config(worker(devices=("nvidia=all",), groups=(44, GROUP_GID, 104)), NVIDIA)

    assert {key for key in gpu if gpu[key] != plain.get(key)} == {"Runtime", "GroupAdd"}
    assert gpu["GroupAdd"] == ["44", "104"]


@pytest.mark.parametrize(("wanted_bytes", "given_bytes"), [(0, 64 * MIB), (MIB, 64 * MIB), (GIB, GIB)])
def test_shared_memory_is_what_is_wanted_and_never_less_than_usual(wanted_bytes: int, given_bytes: int) -> None:
    """Processes that compute on several GPUs together exchange through it."""
    assert host_config(worker(shm_bytes=wanted_bytes), engine())["ShmSize"] == given_bytes


def test_a_build_is_sealed_as_a_worker_is() -> None:
    """It has the seal of a worker, its own program, the least claim on the cores, and is the first to go for memory."""
    step = JobSpec(
        build="abc",
        step=1,
        image="windlass/llama-cpp:abc",
        argv=("/usr/local/bin/llama-quantize", "in", "out"),
        mounts=worker().mounts,
        memory_bytes=GIB,
        pids_limit=128,
        cpus=1.5,
        env={"B": "2"},
    )

    body = job_body(step, owner="box", engine=engine())
    host, of_worker = body["HostConfig"], host_config(worker(), engine())

    assert isinstance(host, dict)
    differs = {key for key in host if host[key] != of_worker.get(key)}
    assert differs == {"PidsLimit", "OomScoreAdj", "CpuShares", "NanoCpus"}
    assert not set(of_worker) - set(host)
    assert (host["CpuShares"], host["NanoCpus"], host["OomScoreAdj"] > of_worker["OomScoreAdj"]) == (64, 1_500_000_000, True)
    assert (body["Entrypoint"], body["Cmd"], body["Env"]) == (["/usr/local/bin/llama-quantize"], ["in", "out"], ["B=2"])
    assert (body["User"], body["NetworkDisabled"]) == ("64001:64000", True)
    assert body["Labels"] == {
        "windlass.owner": "box",
        "windlass.build": "abc",
        "windlass.step": "1",
        "windlass.memory": str(GIB),
    }
    assert job_name("box", "abc") != container_name("box", ModelName("build-abc"))


def test_a_build_gets_a_gpu_as_a_worker_does() -> None:
    """By the same way, with the same groups."""
    step = JobSpec(
        build="abc", step=0, image="i", argv=("trtllm-build",), mounts=(), memory_bytes=GIB, devices=("nvidia=1",), groups=(44,)
    )

    body, of_worker = job_body(step, owner="box", engine=NVIDIA), host_config(worker(devices=("nvidia=1",), groups=(44,)), NVIDIA)

    assert isinstance(body["HostConfig"], dict)
    same = ("Runtime", "Devices", "DeviceRequests", "GroupAdd")
    assert [body["HostConfig"][key] for key in same] == [of_worker[key] for key in same]
    assert body["Env"] == ["NVIDIA_DRIVER_CAPABILITIES=compute,utility", "NVIDIA_VISIBLE_DEVICES=1"]
