"""
Where the local stack lives, and the command lines that bring it up and down. Pure: everything comes in as values.

Root gets the system's folders; anybody else gets one folder in the own home, since `/var/lib` and `/run` are not theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from controller.config import DEFAULT_PATH, Settings
from controller.errors import ConfigError
from controller.spec import LABEL_OWNER

SOCKET_PATH_BYTES: Final = 107
"""The kernel's limit for the path of a Unix socket."""
NAME_BYTES: Final = 40
"""Model names up to this long must fit into a socket's path."""
CONTAINER_CONFIG: Final = PurePosixPath("/etc/windlass")
"""Where both processes find their configuration, wherever the host keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    One installation on this machine.

    Attributes:
        home: models, engine files, conversations, state.
        run: sockets.
        owner: the label of its containers, and the name of the Compose project.
        url: where its gateway answers.
        config_folder: the host's folder that holds the configuration; made empty where there is none.
        config: the configuration file as the containers see it; empty for the default one.
        engine_socket: the container engine's socket.
        passed: settings from the environment that are handed on as they are.

    """

    home: PurePosixPath
    run: PurePosixPath
    owner: str
    url: str
    config_folder: PurePosixPath
    config: str
    engine_socket: str
    passed: Mapping[str, str]


def place_environment(environ: Mapping[str, str], *, root: bool, user_home: PurePosixPath) -> dict[str, str]:
    """Fill in what a plain user must have otherwise than root; what the environment sets stays."""
    filled = dict(environ)
    if not root:
        home = filled.setdefault("WINDLASS_HOME", str(user_home / ".local/share/windlass"))
        filled.setdefault("WINDLASS_RUN", f"{home}/run")
    return filled


def choose_place(settings: Settings, environ: Mapping[str, str], *, config_exists: bool) -> Place:
    """
    Derive the installation from its settings.

    Args:
        settings: as read with the environment of `place_environment`.
        environ: that environment.
        config_exists: there is a folder for the configuration at its default path.

    Raises:
        ConfigError: a path is too long for sockets, or holds what a mount cannot express.

    """
    named = environ.get("WINDLASS_CONFIG", "")
    folder = PurePosixPath(named).parent if named else DEFAULT_PATH.parent if config_exists else settings.home / "config"
    place = Place(
        home=settings.home,
        run=settings.run,
        owner=settings.owner,
        url=gateway_url(settings.gateway.listen),
        config_folder=PurePosixPath(folder),
        config=str(CONTAINER_CONFIG / PurePosixPath(named).name) if named else "",
        engine_socket=environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock",
        passed={name: environ.get(name, "") for name in ("WINDLASS_LISTEN", "WINDLASS_MEMORY_BUDGET")},
    )
    problems = list(_problems(place))
    if problems:
        raise ConfigError(problems)
    return place


def _problems(place: Place) -> Sequence[str]:
    problems = []
    longest = len(str(place.run / "workers" / ("m" * NAME_BYTES) / "worker.sock").encode())
    if longest > SOCKET_PATH_BYTES:
        spare = SOCKET_PATH_BYTES - longest + len(str(place.run).encode())
        problems.append(f"{place.run} is too long for sockets below it: set WINDLASS_RUN to a path of at most {spare} bytes")
    for path in (place.home, place.run, place.config_folder):
        if any(character in str(path) for character in ":$\n"):
            problems.append(f"{path!s}: a mounted path cannot hold a colon, a dollar sign or a line break; choose another")
        if not path.is_absolute():
            problems.append(f"{path!s}: wanted an absolute path")
    if not place.engine_socket.startswith("/"):
        problems.append(f"DOCKER_HOST is {place.engine_socket}: wanted an engine on this machine, by its Unix socket")
    return problems


def gateway_url(listen: str) -> str:
    """Say where a gateway that listens like this is reached from this machine."""
    host, _, port = listen.rpartition(":")
    anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- asked for by name, not bound here
    return f"http://{anywhere.get(host, host)}:{port}"


def appliance_variables(place: Place, images: Mapping[str, str]) -> str:
    """Write everything `compose/appliance.yaml` leaves open, as an environment file."""
    values = {
        "WINDLASS_HOME": str(place.home),
        "WINDLASS_RUN": str(place.run),
        "WINDLASS_OWNER": place.owner,
        "WINDLASS_CONFIG": place.config,
        "WINDLASS_CONFIG_FOLDER": str(place.config_folder),
        "WINDLASS_ENGINE_SOCKET": place.engine_socket,
        **place.passed,
        **images,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def compose_argv(compose: Sequence[str], place: Place, *, env_file: str, files: Sequence[str], verb: Sequence[str]) -> list[str]:
    """Build a Compose command; *compose* is `docker compose` or `docker-compose`."""
    return [
        *compose,
        "--project-name", place.owner,
        "--env-file", env_file,
        *(part for file in files for part in ("--file", file)),
        *verb,
    ]  # fmt: skip


def workers_argv(place: Place) -> list[str]:
    """List the workers of this installation, running or not."""
    return ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL_OWNER}={place.owner}"]


def needed_images(folders: Mapping[str, Sequence[str]], manifests: Mapping[str, str]) -> tuple[str, ...]:
    """
    Name the images that the models in a home need, the built-in model's always among them.

    Args:
        folders: model folder → names of its files.
        manifests: model folder → the engine its `model.toml` names, where it names one.

    """
    needed = {"controller", "llama-cpp"}
    for folder, files in folders.items():
        if engine := manifests.get(folder):
            needed.add(engine)
        weights = [name for name in files if name.endswith(".safetensors")]
        # A checkpoint is served by this image, or turned into a GGUF by it; so is an adapter that lies beside a GGUF.
        if any(name.startswith("adapter_model") for name in weights) or (
            weights and not any(name.endswith(".gguf") for name in files)
        ):
            needed.add("transformers")
    return tuple(sorted(needed))
