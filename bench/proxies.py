"""What the gateway is compared with, each of its own in front of the same worker: nothing, nginx, and LiteLLM's proxy."""

import contextlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.native import program
from bench.stack import BUILD, PROJECT, free_port, output, wait_until

LITELLM: Final = BUILD / "litellm"
"""Its own virtual environment: it pins many packages that this project needs in other versions."""
LOCK: Final = PROJECT / "requirements" / "litellm.lock"
STARTS_WITHIN_S: Final = 60.0

NGINX_PROGRAMS: Final = (Path("/usr/sbin/nginx"), BUILD / "nginx" / "usr" / "sbin" / "nginx")
"""The machine's own, or the one that was unpacked for this: a package that is installed would start a server."""

NGINX: Final = """
worker_processes {processes};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream worker {{ server unix:{socket}; keepalive 64; keepalive_requests 10000000; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 10000000;
        location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""
LITELLM_CONFIG: Final = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareWorker:
    """The worker without a container, which would have no network: on a port for callers, on a socket for nginx."""

    port: int
    socket: Path


@contextlib.contextmanager
def bare_worker() -> Iterator[BareWorker]:
    """Run the worker that the containers run, too."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="wl-worker-") as folder:
        Path(folder).chmod(0o755)
        socket = Path(folder) / "worker.sock"
        with _process([str(program("worker")), "--host", str(socket), "--port", str(port)], f"http://127.0.0.1:{port}/health"):
            socket.chmod(0o777)  # nginx's processes are another user's if we are root
            yield BareWorker(port=port, socket=socket)


@contextlib.contextmanager
def nginx(socket: Path, *, processes: str) -> Iterator[int]:
    """Run nginx in front of the worker at *socket*, and yield its port; `auto` is one process a core, as its package has it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="wl-nginx-") as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, socket=socket, port=port, processes=processes), encoding="utf-8")
        binary = next((str(path) for path in NGINX_PROGRAMS if path.exists()), "nginx")
        with _process([binary, "-p", folder, "-c", str(config)], f"http://127.0.0.1:{port}/health"):
            yield port


@contextlib.contextmanager
def litellm(worker_port: int, *, model: str, key: str) -> Iterator[int]:
    """Run LiteLLM's proxy in front of the worker at a port, with this key as its own, and yield its port."""
    _install()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="wl-litellm-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(LITELLM_CONFIG.format(model=model, port=worker_port, key=key), encoding="utf-8")
        argv = [str(LITELLM / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with _process(argv, f"http://127.0.0.1:{port}/health/liveliness", environ={"LITELLM_TELEMETRY": "False"}):
            yield port


def _install() -> None:
    """Make LiteLLM's environment from its lock, once for each lock."""
    stamp = LITELLM / "lock"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return
    output([sys.executable, "-m", "venv", "--clear", str(LITELLM)])
    pip = [str(LITELLM / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    output([*pip, "--require-hashes", "--requirement", str(LOCK)])
    stamp.write_bytes(LOCK.read_bytes())


@contextlib.contextmanager
def _process(argv: list[str], url: str, *, environ: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; it is there when *url* answers 200."""
    with tempfile.TemporaryFile() as log:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        running = subprocess.Popen(argv, stdout=log, stderr=log, env={"PATH": path, "HOME": "/tmp", **(environ or {})})  # noqa: S108
        try:
            wait_until(lambda: running.poll() is not None or _answers(url), f"{argv[0]} answers at {url}", STARTS_WITHIN_S)
            if running.poll() is not None:
                log.seek(0)
                raise SystemExit(f"{argv[0]} ended: {log.read()[-2000:].decode(errors='replace')}")
            yield
        finally:
            running.terminate()
            try:
                running.wait(timeout=20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
