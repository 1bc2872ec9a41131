"""What systemd hears of a process, through a real datagram socket."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.supervisor import NOBODY, Supervisor, find_supervisor


class Ear:
    """A socket such as systemd's, and a clock that stands still."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 100.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Return the messages that came since the last look, each as its lines."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def supervisor(self, *, watchdog_s: float | None = 40.0) -> Supervisor:
        """Return a process's side of it."""
        return Supervisor(str(self.path), watchdog_s=watchdog_s, clock=lambda: self.now_s)

    def close(self) -> None:
        """Go away."""
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    """Listen."""
    made = Ear(tmp_path / "notify")
    yield made
    made.close()


def test_ready(ear: Ear) -> None:
    """That it serves is told with a sentence for people."""
    ear.supervisor().ready("serves 3 models")

    assert [["READY=1", "STATUS=serves 3 models"]] == ear.heard()


def test_signs_of_life_are_given_when_due(ear: Ear) -> None:
    """However often the loop turns, a quarter of the interval lies between two signs."""
    supervisor = ear.supervisor()
    for ear.now_s in (0.0, 9.9, 10.0, 10.1, 19.9, 20.0):
        supervisor.alive()

    assert [["WATCHDOG=1"]] * 3 == ear.heard()


def test_a_supervisor_that_came_later_hears_that_it_is_ready(ear: Ear) -> None:
    """Every sign of life says so again, until the process ends."""
    supervisor = ear.supervisor()
    supervisor.ready("serves")
    supervisor.alive()
    supervisor.ending("drains")
    ear.now_s += 10
    supervisor.alive()

    assert [["READY=1", "WATCHDOG=1"], ["STOPPING=1", "STATUS=drains"], ["WATCHDOG=1"]] == ear.heard()[1:]


def test_what_it_does_is_no_change_of_state(ear: Ear) -> None:
    """Words for people alone: one that drains goes on for as long as its last answer takes."""
    ear.supervisor().says("drains")

    assert [["STATUS=drains"]] == ear.heard()


def test_no_watchdog_no_signs(ear: Ear) -> None:
    """Without an interval nobody waits for signs of life."""
    ear.supervisor(watchdog_s=None).alive()

    assert [] == ear.heard()


async def test_a_long_beginning_is_no_hang(ear: Ear) -> None:
    """From the start until it is ready the loop's own turns are the signs, and from then on they are not."""
    supervisor = Supervisor(str(ear.path), watchdog_s=0.004)
    async with supervisor.beginning():
        signs = 0
        async with asyncio.timeout(5):
            while signs < 2:
                await asyncio.sleep(0.001)
                signs += len(ear.heard())
        supervisor.ready("serves")
        await asyncio.sleep(0)
        ear.heard()
        await asyncio.sleep(0.01)

    assert [] == ear.heard()


def test_nobody_listens_any_more(ear: Ear) -> None:
    """A supervisor that is gone ends nothing, and neither does one that was never there."""
    supervisor = ear.supervisor()
    ear.close()
    supervisor.ready("serves")
    supervisor.alive()
    NOBODY.ready("serves")
    NOBODY.alive()


@pytest.mark.parametrize(
    ("environ", "pause_s"),
    [
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "60000000"}, 15.0),
        ({"NOTIFY_SOCKET": "/run/x"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": ""}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "60000000"}, None),
    ],
)
def test_found_in_the_environment(environ: dict[str, str], pause_s: float | None) -> None:
    """Systemd's variables say where to tell and how often."""
    assert pause_s == find_supervisor(environ).pause_s


def test_an_abstract_address(tmp_path: Path) -> None:
    """An address that begins with @ has no file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("\0windlass-test-" + tmp_path.name)
        ear.settimeout(5)
        find_supervisor({"NOTIFY_SOCKET": "@windlass-test-" + tmp_path.name}).ready("here")

        assert b"READY=1\nSTATUS=here" == ear.recv(100)
