"""
A worker without a model.

Serves HTTP on a Unix socket like a real one and answers with what it was asked, so that a test sees which model answered what.
Needs Python's standard library only, and runs in its image or as a plain process. Options it does not know are ignored, and it
takes `--host` and `--alias` for `--socket` and `--model-name`, so it can stand in for llama.cpp's server. If there is a file
`/model/fakeworker.args`, its words are options too: then each model's folder says how its worker misbehaves.

A request may carry an object `fake` with faults of its own: `hold_s` (before the first byte), `allocate_mib`, `exit_code` (ends
the process at once), `status` (an error answer), `break_after` (closes the connection after that many chunks).
"""
# ruff: noqa: D102, D103, T201, ASYNC240 -- a program for tests: its description is above, it writes to its log, and nobody waits

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
EXTRA_ARGUMENTS = Path("/model/fakeworker.args")
Json = dict[str, Any]


class HungUpError(Exception):
    """The connection shall be cut."""


class Reader(asyncio.StreamReader):
    """A reader that says when the other side has hung up, even while nobody reads."""

    def __init__(self) -> None:
        super().__init__(limit=64 * MIB)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)  # type: ignore[arg-type]
        self.gone.set()


class Worker:
    """The state of the process: what it was told, and what it has seen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started_s = time.monotonic()
        self.stats: Json = {
            "model": options.model_name,
            "requests": 0,
            "completed": 0,
            "cancelled": 0,
            "active": 0,
            "prompts": [],
        }
        self.held: list[bytes] = []

    def ready(self) -> bool:
        return not self.options.never_ready and time.monotonic() - self.started_s >= self.options.ready_after_s

    def allocate(self, mib: int) -> None:
        # Multiplied, not zeroed: pages that were never written take no memory.
        self.held.extend(b"\x01" * MIB for _ in range(mib))

    async def serve(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if not await self.answer_or_notice(reader, writer, *request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, HungUpError):
            pass
        finally:
            writer.close()

    async def answer_or_notice(self, reader: Reader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes) -> bool:
        """Answer one request; if the caller hangs up first, stop working for it and count that."""
        answer = asyncio.ensure_future(self.answer(writer, method, path, body))
        gone = asyncio.ensure_future(reader.gone.wait())
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not answer.done():
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            return False
        answer.result()
        return True

    async def answer(self, writer: asyncio.StreamWriter, method: str, path: str, raw: bytes) -> None:
        path = path.partition("?")[0]
        if (method, path) == ("GET", "/health"):
            ready = self.ready()
            await send(
                writer, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"status": "ok" if ready else "loading"}
            )
        elif (method, path) == ("GET", "/stats"):
            await send(writer, HTTPStatus.OK, self.stats)
        elif (method, path) == ("GET", "/v1/models"):
            await send(writer, HTTPStatus.OK, {"object": "list", "data": [{"id": self.options.model_name, "object": "model"}]})
        elif method == "POST" and path in {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}:
            await self.infer(writer, path, raw)
        else:
            await send(writer, HTTPStatus.NOT_FOUND, problem(f"no such path: {method} {path}"))

    async def infer(self, writer: asyncio.StreamWriter, path: str, raw: bytes) -> None:
        body: Json = json.loads(raw)
        prompt = prompt_of(body)
        self.stats["requests"] += 1
        self.stats["active"] += 1
        self.stats["prompts"] = [*self.stats["prompts"][-99:], prompt]
        print("request", self.stats["requests"], path, flush=True)
        try:
            await self.infer_or_fail(writer, path, body, prompt)
            self.stats["completed"] += 1
        except (asyncio.CancelledError, ConnectionError):
            self.stats["cancelled"] += 1
            raise
        finally:
            self.stats["active"] -= 1
        if self.options.exit_after_n and self.stats["completed"] >= self.options.exit_after_n:
            print("served enough", flush=True)
            os._exit(self.options.exit_code)

    async def infer_or_fail(self, writer: asyncio.StreamWriter, path: str, body: Json, prompt: str) -> None:
        faults: Json = body.get("fake") or {}
        self.allocate(int(faults.get("allocate_mib", 0)))
        await asyncio.sleep(float(faults.get("hold_s", 0)))
        if "exit_code" in faults:
            os._exit(int(faults["exit_code"]))
        if "status" in faults:
            await send(writer, HTTPStatus(int(faults["status"])), problem("asked to fail"))
        elif path == "/v1/embeddings":
            await send(writer, HTTPStatus.OK, self.embeddings(body))
        else:
            words, why = self.words(body, prompt)
            if body.get("stream"):
                await self.stream(writer, path, body, words, why)
            else:
                await asyncio.sleep(self.options.stream_delay_s * len(words))
                await send(writer, HTTPStatus.OK, self.whole(path, prompt, words, why))

    def words(self, body: Mapping[str, Any], prompt: str) -> tuple[list[str], str]:
        """Return the answer, word by word, and why it ends: it is the prompt after the model's name."""
        words = f"[{self.options.model_name}] {prompt}".split(" ")
        words = [words[0], *(f" {word}" for word in words[1:])]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(words)
        return words[:limit], "length" if limit < len(words) else "stop"

    def whole(self, path: str, prompt: str, words: list[str], why: str) -> Json:
        text = "".join(words)
        chat = path == "/v1/chat/completions"
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            **self.head("chat.completion" if chat else "text_completion"),
            "choices": [{"index": 0, "logprobs": None, "finish_reason": why, **choice}],
            "usage": usage(prompt, len(words)),
            "timings": {"prompt_n": len(prompt.split()), "predicted_n": len(words), "predicted_per_second": 1000.0},
        }

    async def stream(self, writer: asyncio.StreamWriter, path: str, body: Json, words: list[str], why: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        break_after = int((body.get("fake") or {}).get("break_after", -1))
        sent = 0
        async for event in self.events(path, body, words, why):
            if sent == break_after:
                writer.transport.abort()
                raise HungUpError
            data = f"data: {event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def events(self, path: str, body: Json, words: list[str], why: str) -> AsyncIterator[str]:
        chat = path == "/v1/chat/completions"
        head = self.head("chat.completion.chunk" if chat else "text_completion")

        def event(text: str, finish: str | None) -> str:
            choice: Json = {"delta": {"content": text} if text else {}} if chat else {"text": text}
            return json.dumps({**head, "choices": [{"index": 0, "logprobs": None, "finish_reason": finish, **choice}]})

        for word in words:
            await asyncio.sleep(self.options.stream_delay_s)
            yield event(word, None)
        yield event("", why)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield json.dumps({**head, "choices": [], "usage": usage(prompt_of(body), len(words))})
        yield "[DONE]"

    def embeddings(self, body: Mapping[str, Any]) -> Json:
        given = body.get("input", "")
        texts = given if isinstance(given, list) else [given]
        data = [
            {
                "object": "embedding",
                "index": at,
                "embedding": [byte / 255 for byte in hashlib.sha256(str(text).encode()).digest()[:8]],
            }
            for at, text in enumerate(texts)
        ]
        count = sum(len(str(text).split()) for text in texts)
        return {
            "object": "list",
            "model": self.options.model_name,
            "data": data,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }

    def head(self, kind: str) -> Json:
        return {
            "id": f"fake-{self.stats['requests']}",
            "object": kind,
            "created": int(time.time()),
            "model": self.options.model_name,
        }


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return what was asked: the text of the last message, the prompt, or the input."""
    messages = body.get("messages")
    asked = messages[-1].get("content") if messages else body.get("prompt", body.get("input", ""))
    if isinstance(asked, list):
        asked = " ".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in asked)
    return str(asked)


def usage(prompt: str, answered: int) -> Json:
    asked = len(prompt.split())
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def problem(message: str) -> Json:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes] | None:
    """Read one request; `None` when the caller closes the connection between two."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head.split("\r\n", 1)[0].split(" ")
    headers = dict(line.lower().split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return method, path, body
    return method, path, await reader.readexactly(int(headers.get("content-length", "0")))


async def send(writer: asyncio.StreamWriter, status: HTTPStatus, body: Json) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--socket", "--host", default="/run/worker/worker.sock")
    parser.add_argument("--socket-mode", default="660", help="octal; the group gets in, nobody else")
    parser.add_argument("--model-name", "--alias", default="fake")
    parser.add_argument("--ready-after-s", type=float, default=0.0)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--exit-after-n", type=int, default=0, help="end after answering that many")
    parser.add_argument("--exit-at-start", action="store_true", help="end at once with --exit-code")
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--allocate", type=int, default=0, help="MiB to take and touch at start")
    parser.add_argument("--stream-delay-s", type=float, default=0.0, help="before each word")
    return parser.parse_known_args(argv)[0]


def wait_until_let_go(run: Path) -> None:
    """Wait until somebody opens the FIFO `hold` for writing; without one there is nothing to wait for."""
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(run / "hold", os.O_RDONLY))


def say_ready(started_s: float) -> None:
    if address := os.environ.get("NOTIFY_SOCKET"):
        text = f"READY=1\nX_WINDLASS_MARKS=main:{started_s:.6f} ready:{time.monotonic():.6f}\n"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.setblocking(False)
            speaking.sendto(text.encode(), address)


async def run(options: argparse.Namespace) -> None:
    started_s = time.monotonic()
    worker = Worker(options)
    worker.allocate(options.allocate)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # The first process of a container ignores every signal it has no handler for.
    loop.add_signal_handler(
        signal.SIGTERM, (lambda: print("ignoring SIGTERM", flush=True)) if options.ignore_sigterm else ended.set
    )
    path = Path(options.socket)
    path.unlink(missing_ok=True)
    server = await loop.create_unix_server(lambda: asyncio.StreamReaderProtocol(Reader(), worker.serve), path=path)  # type: ignore[arg-type]
    path.chmod(int(options.socket_mode, 8))
    print(f"listening on {path} as {options.model_name}", flush=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.ready_after_s):
            await ended.wait()
    if worker.ready():
        say_ready(started_s)
    await ended.wait()
    server.close()


def main() -> None:
    extra = shlex.split(EXTRA_ARGUMENTS.read_text()) if EXTRA_ARGUMENTS.exists() else []
    options = parse([*sys.argv[1:], *extra])
    wait_until_let_go(Path(options.socket).parent)
    if options.exit_at_start:
        print("ending at once", flush=True)
        sys.exit(options.exit_code)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
