"""
llama.cpp's own router: the same binary as in our image, as bare processes on the loopback, with the flags that our workers get.

It is what a box runs that wants several models without Windlass, and so what a swap of ours is held against in the same run.
"""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.stack import free_port, image_tags, output, wait_until
from controller.ops.client import Api

IMAGE: Final = "WINDLASS_IMAGE_LLAMA_CPP"
WITHIN_S: Final = 30.0
ENDS_WITHIN_S: Final = 15.0

OURS: Final = {"--host": 1, "--port": 1, "--model": 1, "--alias": 1, "--slot-save-path": 1, "--log-verbosity": 1}
"""Flags of a worker that the router sets itself for each model or that name folders of a container, and their arguments."""
VERBOSITY: Final = 3
"""At which it says that it starts a model; the models it starts inherit it and write a line a request."""
NOT_THEIRS: Final = ("PATH", "NOTIFY_SOCKET", "WINDLASS_")
"""Variables of a worker that mean something in its container alone begin with these."""
_SPAWNED: Final = re.compile(r"spawning server instance with name=(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A running router."""

    api: Api
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.api.url

    def spawned(self) -> list[str]:
        """Return the models it has started, in order, the same one as often as it was started."""
        return spawned(self.log.read_text(encoding="utf-8", errors="replace"))

    def forget(self, model: str) -> None:
        """Unload a model, and return when it is gone."""
        self.api.post("/models/unload", {"model": model})
        wait_until(lambda: self.state(model) == "unloaded", f"{model} is unloaded", WITHIN_S)

    def state(self, model: str) -> str:
        """Return what it says of a model: `unloaded`, `loading`, `loaded`."""
        rows: list[dict[str, Any]] = self.api.get("/models")["data"]
        return str(next(row["status"]["value"] for row in rows if row["id"] == model))


def router_flags(worker_argv: Sequence[str]) -> list[str]:
    """Return a worker's flags without those that a router sets itself, and without the program they are for, if it is there."""
    kept: list[str] = []
    arguments = iter(worker_argv)
    for flag in itertools.dropwhile(lambda word: not word.startswith("-"), arguments):
        if flag in OURS:
            for _ in range(OURS[flag]):
                next(arguments)
        else:
            kept.append(flag)
    return kept


def router_environment(worker_environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of a worker's environment steers how it computes."""
    return {name: value for name, value in worker_environ.items() if not name.startswith(NOT_THEIRS)}


def preset(models: Mapping[str, Path]) -> str:
    """Return the router's list of models: a section each, which names the weights and nothing else."""
    sections = [f"[{name}]\nmodel = {weights}\n" for name, weights in models.items()]
    return "\n".join(["version = 1\n", *sections])


def spawned(log: str) -> list[str]:
    """Return the models that a router's log says it has started, in order."""
    return _SPAWNED.findall(log)


@contextlib.contextmanager
def router(models: Mapping[str, Path], *, most: int, worker_argv: Sequence[str], environ: Mapping[str, str]) -> Iterator[Router]:
    """
    Run a router until the block is left.

    Args:
        models: the weights of each model.
        most: how many it may have in memory at once.
        worker_argv: a worker's flags, whose like it is to use.
        environ: a worker's environment, likewise.

    """
    folder = Path(tempfile.mkdtemp(prefix="llama-router-"))
    log, port = folder / "log", free_port()
    try:
        binary = take_binary(folder)
        (folder / "models.ini").write_text(preset(models), encoding="utf-8")
        argv = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--models-preset", str(folder / "models.ini")]
        argv += ["--models-max", str(most), "--log-verbosity", str(VERBOSITY), *router_flags(worker_argv)]
        # A home of its own: it would list what lies in the cache of whoever runs this, too.
        own = {"LD_LIBRARY_PATH": str(folder), "HOME": str(folder), "LLAMA_CACHE": str(folder), "PATH": os.environ["PATH"]}
        with log.open("wb") as file:
            process = subprocess.Popen(
                argv, env={**router_environment(environ), **own}, stdout=file, stderr=file, start_new_session=True
            )
        try:
            running = Router(api=Api(f"http://127.0.0.1:{port}"), log=log)
            wait_until(lambda: _is_well(running, process), "the router is well", WITHIN_S)
            yield running
        except BaseException:
            print("--- the last words of the router\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
            raise
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_binary(folder: Path) -> Path:
    """Copy the server and the library it needs out of our image, and return the server's path."""
    container = output(["docker", "create", image_tags(os.environ)[IMAGE]])
    try:
        for name in ("bin/llama-server", "lib/libgomp.so.1"):
            output(["docker", "cp", "--follow-link", f"{container}:/usr/local/{name}", str(folder)])
    finally:
        output(["docker", "rm", container])
    return folder / "llama-server"


def _is_well(running: Router, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise SystemExit(f"the router ended with code {process.returncode} before it answered")
    return bool(running.api.health().get("status") == "ok")  # an error while it starts


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the router and the models it started, which are in its session: kindly, then not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN_S)
    deadline_s = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline_s and _session_alive(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        time.sleep(0.1)
    process.wait()


def _session_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
