"""Whether a box does what it is for, as a system on trial is asked: the real script and curl, and a gateway of a few lines."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench.stack import PROJECT

ANSWERS = PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass" / "answers"
KEY = "wl-owner"


class Gateway(BaseHTTPRequestHandler):
    """Is well, and answers questions with the status that its server was given."""

    server: "Server"

    def do_GET(self) -> None:
        """Tell its health."""
        self.reply(self.server.health)

    def do_POST(self) -> None:
        """Answer, or not."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers.get("Authorization", ""))
        self.reply(self.server.status)

    def reply(self, status: int) -> None:
        """Send a status and something."""
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Say nothing."""


class Server(HTTPServer):
    """What it answers with, and the keys it has been shown."""

    health = 200
    status = 200

    def __init__(self) -> None:
        """Listen somewhere."""
        self.keys: list[str] = []
        super().__init__(("127.0.0.1", 0), Gateway)


@pytest.fixture
def gateway() -> Iterator[Server]:
    """Serve until the test ends."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("health", "status", "key", "well", "says"),
    [
        (200, 200, KEY, True, ""),
        (200, 200, "", True, ""),
        (503, 200, KEY, False, "the gateway is not well"),
        (200, 500, KEY, False, "windlass-mini does not answer"),
        (200, 401, KEY, True, "is not taken, so windlass-mini was not asked"),
        (200, 403, KEY, True, "is not taken, so windlass-mini was not asked"),
        (200, 401, "", False, "windlass-mini does not answer"),
    ],
)
def test_a_box_is_well_if_it_answers(
    gateway: Server, tmp_path: Path, *, health: int, status: int, key: str, well: bool, says: str
) -> None:
    """A key that its owner has revoked is no reason to call it unwell; that nobody has made one is."""
    gateway.health, gateway.status = health, status
    (tmp_path / "etc").mkdir()
    if key:
        (tmp_path / "etc" / "api-key").write_text(f"{key}\n")
    environ = {**os.environ, "WINDLASS_HOME": str(tmp_path)}
    argv = [ANSWERS, f"http://127.0.0.1:{gateway.server_port}"]
    asked = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert well == (asked.returncode == 0), asked.stdout
    assert says in asked.stdout
    assert bool(says) == bool(asked.stdout)
    assert {f"Bearer {KEY}" if key else ""} >= set(gateway.keys)
