"""
Carry a request to a worker and its answer back.

A request that meets a dead worker before anything was said is tried once more on a new lease, unless somebody meant it to end:
its time is up, or its model was unloaded by force. After the first byte only the stream itself can fail: it ends with an error
event in OpenAI's form. The lease is given back when the worker has said its last
byte, not when the caller has read it, and at once when the caller hangs up: the connection to the worker is dropped then,
which ends its work.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
import structlog

from controller import wire
from controller.errors import Reason
from controller.gateway import fields
from controller.gateway.desk import Desk
from controller.gateway.lease import Lease, Priority
from controller.gateway.problems import Fault, Problem, ProblemError, from_exit, from_worker
from controller.gateway.upstream import Exchange, UpstreamError

LARGEST_ANSWER_BYTES: Final = 64 * 1024 * 1024
LARGEST_EVENT_BYTES: Final = 4 * 1024 * 1024

_PROMPT: Final = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
_COMPLETION: Final = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_PROMPT_N: Final = re.compile(rb'"(?:prompt_n|cache_n)"\s*:\s*(\d+)')
_PREDICTED_N: Final = re.compile(rb'"predicted_n"\s*:\s*(\d+)')
_CACHED: Final = re.compile(rb'"(?:cached_tokens|cache_n)"\s*:\s*(\d+)')
_PROMPT_MS: Final = re.compile(rb'"prompt_ms"\s*:\s*(\d+(?:\.\d+)?)')
_EVENTS: Final = b"text/event-stream"
_BOUNDARIES: Final = (b"\n\n", b"\r\n\r\n")
_MEANT: Final = frozenset({Fault.TIME_LIMIT.value, "unloaded", Reason.MEMORY_SHORT.value})
"""Causes that a second attempt would undo: it would take the time again, or load again what was just unloaded or ended."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    What is to be asked of a worker, before it is known of which.

    Attributes:
        ask: what the controller is asked.
        compose: makes path and body for the model that was granted.
        priority: `batch` gives way to others.
        deadline_s: how long the caller will wait, if it said so.

    """

    ask: wire.Ask
    compose: Callable[[str], tuple[str, Mapping[str, Any]]]
    priority: Priority = "interactive"
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one use of a worker cost; times count from the grant, and `cached_tokens` of the prompt were not computed."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    first_token_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    granted: wire.Granted
    body: bytes
    content_type: bytes
    usage: Usage


class Sink(Protocol):
    """Where a stream goes: as it is to OpenAI's clients, translated to ours."""

    async def begin(self, granted: wire.Granted, content_type: bytes) -> None:
        """Start the answer."""
        ...

    async def events(self, data: bytes) -> None:
        """Take whole events."""
        ...

    async def fail(self, problem: Problem) -> None:
        """Say in the stream what went wrong, and end it."""
        ...

    async def end(self, usage: Usage) -> None:
        """End the answer."""
        ...


class _Use:
    """One lease in use: sends the request, and reports and gives back on the last byte."""

    def __init__(self, desk: Desk, lease: Lease) -> None:
        assert lease.granted is not None
        self._desk = desk
        self._lease = lease
        self._granted_at = asyncio.get_running_loop().time()
        self.granted = lease.granted
        self.exchange: Exchange | None = None
        self.usage: Usage | None = None

    async def ask(self, job: Job) -> Exchange:
        """Send the request and return the exchange once its head has come."""
        path, body = job.compose(self.granted.model)
        if self.granted.fields:
            body = {**body, **self.granted.fields}
        card = self._desk.session.known().models.get(self.granted.model)
        data = orjson.dumps(fields.for_engine(body, card.engine) if card is not None else body)
        exchange = await self._send(path, data, fresh=False)
        try:
            await exchange.answered()
        except UpstreamError as exc:
            if not (exchange.used and exc.untouched) or self._lease.revoked is not None:
                raise
            # A kept connection that the worker closed at the same moment: a new one tells whether the worker lives.
            exchange = await self._send(path, data, fresh=True)
            await exchange.answered()
        return exchange

    async def _send(self, path: str, data: bytes, *, fresh: bool) -> Exchange:
        exchange = await self._desk.workers.connect(self.granted.socket, self.granted.run, fresh=fresh)
        self.exchange = exchange
        if self._lease.revoked is not None:
            raise UpstreamError("the lease was taken away", untouched=True)
        self._lease.on_revoked = lambda: exchange.abort("the lease was taken away")
        exchange.send(path, data, on_complete=self._report)
        return exchange

    def _report(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        usage = _usage(exchange, granted_at=self._granted_at, now=asyncio.get_running_loop().time())
        self.usage = usage
        self._lease.release(
            "ok" if exchange.status < 500 else "error",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            first_token_s=usage.first_token_s,
            total_s=usage.total_s,
        )
        self._desk.metrics.served(
            self.granted.model,
            waited_s=self.granted.waited_s,
            first_token_s=usage.first_token_s,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )

    def close(self) -> None:
        """Keep the connection if its answer was read to the end, drop it if not."""
        if self.exchange is not None:
            self._desk.workers.give_back(self.granted.socket, self.granted.run, self.exchange)


async def whole(desk: Desk, job: Job) -> Answer:
    """
    Ask a worker and return its whole answer.

    Raises:
        ProblemError: refused, or failed twice.

    """
    for last in (False, True):
        async with desk.session.lease(job.ask, priority=job.priority, deadline_s=job.deadline_s) as lease:
            use = _Use(desk, lease)
            try:
                exchange = await use.ask(job)
                body = await exchange.read_all(limit_bytes=LARGEST_ANSWER_BYTES)
                if exchange.status >= 400:
                    raise from_worker(exchange.status, body, model=use.granted.model)
                assert use.usage is not None
                return Answer(granted=use.granted, body=body, content_type=exchange.content_type, usage=use.usage)
            except UpstreamError as exc:
                problem = await _lost(desk, lease, exc)
                if last or _is_meant(lease):
                    raise problem from exc
            finally:
                use.close()
        desk.metrics.retried(use.granted.model)
    raise AssertionError("the second attempt ends one way or the other")


async def stream(desk: Desk, job: Job, sink: Sink) -> None:
    """
    Ask a worker and hand on its events, each one whole and none later than it came.

    Raises:
        ProblemError: refused, or failed twice before the first event.

    """
    for last in (False, True):
        async with desk.session.lease(job.ask, priority=job.priority, deadline_s=job.deadline_s) as lease:
            use = _Use(desk, lease)
            relay = _Relay(sink)
            try:
                exchange = await use.ask(job)
                if exchange.status >= 400:
                    raise from_worker(
                        exchange.status, await exchange.read_all(limit_bytes=LARGEST_ANSWER_BYTES), model=use.granted.model
                    )
                await relay.run(exchange, use.granted)
            except UpstreamError as exc:
                problem = await _lost(desk, lease, exc)
                if relay.begun:
                    await sink.fail(problem.problem)
                    return
                if last or _is_meant(lease):
                    raise problem from exc
            except asyncio.CancelledError:
                # The caller has left, who hears nothing of this, or the gateway's grace period is over.
                if relay.begun:
                    await sink.fail(ProblemError(Fault.STOPPING, "the gateway is being stopped").problem)
                raise
            else:
                assert use.usage is not None
                await sink.end(use.usage)
                return
            finally:
                use.close()
        desk.metrics.retried(use.granted.model)


class _Relay:
    """Cuts a stream at the ends of events, so that what fails in the middle of one never shows half of it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.begun = False

    async def run(self, exchange: Exchange, granted: wire.Granted) -> None:
        pending = b""
        while data := await exchange.read():
            data = pending + data if pending else data
            cut = _end_of_events(data)
            pending = data[cut:]
            if len(pending) > LARGEST_EVENT_BYTES:
                raise UpstreamError(f"the worker sent an event of more than {LARGEST_EVENT_BYTES} bytes", untouched=False)
            if cut:
                await self._hand_on(data[:cut] if pending else data, exchange, granted)
        if pending or not self.begun:
            await self._hand_on(pending, exchange, granted)

    async def _hand_on(self, data: bytes, exchange: Exchange, granted: wire.Granted) -> None:
        if not self.begun:
            self.begun = True
            await self._sink.begin(granted, exchange.content_type)
        if data:
            await self._sink.events(data)


def _end_of_events(data: bytes) -> int:
    if data.endswith(_BOUNDARIES):
        return len(data)
    return max((found + len(mark) for mark in _BOUNDARIES if (found := data.rfind(mark)) >= 0), default=0)


async def _lost(desk: Desk, lease: Lease, error: UpstreamError) -> ProblemError:
    """Give the lease of a broken attempt back, and say why its worker is gone, as far as anyone knows."""
    assert lease.granted is not None
    model = lease.granted.model
    try:
        cause = await lease.cause(patience_s=desk.cause_patience_s)
    finally:
        lease.release("error")  # whoever catches the error leaves the lease without one, which would count as an answer
    message = lease.revoked.message if lease.revoked else ""
    desk.metrics.worker_lost(model, cause)
    log.warning("worker.lost", model=model, cause=cause or "unknown", error=str(error), lease=lease.id)
    return from_exit(cause, message, model=model)


def _is_meant(lease: Lease) -> bool:
    return lease.revoked is not None and lease.revoked.cause in _MEANT


def _usage(exchange: Exchange, *, granted_at: float, now: float) -> Usage:
    """Read what the engine counted from the end of its answer; a stream that does not tell is counted by its events."""
    tail = exchange.tail()
    prompt = _last(_PROMPT, tail)
    completion = _last(_COMPLETION, tail)
    if prompt is None:
        prompt = sum(int(found) for found in _PROMPT_N.findall(tail)) if b"prompt_n" in tail else 0
    if completion is None:
        completion = _last(_PREDICTED_N, tail)
    if completion is None:
        completion = max(0, exchange.blank_lines - 1) if _EVENTS in exchange.content_type else 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=_cached(tail),
        first_token_s=_first_token_s(exchange, granted_at=granted_at),
        total_s=now - granted_at,
    )


def _first_token_s(exchange: Exchange, *, granted_at: float) -> float | None:
    """Return when the first token was there: seen in a stream, told by the engine otherwise, if it tells."""
    if _EVENTS in exchange.content_type:
        return exchange.first_byte_at - granted_at if exchange.first_byte_at is not None else None
    told_ms = _PROMPT_MS.findall(exchange.tail())
    return float(told_ms[-1]) / 1000 if told_ms else None


def _cached(tail: bytes) -> int | None:
    """Read how much of the prompt was not computed: the last such count, where it is one, else the last that is."""
    found = _CACHED.match(tail, at) if (at := tail.rfind(b'"cache')) >= 0 else None
    return int(found[1]) if found else _last(_CACHED, tail) if at >= 0 else None


def _last(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
