"""
HTTP/1.1 to the workers, over their Unix sockets.

Only what a worker needs of it: one POST at a time on a connection, an answer with a length, in chunks, or until the end. A
general client spends several times what the rest of the gateway spends on a request; this one adds a few microseconds, reads
ahead of a slow caller up to a bound, says when the last byte has come (a caller may still be reading then), and drops the
connection the moment the caller does.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import httptools

from controller.errors import WindlassError

READ_AHEAD_BYTES: Final = 1024 * 1024
"""What is kept for a caller that reads slower than the worker writes; beyond it the worker waits."""
TAIL_BYTES: Final = 4096
"""How much of the end of an answer is kept, to read usage from."""
IDLE_S: Final = 2.0
"""How long an unused connection is kept: less than servers keep theirs, so that ours is the side that closes."""
IDLE_CONNECTIONS: Final = 64
"""For each worker. There are never more of them than leases were held at once, so a server has a thread for every one."""
CONNECT_TIMEOUT_S: Final = 5.0
_CONNECT_PAUSE_S: Final = 0.002


class UpstreamError(WindlassError):
    """
    The worker's connection failed: refused, reset, or ended in the middle.

    Attributes:
        untouched: not one byte of an answer had come.

    """

    def __init__(self, message: str, *, untouched: bool) -> None:
        """Keep whether anything had come."""
        super().__init__(message)
        self.untouched = untouched


class Exchange(asyncio.Protocol):
    """
    One connection to a worker, used for one request after the other.

    Attributes:
        status: of the answer.
        content_type: of the answer.
        first_byte_at: loop time of the first byte of its body.
        blank_lines: how many events a stream has ended so far, as far as they ended on a chunk.
        complete: its last byte has come.

    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make a connection that is not connected yet."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._error: UpstreamError | None = None
        self.closed = False
        self.used = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._tail = b""
        self._sized = False
        self._keep_alive = False
        self.status = 0
        self.content_type = b""
        self.headers_complete = False
        self.complete = False
        self.blank_lines = 0
        self.first_byte_at: float | None = None
        self.on_complete: Callable[[], None] | None = None

    # The caller's side.

    def send(self, path: str, body: bytes, *, on_complete: Callable[[], None] | None = None) -> None:
        """Send one POST; the answer is read with `answered` and `read`."""
        self._begin()
        self.on_complete = on_complete
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self.closed or self._transport is None:
            self._error = UpstreamError("the worker closed the connection", untouched=True)
            return
        head = (
            f"POST {path} HTTP/1.1\r\nhost: worker\r\ncontent-type: application/json\r\naccept: */*\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)

    async def answered(self) -> int:
        """Wait for the head of the answer and return its status."""
        while not self.headers_complete:
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """Return the next bytes of the body, as many as have come; empty at its end."""
        while not self._parts:
            if self.complete:
                return b""
            await self._wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._kept_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self, *, limit_bytes: int) -> bytes:
        """Return the whole body."""
        data = await self.read()
        if self.complete and not self._parts:
            return data
        parts, size = [data], len(data)
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > limit_bytes:
                raise UpstreamError(f"the worker's answer exceeds {limit_bytes} bytes", untouched=False)
        return b"".join(parts)

    def tail(self) -> bytes:
        """Return the end of the body so far."""
        return self._tail

    def abort(self, reason: str = "the connection was dropped") -> None:
        """Drop the connection, and with it whatever the worker is still working on."""
        self._fail(reason)
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self.complete and not self.closed and self._keep_alive

    def rest(self) -> None:
        """Keep the connection for a while in case it is needed again."""
        self.used = True
        self._idle_timer = self._loop.call_later(IDLE_S, self.abort)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, reason: str) -> None:
        if self.complete or self._error is not None:
            return
        self._error = UpstreamError(reason, untouched=not self.headers_complete)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.abort(f"the worker's answer is no HTTP: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        """End an answer that has no length; an answer cut short is an error."""
        self.closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self.headers_complete and not self._sized and exc is None and self._error is None:
            self.on_message_complete()
        self._fail(f"the worker closed the connection{f' ({exc})' if exc else ''}")

    # The parser's side.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Remember the few headers that matter."""
        lowered = name.lower()
        if lowered == b"content-type":
            self.content_type = value
        elif lowered in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        """Let the head be read; interim answers are skipped."""
        self.status = self._parser.get_status_code()
        self.headers_complete = self.status >= 200
        self._wake()

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self.first_byte_at is None:
            self.first_byte_at = self._loop.time()
        self._parts.append(data)
        self._kept_bytes += len(data)
        self.blank_lines += data.count(b"\n\n")
        self._tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        if self._kept_bytes > READ_AHEAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """Take note of the end, before any reader does."""
        if not self.headers_complete or self.complete:
            return
        self.complete = True
        self._keep_alive = self._sized and self._parser.should_keep_alive()  # the parser forgets it right after this
        if self.on_complete is not None:
            self.on_complete()
        self._wake()


class Workers:
    """The connections to all workers; a worker that was started anew gets new ones."""

    def __init__(self) -> None:
        """Start with none."""
        self._idle: dict[tuple[str, str], list[Exchange]] = {}

    async def connect(self, path: str, run: str, *, fresh: bool = False) -> Exchange:
        """
        Return a connection that is free, or a new one.

        Raises:
            UpstreamError: nobody accepts connections on the socket.

        """
        idle = self._idle.get((path, run))
        while idle and not fresh:
            exchange = idle.pop()
            if not exchange.closed:
                return exchange
        loop = asyncio.get_running_loop()
        try:
            connected = await _connect(path)
            _, made = await loop.create_unix_connection(lambda: Exchange(loop), sock=connected)
        except OSError as exc:
            raise UpstreamError(f"the worker's socket does not accept: {exc}", untouched=True) from exc
        return made

    def give_back(self, path: str, run: str, exchange: Exchange) -> None:
        """Keep a connection whose answer was read, and drop any other."""
        if not exchange.reusable:
            exchange.abort()
            return
        self._sweep()
        idle = self._idle.setdefault((path, run), [])
        if len(idle) >= IDLE_CONNECTIONS:
            exchange.abort()
        else:
            exchange.rest()
            idle.append(exchange)

    def close(self) -> None:
        """Drop all idle connections."""
        for idle in self._idle.values():
            for exchange in idle:
                exchange.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        if len(self._idle) > 64:
            self._idle = {key: live for key, idle in self._idle.items() if (live := [one for one in idle if not one.closed])}


async def _connect(path: str) -> socket.socket:
    """
    Connect to a worker's socket.

    A Unix socket answers at once: it accepts, or its backlog is full, which servers keep as short as five. The event loops take
    the second for a failure, or even for a connection, so this is done here, again and again until there is room.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while True:
                try:
                    made.connect(path)
                except BlockingIOError:
                    await asyncio.sleep(_CONNECT_PAUSE_S)
                else:
                    return made
    except BaseException as exc:
        made.close()
        if isinstance(exc, TimeoutError):
            raise OSError(f"its backlog was full for {CONNECT_TIMEOUT_S:g} s") from exc
        raise
