"""uvicorn, with what it leaves out: limits on the request head, errors in our form for what is no HTTP, an end by draining."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from controller.errors import ConfigError
from controller.gateway.inbound import HANG_UPS, JOINED, App
from controller.gateway.problems import Fault, ProblemError

HEAD_TIMEOUT_S: Final = 20.0
"""How long a request head may take to arrive, and a new connection to send its first one."""
KEEP_ALIVE_S: Final = 30
"""How long an idle connection is kept: a client that talks now and then keeps its own."""
DRAIN_POLL_S: Final = 0.05


class Joining:
    """
    A transport that can join two writes: the head of an answer and its body go out as one segment and wake their reader once.

    Everything but writing and closing is left to the transport itself.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Write to *transport*."""
        self._transport = transport
        self._held: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a transport has
        """Be the transport in every other respect."""
        return getattr(self._transport, name)

    def hold(self) -> None:
        """Keep the next write until the one after it."""
        self._held = []

    def write(self, data: bytes) -> None:
        """Write, or keep what is to be joined."""
        if self._held is None:
            self._transport.write(data)
        elif self._held:
            self._held.append(data)
            self._flush()
        else:
            self._held.append(data)

    def close(self) -> None:
        """Write what was kept, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))


class Listener(HttpToolsProtocol):
    """One connection of a caller."""

    max_header_bytes: int = 32 * 1024

    def __init__(self, *args: object, **keywords: object) -> None:
        """Start with an empty head."""
        super().__init__(*args, **keywords)  # type: ignore[arg-type]
        self._head_bytes = 0
        self._in_head = True
        self._head_begun = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._lost = False
        self._on_hang_up: Callable[[], None] | None = None
        self._last = False

    def finish(self) -> None:
        """
        Answer one more request at most, and say with the answer that it was the last.

        An idle connection is not closed here: its client may be sending at this moment, and could not know whether it was heard.
        """
        self._last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def attend(self, on_hang_up: Callable[[], None] | None) -> None:
        """Call this if the connection is lost, or at once if it is already; one request at a time is answered, so it is one."""
        self._on_hang_up = on_hang_up
        if on_hang_up is not None:
            self.flow.resume_reading()  # a connection that is not read from does not tell that it is lost
            if self._lost:
                on_hang_up()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time."""
        self._joining = Joining(transport)
        super().connection_made(self._joining)  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer, and tell whoever works for this caller."""
        self._stop_timer()
        super().connection_lost(exc)
        self._lost = True
        if self._on_hang_up is not None:
            self._on_hang_up()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head before the parser keeps it."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_header_bytes and self._still_in_head(data):
                return
        super().data_received(data)
        if self._head_begun and self._head_timer is None and not self._lost:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def on_message_begin(self) -> None:
        """Offer to tell of a hang-up."""
        super().on_message_begin()
        self._head_begun = True
        self.scope["extensions"] = {HANG_UPS: self.attend, JOINED: self._joining.hold}  # type: ignore[dict-item]  # an extension is whatever two agree on

    def on_headers_complete(self) -> None:
        """Stop the clock of a head; most have none, for they come in one piece."""
        self._stop_timer()
        self._head_begun = self._in_head = False
        super().on_headers_complete()
        if self._last:
            self.finish()

    def on_message_complete(self) -> None:
        """Expect the next head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(ProblemError(Fault.BAD_REQUEST, f"wanted an HTTP/1.1 request: {msg}"))

    def _still_in_head(self, data: bytes) -> bool:
        """Refuse a head that has grown too large; a body that came in the same piece is no head."""
        end = data.find(b"\r\n\r\n")
        if end >= 0 and self._head_bytes - len(data) + end <= self.max_header_bytes:
            return False
        self._refuse(
            ProblemError(Fault.LARGE_HEAD, f"wanted a request head of at most {self.max_header_bytes} bytes (gateway.max_header)")
        )
        return True

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, error: ProblemError) -> None:
        if self.transport.is_closing():
            return
        problem = error.problem
        body = problem.body_bytes()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[problem.shape.status] + head + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """A server whose signals are somebody else's business: it ends when it is told to, and nothing is raised again afterwards."""

    def __init__(self, config: uvicorn.Config, *, share_port: bool, started: Callable[[], None]) -> None:
        """Listen nowhere yet; *started* is called once it does."""
        super().__init__(config)
        self.servers = []  # one that is to leave before it listens has none
        self._share_port = share_port
        self._on_started = started
        self._listening: list[socket.socket] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and keep a second hold on each socket: closing the server alone would lose whoever waits to be accepted."""
        sockets = sockets or bind(self.config.host, self.config.port, share=self._share_port)
        self._listening = [one.dup() for one in sockets]
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and let what is answered come to its end within the grace period."""
        self._let_go()
        await super().shutdown(sockets)

    async def drain(self, *, limit_s: float, is_waiting: Callable[[], bool]) -> None:
        """
        Take no new connection, finish those there are, and end when the last one has.

        Args:
            limit_s: how long an answer may take.
            is_waiting: somebody waits for its answer to begin, which has a bound of its own.

        """
        try:
            await self._drain(limit_s=limit_s, is_waiting=is_waiting)
        finally:
            self.should_exit = True  # whatever goes wrong: it does not listen any more

    async def _drain(self, *, limit_s: float, is_waiting: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        for server in self.servers:
            server.close()
        for accepted in self._let_go():
            with contextlib.suppress(OSError):  # it is gone already
                await loop.connect_accepted_socket(self._connection, accepted)
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Listener):
                connection.finish()
        deadline_s = loop.time() + limit_s
        while (self.server_state.connections or self.server_state.tasks) and loop.time() < deadline_s:
            await asyncio.sleep(DRAIN_POLL_S)
            if is_waiting():
                deadline_s = loop.time() + limit_s

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _let_go(self) -> Sequence[socket.socket]:
        """Close the sockets, and return those who were waiting to be accepted; nothing may happen in between."""
        accepted = []
        for listening in self._listening:
            listening.settimeout(0)
            with contextlib.suppress(OSError):  # nobody waits any more
                while True:
                    accepted.append(listening.accept()[0])
            listening.close()
        self._listening = []
        return accepted


def bind(host: str, port: int, *, share: bool) -> list[socket.socket]:
    """
    Return a socket for every address of *host*; `::` is every address of this machine, those of IPv4 too.

    Args:
        host: a name or an address.
        port: the port, 0 for a free one.
        share: another process of the same user may listen there as well.

    Raises:
        ConfigError: there is no such address here, or somebody else listens there.

    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            listening = socket.socket(family, socket.SOCK_STREAM)
            bound.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
            listening.bind(address)
    except OSError as exc:
        for one in bound:
            one.close()
        raise ConfigError([f"gateway.listen: cannot listen on port {port} of {host}: {exc.strerror or exc}"]) from exc
    return bound


def listener(*, max_header_bytes: int) -> type[Listener]:
    """Return the protocol with its limit set; uvicorn makes one for each connection and passes nothing on."""
    return type("LimitedListener", (Listener,), {"max_header_bytes": max_header_bytes})


def server(
    app: App,
    *,
    host: str,
    port: int,
    max_header_bytes: int,
    grace_s: float,
    share_port: bool = False,
    started: Callable[[], None] = lambda: None,
) -> Server:
    """Return a server that is ready to serve *app*."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=listener(max_header_bytes=max_header_bytes),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        ),
        share_port=share_port,
        started=started,
    )
