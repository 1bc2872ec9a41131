"""
Bring the stack up and down on this machine: `python -m controller.ops.local up`, `down`.

`up` ends when a model has answered a question through the gateway, and leaves everything running. `down` stops what `up` has
started, the workers too, and keeps models and state.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Sequence, Set
from pathlib import Path, PurePosixPath
from time import monotonic, sleep
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from controller.config import DEFAULT_PATH, Settings, load_settings
from controller.errors import WindlassError
from controller.ops import box
from controller.ops import place as places
from controller.ops.client import Api
from controller.ops.images import Builder, find_target, read_tags
from controller.ops.place import Place
from controller.ops.recipes import recipes_for
from controller.ops.steps import StepError, console, run_program, run_step
from controller.probes.system import LocalSystem

PROJECT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = PROJECT / "build"
ENV_FILE: Final = BUILD / "appliance.env"
HOST_FILE: Final = BUILD / "host.yaml"
BUILT_IN: Final = "windlass-mini"
QUESTION: Final = "What is a windlass?"
HEALTHY_WITHIN_S: Final = 120.0

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The stack on this machine.")

Extra = Annotated[list[Path] | None, typer.Option("--file", help="Another Compose file on top, such as compose/dev.yaml.")]


@app.command()
def up(file: Extra = None) -> None:
    """Start controller and gateway, wait until they are well, and ask the built-in model a question."""
    place = _place()
    _prepare(place)
    target = find_target(PROJECT, os.environ, LocalSystem())
    images = Builder(PROJECT, environ=os.environ, target=target)
    images.record(images.ensure(_needed(Path(place.home) / "models", set(recipes_for(target)))))
    tags = read_tags(BUILD / "images.env")
    ENV_FILE.write_text(places.appliance_variables(place, tags), encoding="utf-8")
    write_host_file(HOST_FILE, place, use_gpu=tags.get("WINDLASS_USE_GPU") != "false")
    _check_port(place)
    argv = _compose(place, ["up", "--detach", "--remove-orphans"], extra=file)
    run_step("controller and gateway", argv, log=BUILD / "logs" / "up.log")
    api = Api(place.url, key=os.environ.get("WINDLASS_API_KEY"))
    _wait_until_healthy(place, api)
    _ask(place, api)


@app.command()
def down(file: Extra = None) -> None:
    """Stop gateway, controller and workers; models and state stay."""
    place = _place()
    if ENV_FILE.exists():
        argv = _compose(place, ["down", "--remove-orphans"], extra=file)
        run_step("gateway and controller stop", argv, log=BUILD / "logs" / "down.log")
    workers = _output(places.workers_argv(place)).split()
    if workers:
        run_step(f"workers stop ({len(workers)})", ["docker", "rm", "--force", *workers], log=BUILD / "logs" / "down.log")
    console.print(f"  stopped; models and state stay in {place.home}")


def _place() -> Place:
    user_home = PurePosixPath(pwd.getpwuid(os.geteuid()).pw_dir)
    environ = places.place_environment(os.environ, root=os.geteuid() == 0, user_home=user_home)
    if named := environ.get("WINDLASS_CONFIG"):
        environ["WINDLASS_CONFIG"] = str(Path(named).resolve())
    return places.choose_place(load_settings(environ), environ, config_exists=DEFAULT_PATH.parent.is_dir())


def _prepare(place: Place) -> None:
    """Make the folders before the engine would make them as root, and put the built-in model in its place."""
    for folder in (place.home / "models", place.run, place.config_folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    shipped, target = PROJECT / "images" / BUILT_IN / "gguf", Path(place.home) / "models" / BUILT_IN
    if shipped.is_dir() and not target.exists():
        # Renamed into place, so that a watching controller never sees half a model.
        arriving = Path(place.home) / f".{BUILT_IN}.arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        shutil.copytree(shipped, arriving)
        arriving.rename(target)
        console.print(f"  [green]done[/]  model {BUILT_IN} into {target}")


def _needed(models: Path, there: Set[str]) -> tuple[str, ...]:
    """Name the images that the models of this home need, of those that are made for this box."""
    folders = {
        folder.name: [file.name for file in (*folder.glob("*"), *folder.glob("*/adapter_model*"))]
        for folder in models.iterdir()
        if folder.is_dir()
    }
    manifests = {}
    for name in folders:
        try:
            manifest = tomllib.loads((models / name / "model.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # whatever is wrong with it, `windlass check` says
        if (engine := manifest.get("engine")) in there:
            manifests[name] = str(engine)
    return places.needed_images(folders, manifests)


def write_host_file(file: Path, place: Place, *, use_gpu: bool) -> bool:
    """
    Write down what the controller must see of this host: files of a Jetson, the management library of cards.

    Returns:
        Whether there is anything; else there is no such file.

    """
    settings = Settings(owner=place.owner, use_gpu=use_gpu)
    system = LocalSystem((Path("/"),))
    content = box.host_file(settings, system, engine_socket=place.engine_socket, exists=lambda path: Path(path).exists())
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content, encoding="utf-8")
    return content is not None


def _compose(place: Place, verb: Sequence[str], *, extra: Sequence[Path] | None) -> list[str]:
    """Take Compose v2 where it is installed, else docker-compose."""
    v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    compose = ["docker", "compose"] if v2 else ["docker-compose"]
    of_host = [HOST_FILE] if HOST_FILE.exists() else []
    files = [str(file) for file in (PROJECT / "compose" / "appliance.yaml", *of_host, *(extra or []))]
    return places.compose_argv(compose, place, env_file=str(ENV_FILE), files=files, verb=verb)


def _check_port(place: Place) -> None:
    """Refuse to start beside another program on the gateway's port; the gateway could only fail in its log."""
    mine = _output(["docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.project={place.owner}"])
    address = urlsplit(place.url)
    if mine or not address.hostname or not address.port:
        return
    try:
        socket.create_connection((address.hostname, address.port), timeout=1).close()
    except OSError:
        return
    raise StepError(
        f"another program listens on {address.netloc}: stop it, or choose with WINDLASS_LISTEN=127.0.0.1:8001 make run"
    )


def _wait_until_healthy(place: Place, api: Api) -> None:
    began_s = monotonic()
    last = ""
    with console.status("waiting until the gateway is well"):
        while monotonic() - began_s < HEALTHY_WITHIN_S:
            try:
                health = api.health()
            except WindlassError as exc:
                last = str(exc)
            else:
                last = f"{health.get('status')}: {'; '.join(health.get('reasons') or []) or health}"
                if health.get("status") in {"ok", "degraded"}:
                    console.print(f"  [green]done[/]  {place.url} is well [dim]({monotonic() - began_s:.1f} s)[/]")
                    return
            sleep(0.25)
    for name in ("controller", "gateway"):
        console.print(f"--- the last words of the {name}", style="dim")
        container = _output(["docker", "ps", "--all", "--quiet", *_service(place, name)])
        if container:
            subprocess.run(["docker", "logs", "--tail", "30", container.split()[0]], check=False)
    raise StepError(f"the gateway is not well after {HEALTHY_WITHIN_S:.0f} s; last seen: {last}")


def _service(place: Place, name: str) -> list[str]:
    return [
        "--filter", f"label=com.docker.compose.project={place.owner}",
        "--filter", f"label=com.docker.compose.service={name}",
    ]  # fmt: skip


def _ask(place: Place, api: Api) -> None:
    body: dict[str, Any] = {
        "model": BUILT_IN,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 64,
        "temperature": 0,
    }
    began_s = monotonic()
    with console.status(f"asking {BUILT_IN}: {QUESTION}"):
        answer = api.post("/v1/chat/completions", body)
    text = str(answer["choices"][0]["message"]["content"]).strip()
    console.print(f"\n[bold]{QUESTION}[/] [dim]({BUILT_IN}, {monotonic() - began_s:.1f} s)[/]")
    console.print(text, markup=False)
    console.print(f"\nWindlass is up at [bold]{place.url}[/] (API documentation: {place.url}/docs). Try next:")
    windlass = ".venv/bin/windlass" if place.url == "http://127.0.0.1:8000" else f"WINDLASS_URL={place.url} .venv/bin/windlass"
    asking = '{"model": "windlass-mini", "messages": [{"role": "user", "content": "Tell me about the sea."}]}'
    for command in (
        f"{windlass} ps",
        f"curl {place.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{asking}'",
        f"{windlass} status",
    ):
        console.print(f"  {command}", markup=False)
    console.print(
        f"To add a model, put a folder with a GGUF into {place.home}/models; `make down` stops everything.", markup=False
    )


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepError(f"{' '.join(argv[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    run_program(app)
