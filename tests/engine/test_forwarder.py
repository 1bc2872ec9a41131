"""A server that listens on TCP alone, sealed, behind the forwarder: it is reached by its worker's socket and by nothing else."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterator

import docker
import pytest

from controller.drivers.docker import DockerDriver
from controller.probes.notices import Notices
from controller.spec import GROUP_GID, ModelName
from tests.fakeworker import client
from tests.fakeworker.place import Place
from tests.forwarder import image
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]  # the image may have to be made

MODEL = ModelName("forwarded")
SERVER = "/usr/local/bin/server"


class Forwarded:
    """One worker behind the forwarder."""

    def __init__(self, place: Place, driver: DockerDriver, tag: str) -> None:
        self.place, self.driver, self.tag = place, driver, tag
        self.run = place.root / "workers" / MODEL

    async def start(self, *options: str, ready: bool = True) -> None:
        """Start the server with these options."""
        await self.driver.create(self.place.spec(MODEL, image=self.tag, argv=(SERVER, *options), env=self._env()))
        await self.driver.start(MODEL)
        if ready:
            await self.place.ready(MODEL)

    def _env(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": "/run/worker/notify"}

    def connect(self) -> socket.socket:
        """Open a connection to the worker."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(20)
        made.connect(str(self.place.socket(MODEL)))
        return made

    def seen(self) -> list[str]:
        """Return what the server has noted."""
        path = self.run / "seen"
        return path.read_text().splitlines() if path.exists() else []

    async def ended(self) -> int:
        """Wait until the container has ended, and return its code."""

        async def code() -> list[int]:
            found = [one for one in await self.driver.list() if one.model == MODEL and one.exit is not None]
            return [one.exit.code for one in found if one.exit is not None]

        (ended,) = await until("the worker to end", code)
        return int(ended)


@pytest.fixture
def forwarded(engine: docker.APIClient, place: Place, driver: DockerDriver) -> Forwarded:
    """Prepare a worker."""
    return Forwarded(place, driver, image.ensure(engine))


@pytest.fixture
def heard(forwarded: Forwarded) -> Iterator[socket.socket]:
    """Listen where a worker says that it answers."""
    forwarded.place.spec(MODEL)  # makes the directories
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = forwarded.run / "notify"
    listening.bind(str(path))
    path.chmod(0o777)
    listening.setblocking(False)
    with contextlib.closing(listening):
        yield listening


def head(path: str, size: int) -> bytes:
    """Write the head of a request."""
    return f"POST {path} HTTP/1.1\r\nhost: worker\r\ncontent-length: {size}\r\n\r\n".encode()


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer that has a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    top, _, body = data.partition(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < size:
        more = connection.recv(1 << 20)
        assert more, f"cut off after {len(body)} of {size} bytes"
        body += more
    return body


async def test_it_appears_when_the_server_is_well(forwarded: Forwarded, heard: socket.socket) -> None:
    """No socket while nobody listens or the server says 503; then a socket for the group alone, and a word that it is there."""
    await forwarded.start("--silent-s", "0.3", "--ready-s", "0.5", ready=False)
    socket_file = forwarded.place.socket(MODEL)
    await until(
        "the server to listen", lambda: forwarded.place.run_inside(MODEL, "sh", "-c", "grep -q :1F40 /proc/net/tcp")[0] == 0
    )
    assert not socket_file.exists()
    await forwarded.place.ready(MODEL)
    notices = Notices()
    notices.take(heard.recv(4096))

    assert notices.ready.is_set()
    assert ["main", "ready"] == list(notices.marks)
    assert notices.marks["ready"] - notices.marks["main"] >= 0.7
    mode = socket_file.stat()
    assert (0o770, GROUP_GID) == (stat.S_IMODE(mode.st_mode), mode.st_gid)


async def test_bytes_come_as_they_went(forwarded: Forwarded) -> None:
    """Megabytes both ways, on one connection after the other and on many at once."""
    await forwarded.start()

    def talk(number: int) -> bool:
        with forwarded.connect() as connection:
            for size in (1, 70_000, 3_000_000):
                body = os.urandom(size)
                connection.sendall(head("/echo", size))
                # A writer that waits for its answer only after everything is sent would block on a short-sighted forwarder.
                connection.sendall(body)
                if read_answer(connection) != body:
                    return False
        return True

    assert all(await asyncio.gather(*(asyncio.to_thread(talk, number) for number in range(24))))


async def test_a_slow_reader_slows_the_server_down_and_nobody_else(forwarded: Forwarded) -> None:
    """What the server writes is not piled up, and another caller is answered meanwhile."""
    await forwarded.start()
    with forwarded.connect() as slow:
        slow.sendall(head("/flood", 9) + b"500000000")
        written = forwarded.run / "written"
        await until("the server to write", lambda: written.exists() and int(written.read_text() or 0) > 0)
        sizes = [0, 1]

        def stands() -> bool:
            sizes.append(int(written.read_text() or 0))
            return sizes[-1] == sizes[-2]

        await asyncio.sleep(0.5)
        await until("the server to be stopped", stands)
        assert sizes[-1] < 32 * 2**20
        assert 200 == forwarded.place.ask(MODEL, "GET", "/health")[0]
    await until("the server to see the hang-up", lambda: forwarded.seen() == ["hung up"])


async def test_a_hang_up_reaches_the_server(forwarded: Forwarded) -> None:
    """A caller that leaves in the middle of a stream is a broken connection to the server at its next word."""
    await forwarded.start()
    with forwarded.connect() as connection:
        connection.sendall(head("/drip", 4) + b"9999")
        assert b"    0" in connection.recv(4096) + connection.recv(4096)
    await until("the server to see the hang-up", lambda: forwarded.seen() == ["hung up"])


async def test_the_end_of_one_direction_is_passed_on(forwarded: Forwarded) -> None:
    """A caller may say that it has said everything, and still read the answer."""
    await forwarded.start()
    with forwarded.connect() as connection:
        connection.sendall(b"POST /until-end HTTP/1.1\r\nhost: worker\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer.endswith(b"\r\n\r\ncba")


@pytest.mark.parametrize(("options", "code"), [(("--code", "7"), 7), (("--code", "0"), 0)])
async def test_it_ends_as_the_server_does(forwarded: Forwarded, options: tuple[str, ...], code: int) -> None:
    """The signal is passed on, the server ends in its own time, and its code is the worker's."""
    await forwarded.start(*options)
    forwarded.place.engine.kill(forwarded.place.container(MODEL), "SIGTERM")

    assert code == await forwarded.ended()
    assert not forwarded.place.socket(MODEL).exists()


async def test_a_server_that_ends_by_itself_ends_the_worker(forwarded: Forwarded) -> None:
    """With its code, whether it had ever answered or not."""
    await forwarded.start("--fail", "3", ready=False)

    assert 3 == await forwarded.ended()


async def test_a_killed_server_is_told_by_its_signal(forwarded: Forwarded) -> None:
    """As a shell does: 128 and the signal; and it is not the forwarder that was killed."""
    await forwarded.start("--ignore")
    forwarded.place.run_inside(
        MODEL, "python3", "-c", "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    )

    assert 137 == await forwarded.ended()


async def test_last_words_are_delivered(forwarded: Forwarded) -> None:
    """What a server wrote before it ended comes to its caller whole, however slowly that reads."""
    await forwarded.start()
    with forwarded.connect() as connection:
        connection.sendall(head("/exit", 1) + b"5")
        await asyncio.sleep(0.3)
        answer = await asyncio.to_thread(read_answer, connection)

    assert b"last words " * 100_000 == answer
    assert 5 == await forwarded.ended()


async def test_it_waits_while_it_is_held(forwarded: Forwarded) -> None:
    """The entry before it holds the server back as it does any other, and the forwarder still learns of its end."""
    forwarded.place.spec(MODEL)
    os.mkfifo(forwarded.run / "hold", 0o666)
    (forwarded.run / "hold").chmod(0o666)
    await forwarded.start("--code", "4", ready=False)
    await asyncio.sleep(0.3)
    code, processes = forwarded.place.run_inside(MODEL, "sh", "-c", "cat /proc/[0-9]*/comm")
    assert (0, True) == (code, "serve" in processes.split() and "forward" not in processes.split())
    assert not forwarded.place.socket(MODEL).exists()
    descriptor = os.open(forwarded.run / "hold", os.O_WRONLY)
    os.close(descriptor)
    await forwarded.place.ready(MODEL)
    forwarded.place.engine.kill(forwarded.place.container(MODEL), "SIGTERM")

    assert 4 == await forwarded.ended()


async def test_nobody_reaches_the_server_but_by_its_socket(forwarded: Forwarded) -> None:
    """It has a loopback and no other network; the host's port of that number is not its own."""
    await forwarded.start()
    code, links = forwarded.place.run_inside(MODEL, "ls", "/sys/class/net")

    assert (0, ["lo"]) == (code, links.split())
    assert client.is_ready(forwarded.place.socket(MODEL))
