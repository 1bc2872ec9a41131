"""The base of a Jetson's images, as far as it needs no CUDA: its first stage, made on the plain base."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
from docker import APIClient

from controller.ops import recipes
from controller.ops.targets import L4T_DOCKERFILE, l4t_base
from tests.fakeworker.image import base_image

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parents[2]
TAG = "windlass/l4t-base:test"


def docker(*argv: str) -> str:
    """Run one command of the engine and return what it said."""
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make the stage as `make images` does, but on the plain base and without a release."""
    context = tmp_path_factory.mktemp("l4t-base")
    base = l4t_base("7.2", "system")
    for path in base.inputs:
        copy(PROJECT / path, context)
    argv = recipes.build_argv(
        tags=(TAG,),
        context=str(context),
        dockerfile=str(context / L4T_DOCKERFILE.name),
        stage=base.stage,
        arguments={"BASE": base_image(APIClient()), "JETPACK": base.jetpack},
        environ=os.environ,
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    yield TAG
    docker("rmi", TAG)


def test_its_users_are_those_of_the_plain_base(system: str) -> None:
    """Workers and gateway have the ids that sockets and folders are made for, and no way to log in."""
    found = docker("run", "--rm", "--network", "none", system, "getent", "passwd", "worker", "gateway")

    assert [
        "worker:x:64001:64000::/nonexistent:/usr/sbin/nologin",
        "gateway:x:64002:64000::/nonexistent:/usr/sbin/nologin",
    ] == found.splitlines()


def test_it_runs_as_a_worker_does(system: str) -> None:
    """The stage runs sealed, as the worker's user, and sees no GPU's library and no release but the host's."""
    sealed = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    script = "id --user; ldconfig -p 2>/dev/null | grep --count --extended-regexp 'libcuda|libnv'; ls /etc/nv_tegra_release 2>&1"
    found = docker("run", "--rm", *sealed, "--user", "64001:64000", system, "sh", "-c", f"{script}; true").splitlines()

    assert ["64001", "0"] == found[:2]
    assert "No such file" in found[2]


def test_it_can_reach_a_signed_repository(system: str) -> None:
    """The certificates are there that apt needs for NVIDIA's repository, and documentation is not."""
    found = docker(
        "run", "--rm", "--network", "none", system, "sh", "-c", "ls /etc/ssl/certs/ca-certificates.crt; ls /usr/share/man"
    )

    assert "/etc/ssl/certs/ca-certificates.crt" == found.splitlines()[0]
