"""What images are made of: hashes, tags and command lines."""

from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath

import pytest

from controller.errors import ConfigError
from controller.ops import recipes, wheels
from controller.ops.images import Builder, read_files, read_tags
from controller.ops.recipes import RECIPES, Recipe, recipes_for
from controller.ops.targets import CPU, DEBIAN, TARGETS

CONTROLLER = recipes_for(CPU)["controller"]


def test_content_hash_ignores_order() -> None:
    """The order in which files are read does not change an image's tag."""
    parts = [("a", b"1"), ("b", b"2")]

    assert recipes.content_hash(parts) == recipes.content_hash(reversed(parts))


@pytest.mark.parametrize("other", [[("a", b"12")], [("a1", b"2")], [("a", b"1"), ("", b"2")], []])
def test_content_hash_knows_where_a_piece_ends(other: list[tuple[str, bytes]]) -> None:
    """Content that moves between names and neighbours is other content."""
    assert recipes.content_hash([("a", b"1"), ("b", b"2")]) != recipes.content_hash(other)
    assert recipes.content_hash([("a", b"1")]) != recipes.content_hash(other)


def test_tag_changes_with_base_and_torch() -> None:
    """A new base or another torch means a new image, the same inputs mean the same."""
    tag = recipes.image_tag(CONTROLLER, {"x": b""}, bases=["base:1"])

    assert tag == recipes.image_tag(CONTROLLER, {"x": b""}, bases=["base:1"])
    assert tag != recipes.image_tag(CONTROLLER, {"x": b""}, bases=["base:2"])
    assert tag != recipes.image_tag(CONTROLLER, {"x": b""}, bases=["base:1"], torch="torch==1")
    assert tag.startswith("windlass/controller:")


def test_base_tag_tells_architectures_apart() -> None:
    """The base of an arm64 machine is not taken for that of an x86-64 one."""
    files = {"images/base/make.sh*": b"script"}

    assert recipes.base_tag(DEBIAN, files, architecture="x86_64") != recipes.base_tag(DEBIAN, files, architecture="aarch64")


def test_unknown_image_is_named_with_the_known_ones() -> None:
    """Every image that does not exist is named, beside those that do."""
    with pytest.raises(ConfigError) as caught:
        recipes.find_recipes(["llama-cpp", "lama", "torch"], CPU)

    assert (
        "no image for DEVICE=cpu is called 'lama'; there are controller, llama-cpp, transformers",
        "no image for DEVICE=cpu is called 'torch'; there are controller, llama-cpp, transformers",
    ) == caught.value.problems


def test_an_image_asked_for_twice_is_made_once() -> None:
    """Repeating a name changes nothing."""
    assert (CONTROLLER,) == recipes.find_recipes(["controller", "controller"], CPU)


def test_only_old_images_of_content_are_forgotten() -> None:
    """The newest three stay, and so does every name that is no hash."""
    tags = ["local", *(f"{number:012x}" for number in range(5)), "mine"]

    assert [f"{3:012x}", f"{4:012x}"] == recipes.old_tags(tags)


def test_only_stages_of_the_image_itself_are_forgotten() -> None:
    """Nobody else's nameless images are touched, and neither are those of the last day."""
    argv = recipes.forget_stages_argv(CONTROLLER)

    assert ["--filter", "label=windlass.stage=controller", "--filter", "until=24h"] == argv[-4:]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("worker/app.py", True), ("worker/__pycache__/app.pyc", False), (".mypy_cache/x", False), ("worker/.app.py.swp", False)],
)
def test_leftovers_of_tools_are_no_content(path: str, expected: bool) -> None:
    """Caches and hidden files neither enter an image nor change its tag."""
    assert expected == recipes.is_content(PurePath(path))


def test_wheels_fit_the_image_and_not_the_host() -> None:
    """Wheels are asked for the image's Python and C library, on the machine's architecture."""
    argv = wheels.wheels_argv(("pip",), ["x"], destination="wheels", base=DEBIAN, architecture="aarch64")
    platforms = [value for option, value in pairwise(argv) if option == "--platform"]

    assert "3.11" == argv[argv.index("--python-version") + 1]
    assert "manylinux_2_36_aarch64" == platforms[0]
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux2014_aarch64" in platforms
    assert not [platform for platform in platforms if "x86" in platform]


def test_locked_wheels_are_checked_and_alone() -> None:
    """A lock is complete, so nothing is looked up beyond it, and every file is checked."""
    assert ["--require-hashes", "--no-deps", "--requirement", "run.lock"] == wheels.locked("run.lock")


def test_pins_are_read_from_a_lock() -> None:
    """The versions of a lock are found among hashes and comments."""
    lock = "# by hand\nfilelock==4.2.11 \\\n    --hash=sha256:00\nmpmath==1.3.0\n"

    assert ["filelock==4.2.11", "mpmath==1.3.0"] == wheels.pinned(lock)


@pytest.mark.parametrize("listed", ["numpy==2\n", "torch>=2\n", "torch==1\ntorch==2\n"])
def test_torch_must_be_pinned_once(listed: str) -> None:
    """A list that does not say which torch is refused, and one that does is understood."""
    assert "torch==2.13.0" == wheels.torch_pin("# torch\nnumpy==2\ntorch==2.13.0\n")
    with pytest.raises(ConfigError, match="torch==VERSION"):
        wheels.torch_pin(listed)


def test_torch_without_cuda_is_tried_first() -> None:
    """Without a wish the small build comes first; a wish is taken as it is."""
    assert ("torch==2.13.0+cpu", "torch==2.13.0") == wheels.torch_choices("torch==2.13.0", "")
    assert ("torch==2.12.0",) == wheels.torch_choices("torch==2.13.0", "torch==2.12.0")


def test_build_command() -> None:
    """One build carries both tags, the base and the proxies that are set."""
    argv = recipes.build_argv(
        tags=("a:1", "a:local"), context="build/context/a", arguments={"BASE": "b:2"}, environ={"https_proxy": "p:1", "x": "y"}
    )

    assert [
        "docker", "build", "--network", "host", "--build-arg", "BASE=b:2", "--build-arg", "https_proxy=p:1",
        "--tag", "a:1", "--tag", "a:local", "build/context/a",
    ] == argv  # fmt: skip


def test_recorded_tags_are_read_back(tmp_path: Path) -> None:
    """What is written for Compose and the tests is what is read."""
    file = tmp_path / "images.env"
    file.write_text(
        recipes.image_variables(
            {"llama-cpp": "windlass/llama-cpp:1", "controller": "windlass/controller:2"}, base="windlass/base:3", target=CPU
        )
    )

    assert {
        "WINDLASS_BASE_IMAGE": "windlass/base:3",
        "WINDLASS_IMAGE_CONTROLLER": "windlass/controller:2",
        "WINDLASS_IMAGE_LLAMA_CPP": "windlass/llama-cpp:1",
        "WINDLASS_USE_GPU": "false",
    } == read_tags(file)
    assert {} == read_tags(tmp_path / "none.env")


def test_only_images_with_cuda_may_be_given_a_gpu() -> None:
    """A worker of an image without CUDA is never told to compute on a GPU, whatever the box has."""
    said = {
        str(target): "WINDLASS_USE_GPU=true\n" in recipes.image_variables({}, base="b:1", target=target) for target in TARGETS
    }

    assert [str(CPU)] == [name for name, used in said.items() if not used]


def project(tmp_path: Path) -> Path:
    """Lay out a project with one image in it."""
    for name, text in (
        ("images/base/make.sh", "#!/bin/sh"),
        ("images/controller/Dockerfile", "FROM x"),
        ("controller/app.py", "1"),
        ("requirements/run.lock", "a==1"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_files_are_read_with_paths_and_modes(tmp_path: Path) -> None:
    """The files of an image are its folder's, its trees' and its lock, and being executable is part of a file."""
    top = project(tmp_path)
    (top / "controller/__pycache__").mkdir()
    (top / "controller/__pycache__/app.pyc").write_bytes(b"\0")
    (top / "images/controller/serve").write_text("run")
    (top / "images/controller/serve").chmod(0o755)

    assert {
        "images/controller/Dockerfile": b"FROM x",
        "images/controller/serve*": b"run",
        "controller/app.py": b"1",
        "requirements/run.lock": b"a==1",
    } == read_files(top, CONTROLLER.inputs)


@pytest.mark.parametrize(
    "changed", ["images/base/make.sh", "images/controller/Dockerfile", "controller/app.py", "requirements/run.lock"]
)
def test_any_changed_input_changes_the_tag(tmp_path: Path, changed: str) -> None:
    """Whatever goes into an image decides its tag."""
    builder = Builder(project(tmp_path), environ={})
    before = builder.tag(CONTROLLER)
    (tmp_path / changed).write_text("other")

    assert before != builder.tag(CONTROLLER)


def test_torch_wish_counts_only_where_torch_is(tmp_path: Path) -> None:
    """Asking for another torch does not make the controller's image again."""
    top = project(tmp_path)

    assert Builder(top, environ={}).tag(CONTROLLER) == Builder(top, environ={"WINDLASS_TORCH": "torch==1"}).tag(CONTROLLER)


def test_every_recipe_stands_on_files_of_the_project() -> None:
    """Each image's inputs exist, and each folder with a Dockerfile has a recipe."""
    top = Path(__file__).parents[2]
    missing = [str(path) for recipe in RECIPES for path in recipe.inputs if not (top / path).exists()]

    assert [] == missing
    files = {str(file.relative_to(top)) for file in (top / "images").glob("*/*Dockerfile")}
    assert {str(recipe.folder / recipe.dockerfile) for recipe in RECIPES} == files


def test_variables_name_engines_as_the_settings_read_them() -> None:
    """The variable of an engine's image is the one the configuration understands."""
    recipe = Recipe(name="tensorrt-edge-llm", minutes=1)

    assert "WINDLASS_IMAGE_TENSORRT_EDGE_LLM" == recipe.variable
    assert PurePosixPath("images/tensorrt-edge-llm") == recipe.folder
