"""
What a worker says of itself while it starts: datagrams on a socket in its run directory, in the words of sd_notify.

`READY=1` says that it answers from now on. `X_WINDLASS_MARKS` names the moments at which the parts of its load were done, and
`X_WINDLASS_READ` what was read ahead and when, both on the clock that all processes of a host share. A worker runs other
people's code: whatever else it says is passed over, and nothing it says can do more than make it look ready.
"""

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.spec import GROUP_GID

MAX_BYTES: Final = 4096
MAX_MARKS: Final = 32
_OPEN_TO_GROUP: Final = 0o660


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read ahead: bytes from the disk, from when to when."""

    read_bytes: int
    began_s: float
    ended_s: float


@dataclass(slots=True, kw_only=True)
class Notices:
    """
    What was heard from one worker since it was started.

    Attributes:
        ready: set when it says that it answers.
        marks: when each part of its load was done, in the order it happened.
        reading: what was read ahead, once that is over.
        read_bytes: what the engine itself has read from disks until it was ready; `None` if it does not say.

    """

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    marks: dict[str, float] = field(default_factory=dict)
    reading: Reading | None = None
    read_bytes: int | None = None

    def take(self, datagram: bytes) -> None:
        """Take one datagram."""
        said = parse(datagram)
        if "X_WINDLASS_MARKS" in said:
            self.marks = parse_times(said["X_WINDLASS_MARKS"])
        if "X_WINDLASS_READ" in said:
            times = parse_times(said["X_WINDLASS_READ"])
            if {"bytes", "began", "ended"} <= times.keys():
                self.reading = Reading(read_bytes=int(times["bytes"]), began_s=times["began"], ended_s=times["ended"])
        if said.get("X_WINDLASS_READ_BYTES", "").isdecimal():
            self.read_bytes = int(said["X_WINDLASS_READ_BYTES"])
        if said.get("READY") == "1":
            self.ready.set()


def parse(datagram: bytes) -> Mapping[str, str]:
    """Read the `NAME=value` lines of a datagram."""
    lines = datagram[:MAX_BYTES].decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def parse_times(text: str) -> dict[str, float]:
    """Read `name:number` words; what is no finite number is left out."""
    found: dict[str, float] = {}
    for word in text.split()[:MAX_MARKS]:
        name, _, number = word.partition(":")
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(number)):
                found[name] = value
    return found


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        bound.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, -1, GROUP_GID)
        path.chmod(_OPEN_TO_GROUP)
    except OSError:
        bound.close()
        raise
    return bound


class Listener(asyncio.DatagramProtocol):
    """An open socket on which one worker may speak."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.notices = Notices()
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, path: Path) -> "Listener":
        """
        Listen at *path*; whatever socket was there before is replaced.

        Raises:
            OSError: nothing can be opened there.

        """
        bound = _bind(path)
        transport, listener = await asyncio.get_running_loop().create_datagram_endpoint(cls, sock=bound)
        listener._transport = transport
        return listener

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Take what the worker says."""
        self.notices.take(data)

    def error_received(self, exc: Exception) -> None:
        """Nothing is sent, so nothing can fail to arrive."""

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()
