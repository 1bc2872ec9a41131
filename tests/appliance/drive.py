"""
The electronics of a disk: a memory in front of the file that forgets, when the power is cut, what nobody asked it to flush.

Killing QEMU alone takes from the guest what its own kernel had not written yet. What the kernel has written is then in a file of
this machine, asked for a flush or not, since this machine still has power. A real disk may lose that as well, and so does this
one: all of it. What a real disk also may do, keep some of it in an order of its own, or tear a sector in two, is not done here.
"""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.appliance.disk import Disk, run

_READY_WITHIN_S: Final = 30.0
_STEP_S: Final = 0.02
_ROOM: Final = 64 * 1024 * 1024


class Drive:
    """A disk with power; `nbdkit` serves it to one machine."""

    def __init__(self, disk: Disk, at: Path, log: Path) -> None:
        """Switch it on; *at* is the socket that QEMU talks to."""
        self._socket = at
        at.unlink(missing_ok=True)
        # Its file cannot grow while it is served. It takes no place on the disk for that.
        os.truncate(disk.path, max(disk.path.stat().st_size, _largest(disk)))
        argv = ["setpriv", "--pdeathsig", "KILL", "--", "nbdkit", "--foreground", "--unix", str(at)]
        argv += ["--filter=cache", "file", str(disk.path.resolve()), "cache=writeback"]
        with log.open("ab") as said:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self._wait()

    @staticmethod
    def options(disk: Disk, at: Path) -> str:
        """Return what QEMU is told about a disk that is served at *at*."""
        return f"driver={disk.format},file.driver=nbd,file.server.type=unix,file.server.path={at}"

    def cut(self) -> None:
        """Take its power away."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Let it end by itself; everything has been flushed by the machine that is off now."""
        self._process.terminate()
        self._process.wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self._socket)) == 0:
                    return
            assert self._process.poll() is None, "nbdkit has ended; its words are in the machine's log"
            assert time.monotonic() < deadline_s, f"waited {_READY_WITHIN_S:.0f} s for nbdkit"
            time.sleep(_STEP_S)


def _largest(disk: Disk) -> int:
    """Return what the file of a layer can grow to."""
    size_bytes = int(json.loads(run("qemu-img", "info", "--output", "json", str(disk.path)))["virtual-size"])
    return size_bytes + size_bytes // 100 + _ROOM
