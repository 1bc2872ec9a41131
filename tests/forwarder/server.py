"""An HTTP server on 127.0.0.1:8000 that does what a test tells it; what it saw is in /run/worker/seen."""

import argparse
import http.server
import os
import signal
import sys
import threading
import time
from pathlib import Path

SEEN = "/run/worker/seen"


def note(text: str) -> None:
    """Say what happened, for the test that looks."""
    with Path(SEEN).open("a") as file:
        file.write(text + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path."""

    protocol_version = "HTTP/1.1"
    ready_at = 0.0

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def do_GET(self) -> None:
        """Say whether it is ready."""
        ready = time.monotonic() >= self.ready_at
        self._answer(b'"well"' if ready else b'"not yet"', 200 if ready else 503)

    def do_POST(self) -> None:
        """Do what the path says."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/echo":
            self._answer(body)
        elif self.path == "/flood":
            self._flood(int(body))
        elif self.path == "/drip":
            self._drip(int(body))
        elif self.path == "/exit":
            self._answer(b"last words " * 100_000)
            self.wfile.flush()
            os._exit(int(body))
        elif self.path == "/until-end":  # a client that ends its own side, and reads on
            rest = self.rfile.read()
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + rest[::-1])

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _flood(self, size: int) -> None:
        """Write as much as is taken, and say how much that was when nobody takes it any more."""
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()
        written = 0
        try:
            while written < size:
                self.wfile.write(bytes(65536))
                written += 65536
                Path("/run/worker/written").write_text(str(written))
        except OSError:
            note("hung up")
            raise

    def _drip(self, count: int) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for number in range(count):
                self.wfile.write(b"6\r\n%5d\n\r\n" % number)
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            note("hung up")
            raise


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of connections that break off."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Leave it."""


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silent-s", type=float, default=0.0, help="listen only after this long")
    parser.add_argument("--ready-s", type=float, default=0.0, help="be ready only after this long")
    parser.add_argument("--code", type=int, default=0, help="end with this code when told to end")
    parser.add_argument("--ignore", action="store_true", help="do not end when told to")
    parser.add_argument("--fail", type=int, help="end at once with this code")
    arguments = parser.parse_args()
    if arguments.fail is not None:
        sys.exit(arguments.fail)
    time.sleep(arguments.silent_s)
    Handler.ready_at = time.monotonic() + arguments.ready_s
    server = Server(("127.0.0.1", 8000), Handler)
    if not arguments.ignore:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    else:
        signal.signal(signal.SIGTERM, lambda *_: note("told to end"))
    server.serve_forever()
    sys.exit(arguments.code)


if __name__ == "__main__":
    main()
