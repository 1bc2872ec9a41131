"""One connection to a worker, byte by byte, without a socket."""

import asyncio

import pytest

from controller.gateway.upstream import READ_AHEAD_BYTES, Exchange, UpstreamError

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that remembers what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = False
        self.aborted = False

    def write(self, data: object) -> None:
        """Remember it."""
        assert isinstance(data, bytes)
        self.written += data

    def pause_reading(self) -> None:
        """Remember it."""
        self.paused = True

    def resume_reading(self) -> None:
        """Remember it."""
        self.paused = False

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True


@pytest.fixture
async def line() -> tuple[Exchange, Wire]:
    """Return an exchange that has sent its request, and its transport."""
    exchange, transport = Exchange(asyncio.get_running_loop()), Wire()
    exchange.connection_made(transport)
    exchange.send("/v1/completions", b"{}")
    return exchange, transport


def chunk(data: bytes) -> bytes:
    """Frame a part of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_the_request_has_a_length_and_a_body(line: tuple[Exchange, Wire]) -> None:
    """One POST, whole."""
    assert line[1].written.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert line[1].written.endswith(b"content-length: 2\r\n\r\n{}")


async def test_parts_are_read_as_they_come(line: tuple[Exchange, Wire]) -> None:
    """What has come is returned at once, and the end is an empty part."""
    exchange, _ = line
    exchange.data_received(HEAD + chunk(b"data: 1\n\n"))
    first = await exchange.read()
    exchange.data_received(chunk(b"data: 2\n\n")[:4])
    exchange.data_received(chunk(b"data: 2\n\n")[4:] + b"0\r\n\r\n")
    second = await exchange.read()

    assert (first, second, await exchange.read()) == (b"data: 1\n\n", b"data: 2\n\n", b"")
    assert (exchange.status, exchange.blank_lines, exchange.reusable) == (200, 2, True)
    assert exchange.tail() == b"data: 1\n\ndata: 2\n\n"


async def test_a_slow_caller_makes_the_worker_wait(line: tuple[Exchange, Wire]) -> None:
    """Beyond what is kept ahead the transport is paused, and reading resumes it."""
    exchange, transport = line
    exchange.data_received(HEAD + chunk(b"x" * READ_AHEAD_BYTES))
    before = transport.paused
    exchange.data_received(chunk(b"y"))
    during = transport.paused
    await exchange.read()

    assert (before, during, transport.paused) == (False, True, False)


async def test_the_end_is_told_before_anybody_reads(line: tuple[Exchange, Wire]) -> None:
    """Whoever holds the lease hears of the last byte when it comes, not when the caller takes it."""
    exchange, _ = line
    told = []
    exchange.on_complete = lambda: told.append(exchange.complete)
    exchange.data_received(HEAD + chunk(b"x") + b"0\r\n\r\n")

    assert told == [True]
    assert await exchange.read() == b"x"


async def test_a_connection_that_ends_in_the_middle_is_an_error_after_what_came(line: tuple[Exchange, Wire]) -> None:
    """What came is still read; then it says that more was expected."""
    exchange, _ = line
    exchange.data_received(HEAD + chunk(b"x"))
    exchange.connection_lost(None)

    assert await exchange.read() == b"x"
    with pytest.raises(UpstreamError) as cut:
        await exchange.read()
    assert (cut.value.untouched, exchange.reusable) == (False, False)


async def test_a_connection_that_ends_before_an_answer_is_untouched(line: tuple[Exchange, Wire]) -> None:
    """Then the request may be sent again."""
    line[0].connection_lost(ConnectionResetError())

    with pytest.raises(UpstreamError) as cut:
        await line[0].answered()
    assert cut.value.untouched is True


async def test_an_aborted_exchange_wakes_who_waits(line: tuple[Exchange, Wire]) -> None:
    """Whoever waits for the worker hears why it was dropped."""
    exchange, transport = line
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(failed(exchange))
        await asyncio.sleep(0)
        exchange.abort("the lease was taken away")

    assert waiting.result() == "the lease was taken away"
    assert transport.aborted


async def failed(exchange: Exchange) -> str:
    """Wait for an answer and return why there is none."""
    with pytest.raises(UpstreamError) as error:
        await exchange.answered()
    return str(error.value)


async def test_an_interim_answer_is_skipped(line: tuple[Exchange, Wire]) -> None:
    """100 Continue is no answer."""
    exchange, _ = line
    exchange.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    early = exchange.headers_complete
    exchange.data_received(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok")

    assert early is False
    assert (await exchange.answered(), await exchange.read_all(limit_bytes=10)) == (201, b"ok")


async def test_an_answer_beyond_the_limit_is_refused(line: tuple[Exchange, Wire]) -> None:
    """A whole answer is kept in memory, so it has a bound."""
    exchange, _ = line
    exchange.data_received(HEAD + chunk(b"x" * 100))
    reading = asyncio.ensure_future(exchange.read_all(limit_bytes=150))
    await asyncio.sleep(0)
    exchange.data_received(chunk(b"x" * 100) + b"0\r\n\r\n")

    with pytest.raises(UpstreamError, match="exceeds 150 bytes"):
        await reading
