"""What `make images DRY_RUN=1` says: only what the lists say, and everything they say."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from controller.engines import tensorrt_llm
from controller.ops import bill, bill_table, wheels
from controller.ops.bill import Bill, Item
from controller.ops.images import Builder, build
from controller.ops.recipes import RECIPES
from controller.ops.targets import CPU, CUDA, JETPACKS, ORIN, ORIN_6, TARGETS, Target

PROJECT = Path(__file__).parents[2]
ASKED = {"https_proxy": "", "WINDLASS_TORCH": ""}


def bills(target: Target, *names: str) -> dict[str, Bill]:
    """Read the tree as a dry run does."""
    return {one.image: one for one in Builder(PROJECT, environ=ASKED, target=target).bills(names)}


def named(one: Bill, kind: str) -> dict[str, Item]:
    """Return the items of one kind, by name."""
    return {item.name: item for item in one.items if item.kind == kind}


@pytest.mark.parametrize("target", TARGETS)
def test_every_box_has_a_bill(target: Target) -> None:
    """For every box each image says what it stands on, and every wheel has a hash or says that it has none."""
    found = bills(target)

    assert {recipe.name for recipe in RECIPES if target in recipe.targets} == set(found)
    for one in found.values():
        assert any(item.kind == "base" for item in one.items)
        assert all(item.sha256 == "" or re.fullmatch(r"[0-9a-f]{64}", item.sha256) for item in one.items)


def test_the_bill_of_an_orin_names_digest_packages_and_processors() -> None:
    """The base is a digest, CUDA's packages have versions and hashes, and the wheels are for ARM."""
    found = bills(ORIN)
    base = next(item for item in found["llama-cpp"].items if item.kind == "base" and item.stays)
    runtime = named(found["llama-cpp"], "package")

    assert ("ubuntu", "24.04", 28_941_580) == (base.name, base.version, base.size_bytes)
    assert "13.2.86-1" == runtime["cuda-nvcc-13-2"].version
    assert not runtime["cuda-nvcc-13-2"].stays
    assert runtime["libcublas-13-2"].size_bytes is None
    assert found["llama-cpp"].disk_bytes is None
    assert "ubuntu@sha256" not in str(found["controller"].items)
    aarch64 = {
        pin.sha256 for pin in wheels.read_pins((PROJECT / "requirements/files.txt").read_text()) if pin.machine == "aarch64"
    }
    assert {item.sha256 for item in named(found["controller"], "wheel").values()} <= aarch64


def test_nvidias_release_is_named_by_digest_and_version() -> None:
    """What is pulled for cards is the version that the engine is written for, by a digest, with nothing of ours to fetch."""
    (release,) = [item for item in bills(CUDA)["tensorrt-llm"].items if item.kind == "base" and item.stays]

    assert ("nvcr.io/nvidia/tensorrt-llm/release", tensorrt_llm.VERSION) == (release.name, release.version)
    assert 64 == len(release.sha256)
    assert [] == [item for item in bills(CUDA)["tensorrt-llm"].items if item.kind != "base" and item.stays]


def test_each_release_of_jetpack_has_its_own_packages() -> None:
    """An Orin on JetPack 6 is compiled for with CUDA 12."""
    assert "cuda-nvcc-12-6" in named(bills(ORIN_6)["llama-cpp"], "package")


def test_the_compiler_is_needed_and_does_not_stay() -> None:
    """Of the wheels of NVIDIA's toolkit only the libraries are in the image."""
    found = named(bills(CUDA, "llama-cpp")["llama-cpp"], "wheel")

    assert not found["nvidia-cuda-nvcc"].stays
    assert found["nvidia-cublas"].stays
    assert not named(bills(CUDA, "llama-cpp")["llama-cpp"], "source")["llama-cpp-python"].stays


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.lock], ids=lambda recipe: recipe.repository)
def test_the_files_are_those_of_the_locks(recipe) -> None:  # noqa: ANN001 -- a recipe
    """Each package of a lock has one file for each kind of processors it is made for, with a hash that the lock lists."""
    lock = (PROJECT / recipe.lock).read_text()
    pins = [pin for pin in wheels.read_pins((PROJECT / "requirements/files.txt").read_text()) if pin.lock == recipe.lock.stem]
    machines = {"aarch64"} if all(target.device in JETPACKS for target in recipe.targets) else {"aarch64", "x86_64"}

    for machine in machines:
        mine = [pin for pin in pins if (pin.python, pin.machine) == (recipe.base.python_version, machine)]
        assert {name.lower() for name in wheels.pinned(lock)} == {f"{pin.name}=={pin.version}".lower() for pin in mine}
        assert all(f"sha256:{pin.sha256}" in lock for pin in mine)


def test_what_is_fetched_once_is_counted_once() -> None:
    """Two images of one source release fetch it once, and what nobody knows the size of is counted apart."""
    item = Item(kind="source", name="x", version="1", sha256="a" * 64, size_bytes=5)
    one = Bill(image="a", tag="a:1", bases=("b:1",), items=(item, Item(kind="package", name="y")))

    assert (5, 2, 1) == bill.totals([one, one])


def test_packages_are_read_from_a_dockerfile() -> None:
    """What the last stage installs stays; options, further commands and other stages are told apart."""
    dockerfile = (
        "FROM a AS build\nRUN apt-get update \\\n    && apt-get install --yes --no-install-recommends gcc cmake \\\n"
        "    && rm -rf /x\nFROM a\nRUN apt-get install --yes python3 && apt-get clean\n"
    )

    assert [("gcc", False), ("cmake", False), ("python3", True)] == [
        (item.name, item.stays) for item in bill._apt_items(dockerfile)
    ]


def test_a_torch_that_was_asked_for_is_shown() -> None:
    """WINDLASS_TORCH is in the bill as it was written."""
    asked = Builder(PROJECT, environ={"WINDLASS_TORCH": "torch==2.11.0"}, target=CPU).bills(["transformers"])

    assert "2.11.0" == named(asked[0], "wheel")["torch"].version
    assert "2.13.0+cpu" == named(bills(CPU)["transformers"], "wheel")["torch"].version


def test_a_dry_run_is_printed_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table names tag, base, hash and size, and ends with a sum; what is not known is called so."""
    console = Console(width=200)
    found = list(bills(ORIN).values())
    for one in found:
        console.print(bill_table.draw(one))
    console.print(bill_table.conclude(ORIN, found))
    out = capsys.readouterr().out

    assert re.search(r"windlass/llama-cpp-orin-jp72:[0-9a-f]{12}", out)
    assert re.search(r"on windlass/l4t-base:system-[0-9a-f]{12} and windlass/l4t-base:build-[0-9a-f]{12}", out)
    assert re.search(r"cuda-nvcc-13-2 +13\.2\.86-1 +f142c71a5dea +unknown", out)
    assert "orin 7.2: 4 images" in out


def test_a_dry_run_is_printed_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has the same, and needs neither an engine nor a network nor the board."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("DEVICE", "orin")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a dry run runs nothing"))
    build(["llama-cpp"], dry_run=True, json=True)
    said = json.loads(capsys.readouterr().out)

    assert ("orin", "7.2") == (said["device"], said["jetpack"])
    assert {"CUDA_ARCHITECTURES": "87-real"} == said["images"][0]["arguments"]
    assert said["download"]["of_unknown_size"] > 0
    assert {"kind", "name", "version", "sha256", "bytes", "in_image"} == set(said["images"][0]["items"][0])
