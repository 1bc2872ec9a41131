"""
What systemd is told of this process: that it serves, that it still moves, that it ends. Datagrams of sd_notify(3), nothing else.

Nobody supervises a process without `NOTIFY_SOCKET`, and telling nobody costs nothing. A supervisor that is not there now
is no reason to stop serving: what it should have heard is said again, since every sign of life says "ready" as well.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import structlog

log: Final = structlog.get_logger()

SIGNS_AN_INTERVAL: Final = 4
"""Signs of life in one interval of the watchdog, so that a late one or a lost one ends nothing."""
_US: Final = 1_000_000


class Supervisor:
    """
    Whoever watches over this process.

    Attributes:
        pause_s: how long after a sign of life the next one is due; `None` where nobody waits for any.

    """

    def __init__(self, address: str, *, watchdog_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Know where to tell; an empty address is nobody."""
        self.pause_s = watchdog_s / SIGNS_AN_INTERVAL if address and watchdog_s else None
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock = clock
        self._due_s = float("-inf")
        self._ready = False
        self._ending = False
        self._beginning: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        """Say that it serves from now on; signs of life are somebody else's business then."""
        self._ready = True
        if self._beginning is not None:
            self._beginning.cancel()
        self._tell("READY=1", f"STATUS={status}")

    def alive(self) -> None:
        """Give a sign of life if one is due; called by whatever must not stand still, as often as it likes."""
        now = self._clock()
        if self.pause_s is None or now < self._due_s:
            return
        self._due_s = now + self.pause_s
        again = ("READY=1",) if self._ready and not self._ending else ()  # whoever listens now may be another than before
        self._tell(*again, "WATCHDOG=1")

    def says(self, status: str) -> None:
        """Say what it does now, in words for people."""
        self._tell(f"STATUS={status}")

    def ending(self, status: str) -> None:
        """Say that it takes nothing new any more."""
        self._ending = True
        self._tell("STOPPING=1", f"STATUS={status}")

    @contextlib.asynccontextmanager
    async def beginning(self) -> AsyncIterator[None]:
        """Give signs of life from the start of the block until `ready`: a beginning may take long, if only the loop moves."""
        self._beginning = asyncio.create_task(self.keep_alive())
        try:
            yield
        finally:
            self._beginning.cancel()

    async def keep_alive(self) -> None:
        """Give signs of life for ever, as long as the loop moves."""
        while self.pause_s is not None:
            self.alive()
            await asyncio.sleep(self.pause_s)

    def _tell(self, *words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0)  # one that does not read must not hold us up
                sender.sendto("\n".join(words).encode(), self._address)
        except OSError as exc:
            log.debug("supervisor.away", error=str(exc))


NOBODY: Final = Supervisor("", watchdog_s=None)


def find_supervisor(environ: Mapping[str, str]) -> Supervisor:
    """Return whoever systemd's variables name; an interval that is no number counts as none."""
    interval = environ.get("WATCHDOG_USEC", "")
    watchdog_s = int(interval) / _US if interval.isdigit() and int(interval) else None
    return Supervisor(environ.get("NOTIFY_SOCKET", ""), watchdog_s=watchdog_s)
