"""The image of TensorRT-LLM on a stand-in for NVIDIA's release: all of ours in it, from the socket to the server's words."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from shutil import copy, copytree

import pytest
from docker import APIClient

from controller import engines
from controller.charges import OnCard
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.ops import recipes
from controller.probes.device import read_device
from controller.spec import WorkerSpec
from controller.store import workdirs
from controller.units import GIB
from tests.devices import recorded
from tests.engine.test_real_workers import described
from tests.fakeworker import client
from tests.fakeworker.image import base_image
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parents[2]
RELEASE, IMAGE = "windlass/tensorrt-llm-release:test", "windlass/tensorrt-llm:test"
SERVER = """#!/opt/venv/bin/python
import http.server, json, pathlib, sys

class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        files = sorted(map(str, pathlib.Path(sys.argv[2]).iterdir()))
        said = {"argv": sys.argv[1:], "file": pathlib.Path(sys.argv[-1]).read_text(), "model": files}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

named = dict(zip(sys.argv, sys.argv[1:]))
http.server.HTTPServer((named["--host"], int(named["--port"])), Server).serve_forever()
"""


def build(tag: str, context: Path, **arguments: str) -> None:
    """Make an image."""
    argv = recipes.build_argv(tags=(tag,), context=str(context), arguments=arguments, environ=os.environ)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make the image as `make images` does, on an image whose `trtllm-serve` says what it was told."""
    stand_in = tmp_path_factory.mktemp("release")
    (stand_in / "trtllm-serve").write_text(SERVER)
    (stand_in / "trtllm-serve").chmod(0o755)
    (stand_in / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY trtllm-serve /usr/local/bin/\nENTRYPOINT []\n")
    build(RELEASE, stand_in, BASE=os.environ["WINDLASS_IMAGE_TRANSFORMERS"])
    context = tmp_path_factory.mktemp("context")
    for path in (PROJECT / "images" / "tensorrt-llm").iterdir():
        copy(path, context)
    copytree(PROJECT / recipes.ENTRY, context / "entry")
    build(IMAGE, context, BASE=RELEASE, TOOLS=base_image(APIClient()))
    yield IMAGE
    subprocess.run(["docker", "rmi", IMAGE, RELEASE], capture_output=True, check=True)


def worker(place: Place, image: str) -> WorkerSpec:
    """Describe the built-in checkpoint's worker on a box with cards, and leave out the card, which this engine does not have."""
    model, _ = described(place, "safetensors")
    recording = recorded("discrete-2")
    site = Site(
        image=image,
        run_root=PurePosixPath(place.root / "workers"),
        kv_root=PurePosixPath(place.root / "kv"),
        threads=1,
        device=read_device(recording.system, recording.engine),
    )
    spec = engines.find("tensorrt-llm").worker(replace(model, engine="tensorrt-llm", cards=(OnCard(0, GIB),)), site)
    return replace(spec, devices=(), groups=(), memory_bytes=GIB)


async def test_from_the_socket_to_the_server(place: Place, driver: DockerDriver, image: str) -> None:
    """A sealed worker answers on its socket what the server says on its loopback, which got options, settings and the model."""
    spec = worker(place, image)
    workdirs.prepare(spec)
    await driver.create(spec)
    await driver.start(spec.model)
    await until("it answers", lambda: client.is_ready(Path(spec.socket)), deadline_s=60)

    status, said = await asyncio.to_thread(client.ask, Path(spec.socket), "GET", "/v1/models")

    assert (200, list(spec.argv)) == (status, said["argv"])
    assert json.loads(spec.env["WINDLASS_LLM_ARGS"]) == json.loads(said["file"])
    assert f"/served/{spec.model}/config.json" in said["model"]
    assert (place.root / "kv" / spec.model / "cache").is_dir()
