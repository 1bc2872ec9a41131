"""Stand between a controller and the engine, and cut the line: an engine that goes away, without stopping one that others use."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ENGINE_SOCKET: Final = os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock"


class Line:
    """
    A Unix socket that passes everything on to the engine, until it is cut.

    It goes on listening when it is cut, since a socket that was mounted into a container cannot be made again; whoever connects
    then is hung up on.
    """

    def __init__(self, path: Path) -> None:
        """Listen, and pass on from now on."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        """Be closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close everything."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(timeout=10)

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        with self._lock:
            self._cut = True
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass on again."""
        with self._lock:
            self._cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            with self._lock:
                if self._cut:
                    return
                self._open |= {near, far}
            with suppress(OSError):
                far.connect(ENGINE_SOCKET)
                back = threading.Thread(target=_one_way, args=(far, near), daemon=True)
                back.start()
                _one_way(near, far)
                back.join()
            with self._lock:
                self._open -= {near, far}


def _one_way(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
