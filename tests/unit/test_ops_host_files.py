"""What the controller's container is shown of a host."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.ops import host_files
from controller.ops.images import read_tags
from controller.probes.device import read_device
from controller.probes.jetson import read_jetson
from tests.devices import NAMES, recorded

PROJECT = Path(__file__).resolve().parents[2]


def content(name: str, *, missing: str = "-") -> Any:  # noqa: ANN401 -- what a Compose file holds
    """Return what is written for a recorded device that has every path but *missing*."""
    box = recorded(name)
    return host_files.host_compose(
        read_device(box.system, box.engine),
        is_jetson=read_jetson(box.system) is not None,
        exists=lambda path: path != missing,
    )


def service(name: str) -> dict[str, Any]:
    """Return what is added to the controller's service."""
    return dict(content(name)["services"]["controller"])


def test_a_box_without_a_gpu_shows_nothing_more() -> None:
    """The stack is what it was."""
    assert content("no-gpu") is None


def test_a_jetson_shows_who_it_is() -> None:
    """Its release, device tree, power modes, debugging files, device nodes and packages, all read-only."""
    found = service("orin-nano-jp7.2")

    assert {"volumes"} == set(found), "an Orin tells its processes' memory in files, and the controller needs no GPU"
    assert {
        "/etc/nv_tegra_release",
        "/sys/firmware/devicetree/base",
        "/etc/nvpmodel.conf",
        "/var/lib/nvpmodel",
        "/sys/kernel/debug",
        "/dev",
        "/var/lib/dpkg",
        "/etc/cdi",
    } == {mount["source"] for mount in found["volumes"]}
    assert all(mount["read_only"] and mount["target"] == f"/run/host{mount['source']}" for mount in found["volumes"])


def test_a_path_that_is_not_there_is_not_mounted() -> None:
    """The engine would make it, as a folder."""
    mounts = content("orin-nano-jp7.2", missing="/etc/nvpmodel.conf")["services"]["controller"]["volumes"]

    assert "/etc/nvpmodel.conf" not in {mount["source"] for mount in mounts}
    assert 7 == len(mounts)


def test_where_cards_are_the_controller_gets_their_management_library() -> None:
    """By the way that this engine has, and in the host's namespace of processes."""
    runtime, thor, cdi = service("discrete-1"), service("agx-thor-jp7.2"), service("discrete-2")

    assert ("host", "nvidia", "utility") == (
        runtime["pid"],
        runtime["runtime"],
        runtime["environment"]["NVIDIA_DRIVER_CAPABILITIES"],
    )
    assert "nvidia" == thor["runtime"]
    assert ["nvidia.com/gpu=all"] == cdi["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
    assert "runtime" not in cdi
    assert {"/var/lib/dpkg", "/etc/cdi"} == {mount["source"] for mount in runtime["volumes"]}


def test_a_jetson_without_the_toolkit_is_still_known() -> None:
    """No way to the GPU is no reason not to know which board it is."""
    assert {"volumes"} == set(service("orin-nano-jp7.2-iso"))


@pytest.mark.engine
@pytest.mark.parametrize("name", [name for name in NAMES if name != "no-gpu"])
def test_compose_takes_it(name: str, tmp_path: Path) -> None:
    """Whichever Compose is installed merges it with the appliance's file."""
    added = tmp_path / "host.yaml"
    added.write_text(host_files.write(content(name)))
    folders = ("WINDLASS_HOME", "WINDLASS_RUN", "WINDLASS_CONFIG_FOLDER", "WINDLASS_IMAGE_CONTROLLER")
    environ = {"PATH": os.environ["PATH"], **{variable: f"/{variable.lower()}" for variable in folders}}
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    argv = [*compose, "--file", str(PROJECT / "compose/appliance.yaml"), "--file", str(added), "config"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)

    assert 0 == done.returncode, done.stderr
    assert all(mount["target"] in done.stdout for mount in json.loads(added.read_text())["services"]["controller"]["volumes"])


@pytest.mark.engine
def test_a_sealed_container_sees_the_hosts_nodes_and_opens_none() -> None:
    """Whose a node is can be seen; what is in it cannot, whoever asks."""
    image = read_tags(PROJECT / "build" / "images.env")["WINDLASS_IMAGE_CONTROLLER"]
    look = (
        "from controller.probes.system import LocalSystem\n"
        "import os\n"
        "system = LocalSystem()\n"
        "print(system.group('/dev/loop-control'))\n"
        "try: os.open('/run/host/dev/loop-control', os.O_RDWR)\n"
        "except PermissionError: print('closed')\n"
    )
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE"]
    argv += ["--user", "0:0", "--security-opt", "no-new-privileges:true", "--entrypoint", "/opt/windlass/bin/python"]
    for path in ("/dev", "/sys/kernel/debug"):
        argv += ["--mount", f"type=bind,source={path},target=/run/host{path},readonly"]
    done = subprocess.run([*argv, image, "-c", look], capture_output=True, text=True, check=False)

    assert f"{Path('/dev/loop-control').stat().st_gid}\nclosed\n" == done.stdout, done.stderr
