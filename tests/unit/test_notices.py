"""What workers say of themselves, and a socket of ours that really hears it."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from controller.probes.notices import Listener, Notices, Reading, parse_times


def test_a_worker_says_how_far_it_is() -> None:
    """Marks, bytes and what was read ahead are taken from their datagrams, and it is ready when it says so."""
    notices = Notices()
    notices.take(b"X_WINDLASS_READ=bytes:4096 began:1.5 ended:2.5\n")

    assert not notices.ready.is_set()

    notices.take(b"READY=1\nX_WINDLASS_MARKS=main:1.25 vocabulary:2.5\nX_WINDLASS_READ_BYTES=512\n")

    assert notices.ready.is_set()
    assert {"main": 1.25, "vocabulary": 2.5} == notices.marks
    assert Reading(read_bytes=4096, began_s=1.5, ended_s=2.5) == notices.reading
    assert 512 == notices.read_bytes


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\xff\xfe", b"READY=0", b"READY", b"STATUS=x\nX_WINDLASS_READ=bytes:1", b"X_WINDLASS_READ_BYTES=-1", b"x" * 100_000],
)
def test_nonsense_is_passed_over(datagram: bytes) -> None:
    """Workers run other people's code."""
    notices = Notices()
    notices.take(datagram)

    assert (False, {}, None, None) == (notices.ready.is_set(), notices.marks, notices.reading, notices.read_bytes)


def test_only_finite_numbers_are_times() -> None:
    """And no more of them than a load has parts."""
    assert {"a": 1.0} == parse_times("a:1 b:nan c:inf d: e:x f")
    assert 32 == len(parse_times(" ".join(f"m{number}:1" for number in range(100))))


async def test_a_datagram_is_heard_and_an_old_socket_is_replaced(tmp_path: Path) -> None:
    """The socket is open to the group and to nobody else, and a second start hears nothing of the first."""
    path = tmp_path / "notify"
    first = await Listener.open(path)
    second = await Listener.open(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.sendto(b"READY=1\nX_WINDLASS_MARKS=main:1", str(path))
        async with asyncio.timeout(5):
            await second.notices.ready.wait()

        assert {"main": 1.0} == second.notices.marks
        assert not first.notices.ready.is_set()
        assert 0o660 == stat.S_IMODE(path.stat().st_mode)
    finally:
        first.close()
        second.close()


async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The caller decides what to do without."""
    with pytest.raises(OSError, match="No such file"):
        await Listener.open(tmp_path / "gone" / "notify")
