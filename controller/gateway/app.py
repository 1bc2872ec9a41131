"""The gateway as one FastAPI application, and as one process."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
import uvloop
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from controller import __version__
from controller.config import Settings
from controller.errors import ConfigError
from controller.gateway import docs, native, openai
from controller.gateway.auth import Guard, Need, check_listen, is_loopback
from controller.gateway.desk import Desk, Path
from controller.gateway.health import Health
from controller.gateway.inbound import HangUpError, Inbound, Receive, Scope, Send
from controller.gateway.lease import Session
from controller.gateway.listener import server
from controller.gateway.metrics import HUNG_UP, Metrics
from controller.gateway.problems import Fault, ProblemError
from controller.gateway.upstream import Workers
from controller.supervisor import NOBODY, Supervisor, find_supervisor

PATHS: Final[Sequence[Path]] = (*openai.PATHS, *native.PATHS, *docs.PATHS)
EXPOSED_HEADERS: Final = (
    "x-request-id",
    "x-windlass-model",
    "x-windlass-route",
    "x-windlass-waited-ms",
    "x-windlass-bound-s",
    "retry-after",
)
SOCKET_NAME: Final = "controller.sock"
CAUSE_PATIENCE_S: Final = 2.0
FIRST_CATALOG_S: Final = 5.0

log = structlog.get_logger()


class _Anything(StringConvertor):
    """A placeholder that takes slashes and line breaks, too: a name with one is unknown and told so, and leads nowhere else."""

    regex = "(?s:.+)"


register_url_convertor("anything", _Anything())


class Answer(Response):
    """
    The answer to one request, as a response that works rather than one that was made before.

    So a caller who hangs up is noticed at every moment.
    """

    def __init__(self, desk: Desk, path: Path, names: Mapping[str, str]) -> None:
        """Know what was asked for; nothing is done before it is called."""
        self._desk = desk
        self._path = path
        self._names = dict(names)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        inbound = Inbound(scope, receive, send)
        inbound.names = self._names
        await _answer(self._desk, self._path, inbound)


class Gateway(FastAPI):
    """
    FastAPI, and a shorter way past it for the paths that have no placeholder.

    What FastAPI does for a request costs more than the rest of the gateway, and all that these paths need of it is to be found.
    """

    def serve_directly(self, desk: Desk, paths: Sequence[Path]) -> None:
        """Take the short way to *paths*; a page's request goes the long one where an origin is allowed, since CORS is there."""
        self._desk = desk
        self._direct = {(path.method, path.path): path for path in paths if "{" not in path.path}
        self._asks_origin = bool(desk.settings.gateway.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = self._direct.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if path is None or (self._asks_origin and any(name == b"origin" for name, _ in scope["headers"])):
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self  # as FastAPI does
            await _answer(self._desk, path, Inbound(scope, receive, send))


async def _answer(desk: Desk, path: Path, inbound: Inbound) -> None:
    """Let a caller in, have the path's handler write the answer, and make an answer of whatever goes wrong."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    desk.metrics.in_flight.inc()
    try:
        desk.guard.admit(inbound, desk.session.directory, path.need, now=began_s)
        await path.handle(desk, inbound)
    except HangUpError:
        inbound.status = HUNG_UP
        log.info("request.hung_up", path=path.path, request=inbound.id.decode(), after_s=round(loop.time() - began_s, 3))
    except ProblemError as exc:
        await _tell(inbound, exc)
    except asyncio.CancelledError:  # the server does that, and only to what outlives the grace period
        text = "the gateway is being stopped; another may be there in a moment"
        await _tell(inbound, ProblemError(Fault.STOPPING, text))
    except Exception as exc:
        log.exception("request.bug", path=path.path, request=inbound.id.decode())
        text = f"something went wrong here; the gateway's log has it as {inbound.id.decode()}"
        await _tell(inbound, ProblemError(Fault.BUG, f"{text} ({type(exc).__name__})"))
    finally:
        desk.metrics.in_flight.dec()
        desk.metrics.answered(path.path, inbound.status, took_s=loop.time() - began_s)


async def _tell(inbound: Inbound, error: ProblemError) -> None:
    problem = error.problem
    if problem.shape.status >= 500:
        log.warning(
            "request.failed",
            status=problem.shape.status,
            code=problem.shape.code,
            error=str(error),
            request=inbound.id.decode(),
        )
    if inbound.status == 0:
        await inbound.reply_problem(problem)


def build(settings: Settings, session: Session, *, cause_patience_s: float = CAUSE_PATIENCE_S) -> Gateway:
    """Return the gateway as an application; *session* is run by the caller."""
    desk = Desk(
        settings=settings,
        session=session,
        workers=Workers(),
        health=Health(session),
        guard=Guard(settings.gateway),
        metrics=Metrics(),
        cause_patience_s=cause_patience_s,
    )
    app = Gateway(
        title="Windlass", version=__version__, description=docs.DESCRIPTION, openapi_url=None, docs_url=None, redoc_url=None
    )
    for path in PATHS:
        _serve_path(app, desk, path)
    app.add_exception_handler(HTTPException, partial(_not_found, desk))
    docs.describe(app, PATHS)
    app.serve_directly(desk, PATHS)
    if settings.gateway.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.gateway.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
    return app


def _serve_path(app: FastAPI, desk: Desk, path: Path) -> None:
    async def answer(request: Request) -> Response:
        return Answer(desk, path, request.path_params)

    template = re.sub(r"\{(\w+)\}", r"{\1:anything}", path.path)
    app.add_api_route(template, answer, methods=[path.method], summary=path.summary, openapi_extra=docs.operation(path))
    if path.method == "GET":
        app.add_api_route(template, answer, methods=["HEAD"], include_in_schema=False)


async def _not_found(desk: Desk, request: Request, error: Exception) -> Response:
    """Say in our own form that there is no such path, or no such method at it."""
    assert isinstance(error, HTTPException)

    async def refuse(_: Desk, inbound: Inbound) -> None:
        allowed = (error.headers or {}).get("Allow", "")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            text = f"wanted {allowed} at this path, got {inbound.method}"
            raise ProblemError(Fault.NO_METHOD, text, headers=((b"allow", allowed.encode()),))
        raise ProblemError(Fault.NO_PATH, f"there is nothing at {inbound.path[:200]!a}; GET /docs shows what there is")

    return Answer(desk, Path(method=request.method, path="unknown", need=Need.NOTHING, handle=refuse, summary=""), {})


def run(settings: Settings) -> None:
    """Be the gateway's process, on uvloop."""
    uvloop.run(_run_until_signalled(settings))


async def _run_until_signalled(settings: Settings) -> None:
    """Serve; whoever is told to end before it listens has let nobody in, and ends at once."""
    serving = asyncio.current_task()
    assert serving is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    # What came while the modules were read was held back by the command line, and is heard now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        await serve(settings, find_supervisor(os.environ))
    except asyncio.CancelledError:
        log.info("gateway.stopped")


async def serve(settings: Settings, supervisor: Supervisor = NOBODY) -> None:
    """
    Serve until told to end: by SIGTERM within the grace period, by SIGUSR1 when the last answer has been delivered.

    Raises:
        ConfigError: the address is none, or reachable from other machines while there is no API key.

    """
    host, port = split_listen(settings.gateway.listen)
    session = Session(str(settings.run / SOCKET_NAME), waiting_limit=settings.scheduler.queue_limit)
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(session.run()), group.create_task(supervisor.keep_alive())]
        try:
            if not (host == "localhost" or is_loopback(host)):
                log.info("gateway.waits_for_keys", listen=settings.gateway.listen)
                check_listen(host, (await session.catalog()).keys)
            elif settings.gateway.share_port:
                await _first_catalog(session)
            await _serve(settings, session, supervisor, host=host, port=port)
        finally:
            for task in beside:
                task.cancel()


async def _first_catalog(session: Session) -> None:
    """Know the models before the first caller comes, since the other gateway knows them; but better listen than wait for long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_CATALOG_S):
            await session.catalog()


async def _serve(settings: Settings, session: Session, supervisor: Supervisor, *, host: str, port: int) -> None:
    gateway = settings.gateway
    served = server(
        build(settings, session),
        host=host,
        port=port,
        max_header_bytes=gateway.max_header,
        grace_s=gateway.shutdown_grace_s,
        share_port=gateway.share_port,
        started=lambda: supervisor.ready(f"listens on {gateway.listen}"),
    )
    loop = asyncio.get_running_loop()
    draining = asyncio.Event()

    def stop() -> None:
        log.info("gateway.stopping", grace_s=gateway.shutdown_grace_s)
        supervisor.ending("lets running answers end")
        served.should_exit = True

    async def drain() -> None:
        await draining.wait()
        log.info("gateway.draining", leases=session.held)
        # Not that it ends: systemd would give it no more than TimeoutStopSec, and the last answer may take longer.
        supervisor.says("drains: another gateway takes what is new")
        await served.drain(limit_s=settings.scheduler.request_limit_s, is_waiting=lambda: session.waiting > 0)

    for number, handler in {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: draining.set}.items():
        loop.add_signal_handler(number, handler)
    drainer = loop.create_task(drain())
    try:
        log.info("gateway.listening", listen=gateway.listen)
        await served.serve()
    finally:
        drainer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await drainer  # one that failed has ended the serving, and says why


def split_listen(text: str) -> tuple[str, int]:
    """
    Split `127.0.0.1:8000` or `[::1]:8000` into address and port.

    Raises:
        ConfigError: it is neither.

    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ConfigError([f"gateway.listen: wanted an address and a port such as 127.0.0.1:8000, got {text!r}"])
    return host, int(port)
