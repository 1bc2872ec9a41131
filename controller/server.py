"""
The controller's socket: gateways and the command line talk to the pool through it, one JSON object a line.

It listens on a Unix socket that the group may use and nobody else. A session that cannot keep up with what it is sent is cut: its
gateway comes again and renews its leases, while a buffer that grows without end would take the box down.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from controller import __version__
from controller.errors import ProtocolError, Reason, RefusedError, WindlassError
from controller.pool import Pool
from controller.spec import GROUP_GID
from controller.wire import (
    MAX_LINE_BYTES,
    Acquire,
    Call,
    Catalog,
    Failed,
    Message,
    Release,
    Renew,
    Result,
    Welcome,
    decode_request,
    encode,
)

log: Final = structlog.get_logger()

PRIVATE_VERBS: Final = "keys."
"""Verbs that begin so are answered only to this user and to root."""
MAX_BACKLOG_BYTES: Final = 64 * 1024 * 1024
"""A session that has not read this much is cut."""
CHUNK_BYTES: Final = 256 * 1024
_OPEN_TO_GROUP: Final = 0o660

Verb = Callable[[dict[str, Any]], Awaitable[Any]]


class Session:
    """
    One connection: what is sent to it is written in order, without waiting.

    Attributes:
        trusted: whoever connected may make keys.

    """

    def __init__(self, writer: asyncio.StreamWriter, *, max_backlog_bytes: int, trusted: bool) -> None:
        """Write to *writer* from now on."""
        self.trusted = trusted
        self._writer = writer
        self._max_backlog_bytes = max_backlog_bytes
        self._lost = False
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def send(self, message: Message) -> None:
        """Send one message soon, with all others of this moment; a session that is gone or does not read swallows it."""
        if self._lost or self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > self._max_backlog_bytes:
            log.warning("session.cut", backlog_bytes=self._writer.transport.get_write_buffer_size())
            self.cut()
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(encode(message))

    def _flush(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"".join(self._unsent))
        self._unsent.clear()

    def cut(self) -> None:
        """End the connection at once; whoever was there comes again, and renews its leases."""
        self._lost = True
        self._writer.transport.abort()


class Server:
    """Accepts sessions and serves them from the pool; `verbs` are what a `Call` may ask for."""

    def __init__(
        self,
        *,
        pool: Pool,
        verbs: Mapping[str, Verb],
        instance: str,
        catalog: Callable[[], Catalog],
        max_backlog_bytes: int = MAX_BACKLOG_BYTES,
        peer_uid: Callable[[asyncio.StreamWriter], int] | None = None,
    ) -> None:
        """Know whom to ask; `instance` names this life of the controller, `peer_uid` tells which user connected."""
        self._peer_uid = peer_uid or _peer_uid
        self._max_backlog_bytes = max_backlog_bytes
        self._pool = pool
        self._verbs = verbs
        self._welcome = Welcome(version=__version__, instance=instance)
        self._catalog = catalog
        self._sessions: set[Session] = set()

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[asyncio.Server]:
        """Listen on *path* as long as the block runs."""
        listener = _bind(path)
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=CHUNK_BYTES)
        log.info("server.listening", socket=str(path))
        try:
            yield server
        finally:
            server.close()
            # From Python 3.12 on a server waits for its connections to end, and gateways keep theirs for ever.
            for session in tuple(self._sessions):
                session.cut()
            await server.wait_closed()

    def announce(self) -> None:
        """Tell every session that the catalog or the keys have changed."""
        catalog = self._catalog()
        for session in self._sessions:
            session.send(catalog)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(writer, max_backlog_bytes=self._max_backlog_bytes, trusted=self._trusts(writer))
        self._sessions.add(session)
        session.send(self._welcome)
        session.send(self._catalog())
        try:
            async with asyncio.TaskGroup() as calls:
                running: set[asyncio.Task[None]] = set()
                async for line in _lines(reader):
                    self._handle(line, session, calls, running)
                for call in running:  # whoever asked is gone
                    call.cancel()
        except* (ConnectionError, ValueError) as group:  # a ValueError is a line beyond the limit
            log.info("session.lost", error=str(group.exceptions[0]))
        except* ProtocolError as group:
            log.warning("session.nonsense", error=str(group.exceptions[0]))
        finally:
            self._sessions.discard(session)
            self._pool.leave(session)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _trusts(self, writer: asyncio.StreamWriter) -> bool:
        """Say whether whoever connected may make keys: this user and root may, a gateway may not, whatever it was talked into."""
        return self._peer_uid(writer) in (0, os.geteuid())

    def _handle(self, line: bytes, session: Session, calls: asyncio.TaskGroup, running: set[asyncio.Task[None]]) -> None:
        match decode_request(line):
            case Acquire() as message:
                self._pool.acquire(message, session)
            case Release() as message:
                self._pool.release(message, session)
            case Renew() as message:
                self._pool.renew(message, session)
            case Call() as message:
                task = calls.create_task(self._call(message, session))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _call(self, call: Call, session: Session) -> None:
        verb = self._verbs.get(call.verb)
        if verb is None:
            text = f"wanted one of the verbs {', '.join(sorted(self._verbs))}, got {call.verb!r}"
            session.send(Failed(id=call.id, reason=Reason.MALFORMED, message=text))
            return
        if call.verb.startswith(PRIVATE_VERBS) and not session.trusted:
            text = f"{call.verb} is for the box's own users; run `windlass keys` as root on the box"
            session.send(Failed(id=call.id, reason=Reason.CONFLICT, message=text))
            return
        try:
            session.send(Result(id=call.id, body=await verb(call.arguments)))
        except RefusedError as exc:
            session.send(
                Failed(id=call.id, reason=exc.reason, message=str(exc), retry_after_s=exc.retry_after_s, details=exc.details)
            )
        except WindlassError as exc:
            session.send(Failed(id=call.id, reason=Reason.UNAVAILABLE, message=str(exc)))
        except Exception:  # a bug in one verb must not end the session and every lease in it
            log.exception("call.failed", verb=call.verb)
            text = f"{call.verb} failed for a reason nobody thought of; the controller's log says more"
            session.send(Failed(id=call.id, reason=Reason.UNAVAILABLE, message=text))


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """
    Yield one line after the other, all that came together without waiting in between.

    Raises:
        ValueError: a line is longer than any of ours.

    """
    rest = b""
    while data := await reader.read(CHUNK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"wanted a line of at most {MAX_LINE_BYTES} bytes, got more")


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Return the user at the other end, as the kernel saw it connect (unix(7), SO_PEERCRED)."""
    connection: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def _bind(path: Path) -> socket.socket:
    """Make the socket, closed to everybody outside the group from its first moment on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~_OPEN_TO_GROUP)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    if os.geteuid() == 0:
        os.chown(path, 0, GROUP_GID)
    return listener
