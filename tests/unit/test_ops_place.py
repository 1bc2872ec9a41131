"""Where the local stack lives, and the command lines around it."""

import re
from pathlib import Path, PurePosixPath

import pytest

from controller.config import load_settings
from controller.errors import ConfigError
from controller.ops import place as places
from controller.ops.place import Place
from controller.ops.recipes import RECIPES


def place(environ: dict[str, str], *, root: bool = True, config_exists: bool = False) -> Place:
    """Choose a place the way `make run` does, without a configuration file."""
    filled = places.place_environment(environ, root=root, user_home=PurePosixPath("/home/ann"))
    return places.choose_place(load_settings({**filled, "WINDLASS_CONFIG": ""}), filled, config_exists=config_exists)


def test_root_uses_the_systems_folders() -> None:
    """Root's installation is where the documentation says."""
    found = place({})

    assert PurePosixPath("/var/lib/windlass") == found.home
    assert PurePosixPath("/run/windlass") == found.run
    assert "http://127.0.0.1:8000" == found.url


def test_a_plain_user_stays_at_home() -> None:
    """Without root everything is below the user's own home."""
    found = place({}, root=False)

    assert PurePosixPath("/home/ann/.local/share/windlass") == found.home
    assert found.home / "run" == found.run


def test_the_run_folder_follows_a_chosen_home() -> None:
    """A plain user who sets only the home gets the sockets below it, too."""
    assert PurePosixPath("/srv/w/run") == place({"WINDLASS_HOME": "/srv/w"}, root=False).run


def test_the_systems_configuration_is_used_where_there_is_one() -> None:
    """The folder in /etc is mounted if it exists, else an empty one in the home."""
    assert PurePosixPath("/etc/windlass") == place({}, config_exists=True).config_folder
    assert PurePosixPath("/var/lib/windlass/config") == place({}).config_folder


def test_a_named_configuration_keeps_its_name_inside() -> None:
    """A file named by the environment is found in the container under its own name."""
    found = place({"WINDLASS_CONFIG": "/srv/box.toml"})

    assert PurePosixPath("/srv") == found.config_folder
    assert "/etc/windlass/box.toml" == found.config


def test_all_problems_of_a_place_are_told_at_once() -> None:
    """A path too long for sockets, one that cannot be mounted and a remote engine are three sentences."""
    with pytest.raises(ConfigError) as caught:
        place(
            {
                "WINDLASS_HOME": "/srv/a:b",
                "WINDLASS_CONFIG": "/srv/box.toml",
                "WINDLASS_RUN": "/srv/" + "x" * 60,
                "DOCKER_HOST": "tcp://box:2375",
            }
        )

    assert 3 == len(caught.value.problems)
    assert "at most 46 bytes" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("listen", "url"),
    [("127.0.0.1:8001", "http://127.0.0.1:8001"), ("0.0.0.0:80", "http://127.0.0.1:80"), ("[::]:80", "http://[::1]:80")],
)
def test_the_gateway_is_asked_where_it_can_be_reached(listen: str, url: str) -> None:
    """A gateway that listens everywhere is asked on loopback."""
    assert url == places.gateway_url(listen)


def test_everything_the_compose_file_needs_is_written() -> None:
    """The environment file carries the paths, the owner, what is passed on, and the images."""
    text = places.appliance_variables(place({"WINDLASS_MEMORY_BUDGET": "2GiB"}), {"WINDLASS_IMAGE_CONTROLLER": "c:1"})

    assert {
        "WINDLASS_HOME=/var/lib/windlass",
        "WINDLASS_RUN=/run/windlass",
        "WINDLASS_OWNER=windlass",
        "WINDLASS_CONFIG=",
        "WINDLASS_CONFIG_FOLDER=/var/lib/windlass/config",
        "WINDLASS_ENGINE_SOCKET=/var/run/docker.sock",
        "WINDLASS_LISTEN=",
        "WINDLASS_MEMORY_BUDGET=2GiB",
        "WINDLASS_IMAGE_CONTROLLER=c:1",
    } == set(text.splitlines())


def test_the_compose_file_asks_for_nothing_that_is_not_written() -> None:
    """Every variable of the Compose file is in the environment file is written with the images."""
    compose = (Path(__file__).parents[2] / "compose" / "appliance.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", compose))
    written = {line.partition("=")[0] for line in places.appliance_variables(place({}), {}).splitlines()}

    assert {"WINDLASS_USE_GPU", *(recipe.variable for recipe in RECIPES)} == asked - written


def test_two_owners_are_two_compose_projects() -> None:
    """The Compose project carries the owner's name, and so do the workers that `down` removes."""
    found = place({"WINDLASS_OWNER": "lab"})
    argv = places.compose_argv(["docker", "compose"], found, env_file="e", files=["a", "b"], verb=["down"])

    assert ["docker", "compose", "--project-name", "lab", "--env-file", "e", "--file", "a", "--file", "b", "down"] == argv
    assert ["docker", "ps", "--all", "--quiet", "--filter", "label=windlass.owner=lab"] == places.workers_argv(found)


def test_only_what_the_models_need_is_built() -> None:
    """A GGUF needs llama.cpp, safetensors need transformers, and a manifest decides where it speaks."""
    assert ("controller", "llama-cpp") == places.needed_images({"a": ["model.gguf"]}, {})
    assert "transformers" in places.needed_images({"a": ["model.safetensors"]}, {})
    assert "transformers" not in places.needed_images({"a": ["model.safetensors", "model.gguf"]}, {})
    assert "transformers" in places.needed_images({"a": ["model.gguf"]}, {"a": "transformers"})
