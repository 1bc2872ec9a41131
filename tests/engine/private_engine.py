"""A Docker Engine of a test's own, beside the one that others use: its own data, its own socket, its own runtimes, no network."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.waiting import until

STAND_IN = Path(__file__).with_name("nvidia_runtime.py")
START_S = 60.0
STOP_S = 30


class PrivateEngine:
    """
    An engine that runs.

    Attributes:
        url: where it listens.
        asked: what the stand-in for NVIDIA's runtime was asked, a line each.

    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = f"unix://{folder}/engine.sock"
        self.asked = folder / "asked"
        self.log = folder / "log"
        self.process = process

    def answers(self) -> bool:
        """Say whether it is up."""
        assert self.process.poll() is None, f"the private engine has ended:\n{self.log.read_text()[-4000:]}"
        try:  # the SDK leaves sockets that it could not connect to the garbage collector
            with socket.socket(socket.AF_UNIX) as knock:
                knock.connect(self.url.removeprefix("unix://"))
        except OSError:
            return False
        with contextlib.closing(docker.APIClient(base_url=self.url, timeout=30)) as client:
            return bool(client.ping())


def missing() -> str:
    """Say what is missing to start one; empty if nothing is."""
    if os.geteuid() != 0:
        return "an engine of its own can only be started by root"
    return "" if shutil.which("dockerd") else "there is no dockerd on this machine; its engine runs elsewhere"


@contextlib.contextmanager
def private_engine(image: str, *options: str) -> Iterator[PrivateEngine]:
    """Start an engine with NVIDIA's runtime stood in for, give it *image* from the one that others use, and end it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="wl-engine-"))
    stand_in = Path(shutil.copy(STAND_IN, folder / "nvidia-container-runtime"))
    stand_in.chmod(0o755)
    # In a network of its own: an engine without a bridge removes the one of the machine, which belongs to the engine of others.
    argv = (
        "unshare",
        "--net",
        "dockerd",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--host=unix://{folder}/engine.sock",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        f"--add-runtime=nvidia={stand_in}",
        *options,
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    engine = PrivateEngine(folder, process)
    try:
        asyncio.run(until("the private engine answers", engine.answers, deadline_s=START_S))
        with _client(None) as theirs, _client(engine.url) as ours:
            for said in ours.load_image(theirs.get_image(image)) or ():  # type: ignore[no-untyped-call]
                assert "error" not in said, said
        yield engine
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _client(url: str | None) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(base_url=url or os.environ.get("DOCKER_HOST"), timeout=120)) as client:
        yield client


def _unmount(folder: Path) -> None:
    """Take away the mounts that an engine leaves behind when it is ended."""
    for line in reversed(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()):
        target = line.split()[1]
        if target.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
