"""A real llama.cpp worker, as the stack makes it: what the engine says of its container, and what can be done from inside."""

import json
import subprocess
from typing import Any

import pytest

from bench.stack import Stack, output
from tests.system.conftest import NAME, TWIN
from tests.system.talk import Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

USER, GROUP = "64001", "64000"


@pytest.fixture
def facts(world: Stack, caller: Caller) -> dict[str, Any]:
    """Return what the engine says of a worker that has served."""
    caller.text(NAME)
    return dict(json.loads(output(["docker", "inspect", world.worker(NAME)]))[0])


def inside(world: Stack, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the worker's container, as the user it runs as."""
    return subprocess.run(["docker", "exec", world.worker(NAME), *argv], capture_output=True, text=True, check=False)


def test_the_engine_was_told_to_seal_it(facts: dict[str, Any]) -> None:
    """No network, read-only root, no capability, no way to gain one, no restart, and limits on memory, processes and log."""
    host = facts["HostConfig"]

    assert ("none", True, ["ALL"], False) == tuple(
        host[key] for key in ("NetworkMode", "ReadonlyRootfs", "CapDrop", "Privileged")
    )
    assert host["CapAdd"] in (None, [])
    assert "no-new-privileges" in host["SecurityOpt"]
    assert "no" == host["RestartPolicy"]["Name"]
    assert host["Memory"] == host["MemorySwap"] == 100 * 1024 * 1024
    assert 0 < host["PidsLimit"] < 1000
    assert {"max-size", "max-file"} <= host["LogConfig"]["Config"].keys()
    assert host["PortBindings"] in (None, {})
    assert f"{USER}:{GROUP}" == facts["Config"]["User"]


def test_its_labels_say_whose_it_is(world: Stack, facts: dict[str, Any]) -> None:
    """Owner, model, description and memory are labels, so that a restarted controller knows its containers."""
    labels = facts["Config"]["Labels"]

    assert (world.place.owner, NAME, str(100 * 1024 * 1024)) == tuple(
        labels[f"windlass.{key}"] for key in ("owner", "model", "memory")
    )
    assert labels["windlass.spec"]


def test_it_sees_its_own_folders_and_no_socket_of_the_engine(world: Stack, facts: dict[str, Any]) -> None:
    """Three mounts: its model read-only, its run and KV directories; nothing else of the host."""
    mounts = {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in facts["Mounts"] if mount["Type"] == "bind"}

    assert {
        "/model": (f"{world.place.home}/models/{NAME}", False),
        "/run/worker": (f"{world.place.run}/workers/{NAME}", True),
        "/kv": (f"{world.place.home}/kv/{NAME}", True),
    } == mounts


@pytest.mark.usefixtures("facts")
def test_its_process_has_no_power(world: Stack) -> None:
    """The kernel agrees: its own user, no capability in any set, and no new privileges."""
    status = dict(line.split(":", 1) for line in inside(world, "cat", "/proc/1/status").stdout.splitlines())

    assert {USER} == set(status["Uid"].split())
    assert {GROUP} == set(status["Gid"].split())
    assert {"0000000000000000"} == {status[f"Cap{kind}"].strip() for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    assert "1" == status["NoNewPrivs"].strip()


@pytest.mark.usefixtures("facts")
def test_it_has_no_network(world: Stack) -> None:
    """There is loopback, and no route to anywhere."""
    routes = inside(world, "cat", "/proc/net/route").stdout.splitlines()[1:]
    listening = inside(world, "cat", "/proc/net/tcp").stdout.splitlines()[1:]

    assert [] == routes
    # It serves on a Unix socket alone: 0A is the state of a socket that listens.
    assert not [line for line in listening if line.split()[3] == "0A"]


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize("path", ["/", "/etc", "/usr/local/bin", "/model", "/run", "/var/tmp"])
def test_it_cannot_write_outside_its_directories(world: Stack, path: str) -> None:
    """Making a file fails everywhere but in its run and KV directories."""
    done = inside(world, "touch", f"{path}/made-by-a-test")

    assert done.returncode != 0


@pytest.mark.usefixtures("facts")
def test_it_can_write_in_its_own(world: Stack) -> None:
    """Its run and KV directories are there to be written."""
    codes = [
        inside(world, "sh", "-c", f"echo x > {path}/made-by-a-test && rm {path}/made-by-a-test")
        for path in ("/run/worker", "/kv")
    ]

    assert [0, 0] == [done.returncode for done in codes]


@pytest.mark.usefixtures("facts")
def test_it_sees_no_other_models_files(world: Stack) -> None:
    """Neither the other model's folder nor its socket nor the home directory can be found from inside."""
    home = inside(world, "ls", f"{world.place.home}/models/{TWIN}")
    sockets = inside(world, "ls", f"{world.place.run}/workers")
    mounted = inside(world, "cat", "/proc/self/mountinfo").stdout

    assert 0 not in (home.returncode, sockets.returncode)
    assert TWIN not in mounted
    assert "docker.sock" not in mounted


@pytest.mark.usefixtures("facts")
def test_its_socket_is_closed_to_others(world: Stack) -> None:
    """User and group may talk to it, and nobody else."""
    said = inside(world, "stat", "--format", "%F %a %g", "/run/worker/worker.sock").stdout.split()

    assert "socket" == said[0]
    assert "0" == said[1][-1]
    assert GROUP == said[2]


def test_controller_and_gateway_are_sealed_from_each_other(world: Stack) -> None:
    """Who has the engine's socket has no network; who has a network has no engine's socket, no root, and no capability."""
    controller, gateway = (
        json.loads(output(["docker", "inspect", world.container(service)]))[0] for service in ("controller", "gateway")
    )

    assert "none" == controller["HostConfig"]["NetworkMode"]
    assert "docker.sock" in json.dumps(controller["Mounts"])
    assert "docker.sock" not in json.dumps(gateway["Mounts"])
    assert "64002:64000" == gateway["Config"]["User"]
    assert (True, ["ALL"]) == (gateway["HostConfig"]["ReadonlyRootfs"], gateway["HostConfig"]["CapDrop"])
    assert all(not mount["RW"] for mount in gateway["Mounts"] if mount["Type"] == "bind")
