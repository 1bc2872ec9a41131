"""For which box images are made, and what they stand on."""

from pathlib import Path

import pytest

from controller.device import Family
from controller.errors import ConfigError
from controller.ops import targets
from controller.ops.images import Builder, find_target
from controller.ops.recipes import RECIPES, recipes_for, variant
from controller.ops.targets import CPU, CUDA, DEBIAN, ORIN, ORIN_6, ORIN_6_1, TARGETS, THOR, l4t_base
from tests.devices import recorded


@pytest.mark.parametrize(
    ("device", "jetpack", "expected"),
    [
        ("cpu", "", CPU),
        ("cuda", "", CUDA),
        ("orin", "", ORIN),
        ("orin", "6.2.2", ORIN_6),
        ("orin", "6.1", ORIN_6_1),
        ("thor", "", THOR),
    ],
)
def test_every_target_can_be_asked_for(device: str, jetpack: str, expected: targets.Target) -> None:
    """A device is enough; a Jetson's newest JetPack is the default."""
    assert expected == targets.choose_target(device, jetpack)
    assert expected == targets.recall_target(f"{expected}\n")


@pytest.mark.parametrize(
    ("device", "jetpack", "says"),
    [
        ("gpu", "", "no images are made for DEVICE=gpu; there are cpu, cuda, orin, thor"),
        ("thor", "6.2.2", "no images are made for DEVICE=thor with JETPACK=6.2.2; there are 7.2"),
        ("cpu", "7.2", "no images are made for DEVICE=cpu with JETPACK=7.2; only a Jetson has one"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(device: str, jetpack: str, says: str) -> None:
    """A wrong device or release is answered with the right ones."""
    with pytest.raises(ConfigError) as caught:
        targets.choose_target(device, jetpack)

    assert (says,) == caught.value.problems


def test_a_jetpack_without_a_device_is_refused() -> None:
    """A release alone says nothing, and no wish at all is none."""
    with pytest.raises(ConfigError, match=r"needs a DEVICE beside it: orin or thor"):
        targets.read_wish({"JETPACK": "7.2"})

    assert targets.read_wish({"DEVICE": "", "JETPACK": ""}) is None


@pytest.mark.parametrize(
    ("family", "l4t", "expected"),
    [
        (Family.ORIN, "39.2.0", ORIN),
        (Family.ORIN, "39.2.1", ORIN),
        (Family.THOR, "39.2.0", THOR),
        (Family.ORIN, "36.5.0", ORIN_6),
        (Family.ORIN, "36.4.7", ORIN_6),
        (Family.ORIN, "36.4.3", ORIN_6),
        (Family.ORIN, "36.4.0", ORIN_6_1),
        (Family.ORIN, "36.3.0", ORIN_6_1),
        (Family.THOR, "38.4.0", None),
        (Family.THOR, "36.5.0", None),
        (Family.ORIN, "35.6.0", None),
        (Family.ORIN, "40.1.0", None),
        (Family.ORIN, "", None),
        (Family.NONE, "39.2.0", None),
        (Family.DISCRETE, "", None),
    ],
)
def test_a_jetson_is_known_by_its_chip_and_release(family: Family, l4t: str, expected: targets.Target | None) -> None:
    """They name the images; any other box, and a release that has none, names none."""
    assert expected == targets.guess_target(family, l4t)


def test_a_wish_counts_more_than_memory_and_memory_more_than_the_box(tmp_path: Path) -> None:
    """DEVICE decides; without it what was made last; then what a Jetson says of itself."""
    box = recorded("orin-nano-jp7.2").system

    assert find_target(tmp_path, {}, box) == ORIN
    assert find_target(tmp_path, {}, recorded("orin-nano-jp6.2.1").system) == ORIN_6
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "device").write_text("cuda\n")
    assert find_target(tmp_path, {}, box) == CUDA
    assert find_target(tmp_path, {"DEVICE": "cpu"}, box) == CPU
    (tmp_path / "build" / "device").unlink()
    assert find_target(tmp_path, {}, recorded("no-gpu").system) == CPU


def test_only_what_a_person_said_is_remembered(tmp_path: Path) -> None:
    """A Jetson that gets another release is asked anew; who chose another device need not say so again."""
    make = tmp_path / "images" / "base" / "make.sh"
    make.parent.mkdir(parents=True)
    make.write_text("")
    Builder(tmp_path, environ={}, target=ORIN).record({})

    assert not (tmp_path / "build" / "device").exists()

    Builder(tmp_path, environ={"DEVICE": "orin", "JETPACK": "6.1"}, target=ORIN_6_1).record({})

    assert ORIN_6_1 == find_target(tmp_path, {}, recorded("orin-nano-jp7.2").system)


@pytest.mark.parametrize("target", TARGETS)
def test_each_box_has_one_image_a_name(target: targets.Target) -> None:
    """No two recipes of one name are for one box, and every box can run the controller, llama.cpp and what builds its files."""
    mine = [recipe.name for recipe in RECIPES if target in recipe.targets]

    assert len(mine) == len(set(mine))
    assert {"controller", "llama-cpp", "transformers"} <= set(recipes_for(target))


def test_images_of_one_name_are_told_apart() -> None:
    """Two recipes never write to one repository, and a repository's name has no full stop in it."""
    repositories = [recipe.repository for recipe in RECIPES]

    assert len(repositories) == len(set(repositories))
    assert "windlass/llama-cpp" == recipes_for(CPU)["llama-cpp"].repository
    assert "orin-jp622" == variant(ORIN_6)


@pytest.mark.parametrize("target", [target for target in TARGETS if target.jetpack])
def test_what_computes_on_a_jetson_stands_on_the_release_of_the_box(target: targets.Target) -> None:
    """Code for a Jetson's GPU is compiled with its own JetPack, and for its own GPU alone."""
    recipe = recipes_for(target)["llama-cpp"]

    assert {target.jetpack} == {base.jetpack for base in recipe.bases}
    assert ("CUDA_ARCHITECTURES", "110-real" if target == THOR else "87-real") in recipe.arguments


def test_a_jetsons_processors_are_arm_wherever_the_question_is_asked() -> None:
    """The tags of a board's images can be told on a laptop; for other boxes the machine at hand counts."""
    assert "aarch64" == targets.find_architecture(ORIN, "x86_64")
    assert "x86_64" == targets.find_architecture(CUDA, "x86_64")


def test_wheels_for_a_base_are_no_newer_than_its_c_library() -> None:
    """The newest wheel that is asked for was made for the base's own C library."""
    assert "manylinux_2_36_x86_64" == DEBIAN.wheel_platforms("x86_64")[0]
    assert "manylinux_2_39_aarch64" == l4t_base("7.2", "runtime").wheel_platforms("aarch64")[0]
    assert "manylinux_2_35_aarch64" == l4t_base("6.2.2", "runtime").wheel_platforms("aarch64")[0]
