"""
A whole Windlass of its own: controller and gateway in containers, by the Compose file that users run, beside any other one.

Another owner, home, run directory and port keep it apart; leaving the block removes every container of it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.config import load_settings
from controller.errors import WindlassError
from controller.ops import place as places
from controller.ops.client import Api
from controller.ops.images import read_tags
from controller.ops.local import write_host_file

PROJECT: Final = Path(__file__).resolve().parents[1]
BUILD: Final = PROJECT / "build"
HEALTHY_WITHIN_S: Final = 60.0
BACK_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """
    A running stack.

    Attributes:
        place: where it lives.
        compose: the start of every Compose command for it.
        api: a client of its gateway.

    """

    place: places.Place
    compose: tuple[str, ...]
    api: Api

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return self.place.url

    @property
    def models(self) -> Path:
        """The folder that model folders are dropped into."""
        return Path(self.place.home) / "models"

    def container(self, service: str) -> str:
        """Return the id of the container of `controller` or `gateway`."""
        return output([*self.compose, "ps", "--quiet", service])

    def worker(self, model: str) -> str:
        """Return the name of a model's container."""
        return f"{self.place.owner}-{model}"

    def process_ids(self) -> set[int]:
        """Return the processes whose writing is ours: controller, gateway, all workers, and the container engine for them."""
        containers = output(["docker", "ps", "--quiet", "--filter", f"name={self.place.owner}"]).split()
        ours = {int(line) for one in containers for line in output(["docker", "top", one, "-eo", "pid"]).splitlines()[1:]}
        return ours | {int(pid) for pid in output(["pgrep", "--full", "^[^ ]*(dockerd|containerd)"]).split()}

    def worker_command(self, model: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the flags and the environment that a model's container was made with."""
        made = json.loads(output(["docker", "inspect", "--format", "{{json .Config}}", self.worker(model)]))
        return tuple(made["Cmd"]), dict(variable.split("=", 1) for variable in made["Env"])

    def kill_controller(self) -> None:
        """End the controller as a power cut would, and return when the engine has started it again."""
        container = self.container("controller")
        was = _process_id(container)
        if os.geteuid() == 0:
            os.kill(was, signal.SIGKILL)
        else:  # the engine may, and then takes it for a wish and does not restart it
            output(["docker", "kill", container])
            output(["docker", "start", container])
        wait_until(lambda: _process_id(container) not in (0, was), "the engine starts the controller again", BACK_WITHIN_S)

    def wait_for_models(self, *names: str) -> None:
        """Return when these models are registered."""
        wait_until(lambda: set(names) <= {m["name"] for m in self.api.get("/models")["models"]}, f"{names} are registered", 60.0)

    def resident(self) -> set[str]:
        """Return the models that are in memory and answer."""
        return {w["model"] for w in self.api.get("/status")["workers"] if w["status"] == "ready"}

    def logs(self, service: str) -> str:
        """Return what a process has written."""
        return output(["docker", "logs", self.container(service)], errors_too=True)


@contextlib.contextmanager
def stack(
    name: str,
    *,
    budget: str,
    models: Mapping[str, Path] | None = None,
    config: str = "",
    listen: str | None = None,
    home: Path | None = None,
    engine_socket: Path | None = None,
    beside: Sequence[Path] = (),
) -> Iterator[Stack]:
    """
    Bring up a stack and take it away again.

    Args:
        name: goes into its owner's name.
        budget: the memory budget, such as `7.4GiB`.
        models: model folders to be linked (on one file system) or copied into its home before the start.
        config: the text of `appliance.toml`.
        listen: the gateway's address; by default a free port of the loopback.
        home: a folder to be made and taken away again; by default one in the build folder.
        engine_socket: the container engine as the controller sees it; by default the one that everybody uses.
        beside: further Compose files.

    """
    owner = f"windlass-{name}-{os.getpid()}"
    # On the disk of the build folder, where models can be hard links; the sockets need a shorter path.
    BUILD.mkdir(exist_ok=True)
    home = home or Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD))
    home.mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="wl-"))
    for folder in (home, run):
        folder.chmod(0o755)
    (home / "models").mkdir()  # ours, not root's, as it would be if the controller made it
    (home / "config").mkdir()
    (home / "config" / "appliance.toml").write_text(config, encoding="utf-8")
    for model, source in (models or {}).items():
        place_model(source, home / "models" / model)
    environ = {
        "WINDLASS_HOME": str(home),
        "WINDLASS_RUN": str(run),
        "WINDLASS_OWNER": owner,
        "WINDLASS_MEMORY_BUDGET": budget,
        "WINDLASS_LISTEN": listen or f"127.0.0.1:{free_port()}",
        "WINDLASS_CONFIG": str(home / "config" / "appliance.toml"),
        "DOCKER_HOST": f"unix://{engine_socket}" if engine_socket else os.environ.get("DOCKER_HOST", ""),
    }
    place = places.choose_place(load_settings(environ), environ, config_exists=True)
    env_file = home / "appliance.env"
    tags = image_tags(os.environ)
    env_file.write_text(places.appliance_variables(place, tags), encoding="utf-8")
    of_host = home / "host.yaml"
    if write_host_file(of_host, place, use_gpu=tags.get("WINDLASS_USE_GPU") != "false"):
        beside = (of_host, *beside)
    files = [str(file) for file in (PROJECT / "compose" / "appliance.yaml", *beside)]
    compose = tuple(places.compose_argv(_compose(), place, env_file=str(env_file), files=files, verb=[]))
    running = Stack(place=place, compose=compose, api=Api(place.url))
    before = signal.signal(signal.SIGTERM, _end)
    try:
        output([*compose, "up", "--detach"])
        wait_until(lambda: _is_well(running.api), f"{place.url} is well", HEALTHY_WITHIN_S)
        yield running
    except BaseException:
        for service in ("controller", "gateway"):
            with contextlib.suppress(WindlassError):
                print(f"--- the last words of the {service}\n" + "\n".join(running.logs(service).splitlines()[-40:]))
        raise
    finally:
        subprocess.run([*compose, "down", "--timeout", "5"], capture_output=True, check=False)
        if workers := output(places.workers_argv(place)).split():
            output(["docker", "rm", "--force", *workers])
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def image_tags(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the images that the last build has written down; a variable of the same name names another one."""
    chosen = {name: tag for name, tag in environ.items() if name.startswith("WINDLASS_IMAGE_") and tag}
    return {**read_tags(BUILD / "images.env"), **chosen}


def place_model(source: Path, target: Path, *, manifest: str = "") -> None:
    """Put a model folder into its place, whole or not at all: hard links where possible, else copies."""
    arriving = target.parent / f".{target.name}"
    arriving.mkdir(parents=True)
    for file in source.iterdir():
        try:
            os.link(file, arriving / file.name)
        except OSError:
            shutil.copy2(file, arriving / file.name)
    if manifest:
        (arriving / "model.toml").write_text(manifest, encoding="utf-8")
    arriving.rename(target)


def wait_until(holds: Any, what: str, within_s: float) -> None:  # noqa: ANN401  # any callable whose answer can be true
    """
    Ask again and again until *holds()* is true.

    Raises:
        TimeoutError: it never was.

    """
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except WindlassError:
            pass  # not reachable yet: the same question, a moment later
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"wanted, within {within_s:.0f} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def output(argv: list[str], *, errors_too: bool = False) -> str:
    """
    Run a command and return what it printed.

    Raises:
        WindlassError: it failed.

    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WindlassError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return (done.stdout + (done.stderr if errors_too else "")).strip()


def _end(*_: object) -> None:
    """End by way of the `finally` blocks: a stack is not left behind because its program was told to stop."""
    raise SystemExit(128 + signal.SIGTERM)


def _compose() -> list[str]:
    v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    return ["docker", "compose"] if v2 else ["docker-compose"]


def _is_well(api: Api) -> bool:
    return api.health().get("status") in ("ok", "degraded")


def _process_id(container: str) -> int:
    return int(output(["docker", "inspect", "--format", "{{.State.Pid}}", container]))
