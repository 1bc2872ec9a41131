"""Stock systems become boxes: their own packages, resolved and installed by their own apt, over ssh."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docker
import pytest

from controller.ops import box_deb
from controller.ops.deploy import stock
from controller.ops.deploy.cargo import Wish, compose_release
from controller.ops.deploy.link import Link
from controller.ops.deploy.provision import provision
from controller.ops.deploy.steps import Boat, look
from controller.ops.targets import CPU
from tests.engine.box import StandInBox, standin_box
from tests.fakeworker import image as fake

pytestmark = pytest.mark.appliance

SYSTEMS: Final = {"trixie": "26.1", "bookworm": "20.10"}
"""Releases of Debian, and the container engines that they have."""
OURS: Final = {"data-root": "/srv/docker", "live-restore": False}
"""What somebody has decided before we come."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the box package."""
    return box_deb.build(tmp_path_factory.mktemp("package"))


@pytest.fixture(params=SYSTEMS)
def stock_box(request: pytest.FixtureRequest, engine: docker.APIClient, tmp_path: Path) -> Iterator[tuple[str, StandInBox]]:
    """Run a box that is a minimal Debian, and nothing else."""
    root = tmp_path / request.param
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", request.param, str(root)], check=True, capture_output=True)
    with standin_box(fake.base_image(engine), below=root) as box:
        yield request.param, box


def test_a_stock_system(stock_box: tuple[str, StandInBox], package: Path, engine: docker.APIClient, tmp_path: Path) -> None:
    """Everything that is missing comes, what was decided stays, a second time changes nothing, and a release can be deployed."""
    system, box = stock_box
    box.shell(f"mkdir -p /etc/docker && echo '{json.dumps(OURS)}' >/etc/docker/daemon.json")
    with Link("box", environ={"WINDLASS_SSH": box.ssh}) as link:
        assert "" == look(link).package
        provision(link, package, folder=tmp_path / "provision", break_lock=False)
        host = look(link)
        configured = box.shell("cat /etc/windlass/appliance.toml")
        box.shell("echo '# mine' >>/etc/windlass/appliance.toml")
        provision(link, package, folder=tmp_path / "provision", break_lock=False)

        assert host.engine.startswith("20.10"), "the engine is this machine's; its command line is the system's own"
        assert box.shell("docker --version").startswith(f"Docker version {SYSTEMS[system]}")
        assert host.compose
        assert host.rsync
        assert host.package
        assert OURS.items() <= json.loads(box.shell("cat /etc/docker/daemon.json")).items()
        assert f"{configured}# mine\n" == box.shell("cat /etc/windlass/appliance.toml")
        assert "" == box.shell("dpkg --audit")

        wish = release(engine, tmp_path)
        Boat(link, wish).deploy()
        status = look(link).status

    assert status is not None
    assert wish.release.version == status["current"]


def release(engine: docker.APIClient, folder: Path) -> Wish:
    """Return a release of an image that the box has."""
    made = compose_release(
        "v1",
        {"WINDLASS_IMAGE_CONTROLLER": fake.base_image(engine)},
        settings={"WINDLASS_USE_GPU": "false"},
        files={"appliance.yaml": "services: {}\n", "box.yaml": "services: {}\n"},
    )
    return Wish(release=made, images=stock.find_images(made.tags), target=CPU, folder=folder / "deploy")
