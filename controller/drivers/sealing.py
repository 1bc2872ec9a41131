"""
What a sealed container is, in the words of the Engine API: a pure function of the worker wanted and the engine at hand.

Everything a worker may do is listed here, and the kernel refuses everything else. It has no network, no capability and no way
to gain one; it can write into its run directory, its KV directory, and memory of its own that counts against its limit.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from controller.drivers.base import EngineInfo
from controller.drivers.gpus import Body, Reach, reach
from controller.replicas import SEPARATOR
from controller.spec import (
    GROUP_GID,
    LABEL_BUILD,
    LABEL_CARDS,
    LABEL_MEMORY,
    LABEL_MODEL,
    LABEL_OWNER,
    LABEL_SPEC,
    LABEL_STEP,
    WORKER_UID,
    JobSpec,
    ModelName,
    Mount,
    WorkerSpec,
    write_cards,
)
from controller.units import MIB

MIN_MEMORY_BYTES: Final = 6 * MIB
"""The engine takes no smaller limit."""

_SCRATCH_BYTES: Final = 64 * MIB
"""Of `/tmp`, and of `/dev/shm`; both are memory and count against the container's limit."""
_NO_CORE: Final = {"Name": "core", "Soft": 0, "Hard": 0}
"""A core file holds conversations, and the kernel would write it outside of every limit here."""
_LOG_BYTES: Final = 1 * MIB
_LOG_FILES: Final = 2
_OOM_SCORE_ADJ: Final = 500
"""If the machine runs out in spite of everything, a worker is a better loss than the controller or the engine."""
_JOB_OOM_SCORE_ADJ: Final = 800
"""And a build is a better loss than a worker: it starts again by itself."""
_JOB_CPU_SHARES: Final = 64
"""Against 1024 of everybody else: a build takes the cores that nobody else wants, and yet it ends where there are none."""


def container_name(owner: str, model: ModelName) -> str:
    """
    Return the name of a model's container; it is for people, the labels decide whose container it is.

    Docker allows no tilde in it. What stands for it here, no model's name has.
    """
    return f"{owner}-{model.replace(SEPARATOR, '.R')}"


def container_body(spec: WorkerSpec, *, owner: str, engine: EngineInfo) -> Body:
    """
    Return the body of the request that makes *spec*'s container.

    Health check and stop signal of the image are overridden: readiness is asked on the socket, and one signal means stop for all.

    Raises:
        EngineError: it wants a GPU, and the engine has no way to give it one.

    """
    devices = reach(spec.devices, engine)
    labels = {LABEL_MODEL: spec.model, LABEL_SPEC: spec.spec_hash, **_memory_labels(spec)}
    return {
        **_container(spec.image, {**devices.env, **spec.env}, labels={LABEL_OWNER: owner, **labels}, hostname="worker"),
        "Cmd": list(spec.argv),
        "HostConfig": {
            **_sealed(spec.mounts, pids_limit=spec.pids_limit, oom_score_adj=_OOM_SCORE_ADJ),
            **_opened(devices, spec.groups),
            "ShmSize": max(spec.shm_bytes, _SCRATCH_BYTES),
            **_memory(spec.memory_bytes, engine),
        },
    }


def job_name(owner: str, build: str) -> str:
    """Return the name of a build's container; with the point after the owner it is no model's."""
    return f"{owner}.build-{build}"


def job_body(spec: JobSpec, *, owner: str, engine: EngineInfo) -> Body:
    """
    Return the body of the request that makes *spec*'s container: as sealed as a worker, and last in line for the cores.

    Raises:
        EngineError: it wants a GPU, and the engine has no way to give it one.

    """
    devices = reach(spec.devices, engine)
    labels = {LABEL_BUILD: spec.build, LABEL_STEP: str(spec.step), **_memory_labels(spec)}
    program, *arguments = spec.argv
    return {
        **_container(spec.image, {**devices.env, **spec.env}, labels={LABEL_OWNER: owner, **labels}, hostname="build"),
        "Entrypoint": [program],
        "Cmd": arguments,
        "HostConfig": {
            **_sealed(spec.mounts, pids_limit=spec.pids_limit, oom_score_adj=_JOB_OOM_SCORE_ADJ),
            **_opened(devices, spec.groups),
            "CpuShares": _JOB_CPU_SHARES,
            **({"NanoCpus": round(spec.cpus * 1e9)} if spec.cpus else {}),
            **_memory(spec.memory_bytes, engine),
        },
    }


def _memory_labels(spec: WorkerSpec | JobSpec) -> Mapping[str, str]:
    """Return what says of a container what it takes, for whoever finds it running and knows nothing else of it."""
    return {LABEL_MEMORY: str(spec.memory_bytes), **({LABEL_CARDS: write_cards(spec.cards)} if spec.cards else {})}


def _container(image: str, env: Mapping[str, str], *, labels: Mapping[str, str], hostname: str) -> Body:
    return {
        "Image": image,
        "Env": [f"{key}={value}" for key, value in sorted(env.items())],
        "User": f"{WORKER_UID}:{GROUP_GID}",
        "Hostname": hostname,
        "Labels": dict(labels),
        "NetworkDisabled": True,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
    }


def _sealed(mounts: Sequence[Mount], *, pids_limit: int, oom_score_adj: int) -> Body:
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "Init": False,
        "RestartPolicy": {"Name": "no"},
        "PidsLimit": pids_limit,
        "OomScoreAdj": oom_score_adj,
        "ShmSize": _SCRATCH_BYTES,
        "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={_SCRATCH_BYTES},mode=1777"},  # noqa: S108 -- the container's own
        "Ulimits": [_NO_CORE],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(_LOG_BYTES), "max-file": str(_LOG_FILES)}},
        "Mounts": [
            {"Type": "bind", "Source": str(mount.source), "Target": str(mount.target), "ReadOnly": mount.read_only}
            for mount in mounts
        ],
    }


def _opened(devices: Reach, groups: Sequence[int]) -> Body:
    """Add what is open to this container alone: its devices, and the groups that may open the nodes."""
    return {**devices.host_config, "GroupAdd": [str(group) for group in groups if group != GROUP_GID]}


def _memory(memory_bytes: int, engine: EngineInfo) -> Body:
    limit_bytes = max(memory_bytes, MIN_MEMORY_BYTES)
    # Only version 1 knows swappiness per container; with the two limits equal there is no swap in version 2 either.
    swappiness: Body = {"MemorySwappiness": 0} if engine.cgroup_version == 1 else {}
    return {"Memory": limit_bytes, "MemorySwap": limit_bytes, **swappiness}
