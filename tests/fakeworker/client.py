"""Ask a worker on its Unix socket, without any HTTP library: one request, one connection."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        super().__init__("worker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: object = None, *, timeout_s: float = 20.0) -> tuple[int, Any]:
    """Return status and JSON body of one answer."""
    connection = UnixConnection(path, timeout_s=timeout_s)
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def is_ready(path: Path) -> bool:
    """Say whether the worker answers that it is ready."""
    try:
        return ask(path, "GET", "/health", timeout_s=5.0)[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
