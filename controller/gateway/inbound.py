"""One HTTP request as it comes in, and the answer as it goes out: a thin hold on ASGI's three arguments."""

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import orjson

from controller.errors import WindlassError
from controller.gateway.problems import Fault, Problem, ProblemError
from controller.wire import KeyCard

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")
Attend = Callable[[Callable[[], None] | None], None]
"""Takes who is to be called if the connection is lost from now on, or nobody."""

HANG_UPS: Final = "windlass.hang_ups"
"""The ASGI extension by which our own server offers an `Attend`."""
JOINED: Final = "windlass.joined"
"""The ASGI extension by which it writes the head and the body of an answer at once; called before both."""
JSON: Final = b"application/json"
BODY_TIMEOUT_S: Final = 60.0
"""How long a body may take to arrive; a caller that trickles it holds nothing but its own connection until then."""
DRAINED_BYTES: Final = 64 * 1024 * 1024
"""A body that is too large is read and thrown away up to this, since a client that still sends does not read the refusal."""
DRAIN_TIMEOUT_S: Final = 10.0

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_prefix: Final = secrets.token_hex(4)
_numbers: Final = itertools.count(1)


class HangUpError(WindlassError):
    """The caller closed its connection before the answer was complete."""


class Inbound:
    """
    One request.

    Attributes:
        id: the caller's own `x-request-id` if it is harmless, else one of ours.
        names: what the path's placeholders stand for.
        key: the API key it came with, once admitted.
        status: of the answer, 0 until it has begun.
        complete: the answer has been sent whole.

    """

    __slots__ = ("_receive", "_send", "complete", "id", "key", "names", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take hold of ASGI's arguments."""
        self.scope = scope
        self._receive = receive
        self._send = send
        self.names: dict[str, str] = {}
        self.key: KeyCard | None = None
        self.status = 0
        self.complete = False
        given = self.header(b"x-request-id")
        self.id = given if given is not None and _ID.fullmatch(given) else f"{_prefix}-{next(_numbers):x}".encode()

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, its percent-encoding undone."""
        return str(self.scope["path"])

    @property
    def peer(self) -> str:
        """The caller's address; empty on a socket that has none."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this name, which is given in lower case."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return None

    def query(self) -> dict[str, str]:
        """Return the query; of a name that comes twice, the last."""
        return dict(parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=None))

    async def body(self, *, limit_bytes: int) -> bytes:
        """
        Read the body.

        Raises:
            ProblemError: it is too large, or takes too long.
            HangUpError: the caller left in the middle of it.

        """
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit_bytes:
            await self._drain(int(declared))
            raise _too_large(limit_bytes)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):  # the first part, too: a caller may announce a body and send nothing
                size = await self._collect(parts, limit_bytes=limit_bytes)
        except TimeoutError:
            text = f"wanted the whole body within {BODY_TIMEOUT_S:g} s, got {sum(map(len, parts))} bytes of it"
            raise ProblemError(Fault.SLOW_BODY, text, headers=((b"connection", b"close"),)) from None
        if size > limit_bytes:
            await self._drain(size)
            raise _too_large(limit_bytes)
        return b"".join(parts)

    async def _collect(self, parts: list[bytes], *, limit_bytes: int) -> int:
        """Read up to the end or beyond the limit, and return how much that was."""
        size, more = 0, True
        while more and size <= limit_bytes:
            message = await self._part()
            part = message.get("body", b"")
            size += len(part)
            parts.append(part)
            more = message.get("more_body", False)
        return size

    async def _drain(self, size: int) -> None:
        if size > DRAINED_BYTES or self.header(b"expect") is not None:
            return
        drained = 0
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while drained <= DRAINED_BYTES:
                    message = await self._part()
                    drained += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            return

    async def _part(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise HangUpError("the caller left while its request was read")
        return message

    async def attended(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Do *work*, and stop in the middle of it if the caller hangs up.

        Raises:
            HangUpError: it did.

        """
        attend: Attend | None = self.scope.get("extensions", {}).get(HANG_UPS)
        if attend is None:
            return await self._watched(work)
        task = asyncio.current_task()
        assert task is not None
        left = False

        def hang_up() -> None:
            nonlocal left
            if not self.complete:
                left = True
                task.cancel()

        attend(hang_up)
        try:
            return await work
        except asyncio.CancelledError:
            if left and task.uncancel() == 0:
                raise HangUpError("the caller hung up") from None
            raise
        finally:
            attend(None)

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the same under a server that tells of a hang-up only who waits for it: a task beside each request does that."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                result = await work
                watch.cancel()
        except BaseExceptionGroup as errors:
            left = errors.subgroup(HangUpError)
            raise (left or errors).exceptions[0] from None
        return result

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.complete:
            raise HangUpError("the caller hung up")

    async def start(self, status: int, content_type: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Begin an answer whose parts follow."""
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type), (b"x-request-id", self.id), *(headers or ())],
            }
        )

    async def part(self, data: bytes) -> None:
        """Send a part of the answer; waits while the caller reads slower than this is called."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """End the answer."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(
        self, body: bytes, *, status: int = 200, content_type: bytes = JSON, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send a whole answer."""
        size = (b"content-length", b"%d" % len(body))
        join = self.scope.get("extensions", {}).get(JOINED)
        if join is not None and self.method != "HEAD":  # its answer has no body to be joined with
            join()
        await self.start(status, content_type, [size, *headers] if headers else [size])
        await self.end(body)

    async def reply_json(self, value: object, *, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Send a value as JSON."""
        await self.reply(orjson.dumps(value, default=str), status=status, headers=headers)

    async def reply_problem(self, problem: Problem) -> None:
        """Say what is wrong."""
        await self.reply(problem.body_bytes(), status=problem.shape.status, headers=problem.all_headers())


def _too_large(limit_bytes: int) -> ProblemError:
    text = f"wanted a body of at most {limit_bytes} bytes (gateway.max_body), got a larger one"
    return ProblemError(Fault.LARGE_BODY, text, headers=((b"connection", b"close"),))
