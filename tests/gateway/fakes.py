"""A controller and a worker, in this process, that do what a test tells them and remember what they saw."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from controller import wire
from tests.waiting import until

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


def card(name: str, **changes: Any) -> wire.ModelCard:  # noqa: ANN401
    """Return a model as the catalog shows it."""
    fields = {
        "engine": "llama-cpp",
        "tier": "medium",
        "tags": (),
        "api_paths": (CHAT, COMPLETIONS),
        "context_tokens": 2048,
        "parameters": 5_000_000,
        "created_s": 1_700_000_000,
        "chat": True,
        "tools": True,
    }
    return wire.ModelCard(name=name, **(fields | changes))


class FakeController:
    """
    Speaks the controller's side of the wire.

    Grants at once, unless `holding` is set: then callers wait until `grant_all`. `refusal` refuses instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: dict[str, wire.ModelCard] = {}
        self.sockets: dict[str, Path] = {}
        self.keys: tuple[wire.KeyCard, ...] = ()
        self.holding = False
        self.refusal: dict[str, Any] | None = None
        self.limit_s = 60.0
        self.answers: dict[str, Any] = {}
        self.slot: int | None = None
        self.fields: dict[str, int | bool] = {}
        self.acquired: list[wire.Acquire] = []
        self.renewed: list[wire.Renew] = []
        self.released: list[wire.Release] = []
        self.calls: list[wire.Call] = []
        self.waiting: dict[str, wire.Acquire] = {}
        self.held: dict[str, str] = {}
        self.instance = 0
        self.most_leases = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def leases(self) -> int:
        """How many are held or waited for."""
        return len(self.held) + len(self.waiting)

    async def start(self) -> None:
        """Listen, as a new instance."""
        self.instance += 1
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=wire.MAX_LINE_BYTES)

    async def stop(self) -> None:
        """Go away as a killed process does: the connections end, and with them all it knew."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await until("the sessions to end", lambda: not self._writers)
            await self._server.wait_closed()
            self._server = None
        self.path.unlink(missing_ok=True)
        self.waiting.clear()
        self.held.clear()

    def grant_all(self) -> None:
        """Grant what waits."""
        for acquire in list(self.waiting.values()):
            self._grant(acquire)

    def revoke_all(self, cause: str, message: str = "") -> None:
        """Take away what was granted."""
        for lease in list(self.held):
            self._send(wire.Revoked(id=lease, cause=cause, message=message or f"the worker ended: {cause}"))
            del self.held[lease]

    def announce(self) -> None:
        """Send the catalog again."""
        self._send(wire.Catalog(models=tuple(self.models.values()), keys=self.keys))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(wire.encode(wire.Welcome(version="0", instance=str(self.instance))))
        writer.write(wire.encode(wire.Catalog(models=tuple(self.models.values()), keys=self.keys)))
        try:
            while line := await reader.readline():
                self._take(wire.decode_request(line))
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, message: wire.Acquire | wire.Renew | wire.Release | wire.Call) -> None:
        match message:
            case wire.Acquire():
                self._acquire(message)
            case wire.Renew():
                self.renewed.append(message)
                self.held[message.id] = message.model
                self._send(self._granted(message.id, message.model, None))
            case wire.Release():
                self.released.append(message)
                self.waiting.pop(message.id, None)
                self.held.pop(message.id, None)
            case wire.Call():
                self.calls.append(message)
                answer = self.answers.get(message.verb)
                if isinstance(answer, wire.Failed):
                    self._send(msgspec.structs.replace(answer, id=message.id))
                elif answer is not None:
                    self._send(wire.Result(id=message.id, body=answer))

    def _acquire(self, message: wire.Acquire) -> None:
        self.acquired.append(message)
        self.most_leases = max(self.most_leases, self.leases + 1)
        if self.refusal is not None:
            self._send(wire.Refused(id=message.id, **self.refusal))
        elif self.holding:
            self.waiting[message.id] = message
            model = message.ask.model or next(iter(self.models))
            self._send(wire.Queued(id=message.id, model=model, position=len(self.waiting), eta_s=1.0, bound_s=9.0))
        else:
            self._grant(message)

    def _grant(self, message: wire.Acquire) -> None:
        self.waiting.pop(message.id, None)
        ask = message.ask
        model = ask.model or next(name for name, one in self.models.items() if ask.api_path in one.api_paths)
        self.held[message.id] = model
        route = wire.Route(model=model, mode=ask.mode, reasons=("it is resident",), resident=True, difficulty=ask.difficulty)
        self._send(self._granted(message.id, model, route))

    def _granted(self, lease: str, model: str, route: wire.Route | None) -> wire.Granted:
        return wire.Granted(
            id=lease,
            model=model,
            socket=str(self.sockets.get(model, self.path.parent / "nobody.sock")),
            run="run-1",
            route=route,
            limit_s=self.limit_s,
            waited_s=0.002,
            bound_s=12.5,
            slot=self.slot,
            fields=self.fields,
        )

    def _send(self, message: wire.Message) -> None:
        for writer in self._writers:
            writer.write(wire.encode(message))


class FakeWorker:
    """
    Answers OpenAI's paths on a Unix socket.

    The field `fake` of a request says what goes wrong: `die` (no answer), `status` and `error` (an error answer), `die_after`
    (the connection ends after so many events), `half` (in the middle of one), `hang` (no byte until the caller leaves),
    `hang_after` (the same, after so many events), `flood` (so many bytes of events). `deaths` kills that many requests.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.hung_up = 0
        self.active = 0
        self.deaths = 0
        self.raw: bytes | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen, with as short a backlog as llama.cpp's server has."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=16 * 1024 * 1024, backlog=5)

    async def stop(self) -> None:
        """End, in the middle of whatever it says."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await until("the connections to end", lambda: not self._writers)
            await self._server.wait_closed()
            self._server = None
        self.path.unlink(missing_ok=True)

    def drop_idle(self) -> None:
        """Close all connections, as a server does with idle ones."""
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while head := await self._head(reader):
                path, size = head
                body = json.loads(await reader.readexactly(size))
                self.requests.append((path, body))
                self.active += 1
                try:
                    if not await self._answer(path, body, reader, writer):
                        return
                finally:
                    self.active -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up += 1
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> tuple[str, int] | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        size = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length"))
        return head[0].split(" ")[1], size

    async def _answer(self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        fake = body.get("fake", {})
        if fake.get("die") or self.deaths > 0:
            self.deaths -= 1
            return False
        if fake.get("hang"):
            return await self._wait_for_hangup(reader)
        if self.raw is not None:
            writer.write(self.raw)
            await writer.drain()
            return False
        if "status" in fake:
            _write(writer, fake["status"], fake.get("error", {"error": {"message": "no", "type": "server_error"}}))
            return True
        if body.get("stream"):
            return await self._stream(path, body, fake, reader, writer)
        _write(writer, 200, self._whole(path, body))
        await writer.drain()
        return True

    async def _stream(
        self, path: str, body: dict[str, Any], fake: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, event in enumerate(self._events(path, body)):
            if number == fake.get("die_after"):
                if fake.get("half"):
                    _chunk(writer, event[: len(event) // 2])
                    await writer.drain()
                return False
            if number == fake.get("hang_after"):
                return await self._wait_for_hangup(reader)
            _chunk(writer, event)
            await writer.drain()
        filler = b": " + b"x" * 16380 + b"\n\n"
        for _ in range(fake.get("flood", 0) // len(filler)):
            _chunk(writer, filler)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _wait_for_hangup(self, reader: asyncio.StreamReader) -> bool:
        with suppress(ConnectionError):
            await reader.read(1)
        self.hung_up += 1
        return False

    def _events(self, path: str, body: dict[str, Any]) -> list[bytes]:
        made = {"id": "c1", "created": 1, "model": body["model"]}
        pieces = ["Once", " upon", " a", " time"]
        if path == CHAT:
            made["object"] = "chat.completion.chunk"
            choices = [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None} for piece in pieces]
            last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        else:
            made["object"] = "text_completion"
            choices = [{"index": 0, "text": piece, "logprobs": None, "finish_reason": None} for piece in pieces]
            last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
        events: list[dict[str, Any]] = [{**made, "choices": [choice]} for choice in choices]
        events.append({**made, "choices": [last], "timings": {"prompt_n": 5, "cache_n": 2, "predicted_n": 4}})
        return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]

    def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
        made = {"id": "c1", "created": 1, "model": body["model"], "usage": usage}
        if path == EMBEDDINGS:
            vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
            return {"object": "list", "data": [vector], "model": body["model"], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
        if path == COMPLETIONS:
            choice = {"index": 0, "text": f"said {body['prompt']}", "logprobs": None, "finish_reason": "stop"}
            return {**made, "object": "text_completion", "choices": [choice]}
        text = f"said {body['messages'][-1].get('content')}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        return {**made, "object": "chat.completion", "choices": [choice], "timings": {"prompt_ms": 12.5, "predicted_n": 4}}


def _write(writer: asyncio.StreamWriter, status: int, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n" % len(data) + data + b"\r\n")


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a raw connection to the gateway, and close it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(path: str, body: object, *, headers: str = "", method: str = "POST") -> bytes:
    """Return a request as its bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fixed = f"host: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\n{fixed}{headers}\r\n"
    return head.encode() + data
