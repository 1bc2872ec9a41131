"""The base of a Jetson's images: which packages it takes, and that it takes no other."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from controller.ops.targets import JETPACKS, L4T_PACKAGES, l4t_base

PROJECT = Path(__file__).parents[2]
RELEASES = sorted({jetpack for releases in JETPACKS.values() for jetpack in releases})
OF_THE_HOST = re.compile(
    r"nvidia-l4t-|libcuda1|libnvidia-|nvidia-driver|cuda-drivers|cuda-compat|libnv(rm|media|os|sci|cu)|nvgpu|nvml"
)
"""Packages of what the container toolkit mounts from the host."""


def packages(jetpack: str) -> list[list[str]]:
    """Read a release's list."""
    text = (PROJECT / L4T_PACKAGES / f"jetpack-{jetpack}").read_text()
    return [line.split() for line in text.splitlines() if not line.startswith(("#", "repository"))]


@pytest.mark.parametrize("jetpack", RELEASES)
def test_no_list_holds_what_comes_from_the_host(jetpack: str) -> None:
    """The driver and its libraries are mounted, and never installed."""
    assert [] == [row[1] for row in packages(jetpack) if OF_THE_HOST.match(row[1])]


@pytest.mark.parametrize("jetpack", RELEASES)
def test_every_package_has_one_version(jetpack: str) -> None:
    """Both stages agree on the version of what they share, and hashes are whole."""
    rows = packages(jetpack)
    versions = {(name, version) for _, name, version, _ in rows}

    assert {"runtime", "build"} == {row[0] for row in rows}
    assert len({name for name, _ in versions}) == len(versions)
    assert all(row[3] == "-" or re.fullmatch(r"[0-9a-f]{64}", row[3]) for row in rows)


@pytest.mark.parametrize(
    ("jetpack", "cuda", "tensorrt"),
    [("7.2", "13-2", "10.16.2.10-"), ("6.2.2", "12-6", "10.3.0.30-"), ("6.1", "12-6", "10.3.0.30-")],
)
def test_the_runtime_is_that_of_the_release(jetpack: str, cuda: str, tensorrt: str) -> None:
    """Engines made on the box are read by the same TensorRT, with the CUDA that it was made for."""
    runtime = {name: version for stage, name, version, _ in packages(jetpack) if stage == "runtime"}

    assert f"cuda-cudart-{cuda}" in runtime
    assert runtime["libnvinfer10"].startswith(tensorrt)
    assert {runtime["libnvinfer10"]} == {version for name, version in runtime.items() if "nv" in name}


def test_the_dockerfile_has_the_stages_that_bases_name() -> None:
    """A base is a stage of the file, and both distributions are pinned by digest."""
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", (PROJECT / "l4t-base.Dockerfile").read_text(), re.MULTILINE))

    assert {"system", "runtime", "build"} <= stages
    assert all(re.fullmatch(r"ubuntu@sha256:[0-9a-f]{64}", l4t_base(jetpack, "system").pulled) for jetpack in RELEASES)


def install(tmp_path: Path, *, sha256: str, installed: str = "libnvinfer10") -> subprocess.CompletedProcess[str]:
    """Run the script with a package manager that writes down what it is asked, and delivers one archive."""
    (tmp_path / "list").write_text(f"repository r1 https://example.org\nruntime libnvinfer10 1.0-1+x {sha256}\nbuild nvcc 2 -\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    archive = tmp_path / "libnvinfer10_1.0-1+x_arm64.deb"
    for name, text in (
        ("apt-get", f'echo "$@" >>{tmp_path}/asked; case "$*" in *--download-only*) printf archive >"{archive}" ;; esac'),
        ("dpkg-query", f"echo {installed}"),
        ("rm", "true"),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    return subprocess.run(
        [PROJECT / L4T_PACKAGES / "install.sh", tmp_path / "list", "runtime", "python3"],
        env={"PATH": f"{commands}:{os.environ['PATH']}", "ARCHIVES": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_packages_are_installed_in_exactly_their_versions(tmp_path: Path) -> None:
    """One stage's packages are fetched, checked and installed, with what else was asked for."""
    done = install(tmp_path, sha256=hashlib.sha256(b"archive").hexdigest())
    asked = (tmp_path / "asked").read_text().splitlines()

    assert 0 == done.returncode, done.stderr
    assert asked[1].endswith("--download-only libnvinfer10=1.0-1+x python3")
    assert asked[2].endswith("--no-install-recommends libnvinfer10=1.0-1+x python3")


def test_another_archive_is_not_installed(tmp_path: Path) -> None:
    """An archive whose hash is another one ends the build before anything is installed."""
    done = install(tmp_path, sha256="0" * 64)

    assert 0 != done.returncode
    assert "libnvinfer10_1.0-1+x_arm64.deb" in done.stdout + done.stderr
    assert "--download-only" in (tmp_path / "asked").read_text().splitlines()[-1]


def test_a_library_of_the_driver_that_slips_in_ends_the_build(tmp_path: Path) -> None:
    """What comes as somebody's dependency is found, too."""
    done = install(tmp_path, sha256="-", installed="nvidia-l4t-cuda")

    assert 1 == done.returncode
    assert "nvidia-l4t-cuda" in done.stdout
    assert "must not be in an image" in done.stderr
