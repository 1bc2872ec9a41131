"""The gateway as one ASGI application, and as one process."""

import asyncio
import re
import signal
from collections.abc import Sequence
from typing import Final

import structlog
import uvloop
from starlette.middleware.cors import CORSMiddleware

from controller.config import Settings
from controller.errors import ConfigError
from controller.gateway import docs, native, openai
from controller.gateway.auth import Guard, check_listen, is_loopback
from controller.gateway.desk import Desk, Path
from controller.gateway.inbound import App, HangUpError, Inbound, Receive, Scope, Send
from controller.gateway.lease import Session
from controller.gateway.listener import server
from controller.gateway.metrics import HUNG_UP, Metrics
from controller.gateway.problems import Fault, ProblemError
from controller.gateway.upstream import Workers

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

log = structlog.get_logger()


class Gateway:
    """Finds the path, lets the caller in, and makes an answer of whatever goes wrong."""

    def __init__(self, desk: Desk, paths: Sequence[Path] = PATHS) -> None:
        """Index the paths: those without placeholders are found by one look-up."""
        self.desk = desk
        self._fixed: dict[str, dict[str, Path]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Path]]] = []
        for path in paths:
            if "{" not in path.path:
                self._fixed.setdefault(path.path, {})[path.method] = path
            else:
                self._patterns.append((path.pattern(), {path.method: path}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        inbound = Inbound(scope, receive, send)
        loop = asyncio.get_running_loop()
        began = loop.time()
        template = "unknown"
        self.desk.metrics.in_flight.inc()
        try:
            path = self._find(inbound)
            template = path.path
            self.desk.guard.admit(inbound, self.desk.session.directory, path.need, now=began)
            await path.handle(self.desk, inbound)
        except HangUpError:
            inbound.status = HUNG_UP
            log.info("request.hung_up", path=template, request=inbound.id.decode(), after_s=round(loop.time() - began, 3))
        except ProblemError as exc:
            await self._tell(inbound, exc)
        except asyncio.CancelledError:  # the server does that, and only to what outlives the grace period
            await self._tell(
                inbound, ProblemError(Fault.STOPPING, "the gateway is being stopped; another may be there in a moment")
            )
        except Exception as exc:
            log.exception("request.bug", path=template, request=inbound.id.decode())
            text = f"something went wrong here; the gateway's log has it as {inbound.id.decode()}"
            await self._tell(inbound, ProblemError(Fault.BUG, f"{text} ({type(exc).__name__})"))
        finally:
            self.desk.metrics.in_flight.dec()
            self.desk.metrics.answered(template, inbound.status, took_s=loop.time() - began)

    def _find(self, inbound: Inbound) -> Path:
        path = inbound.path
        methods = self._fixed.get(path) or self._match(inbound, path)
        if methods is None and path.endswith("/"):
            methods = self._fixed.get(path.rstrip("/"))
        if methods is None:
            raise ProblemError(Fault.NO_PATH, f"there is nothing at {path[:200]!a}; GET /docs shows what there is")
        found = methods.get("GET" if inbound.method == "HEAD" else inbound.method)
        if found is None:
            allowed = ", ".join(sorted(methods))
            raise ProblemError(
                Fault.NO_METHOD, f"wanted {allowed} at this path, got {inbound.method}", headers=((b"allow", allowed.encode()),)
            )
        return found

    def _match(self, inbound: Inbound, path: str) -> dict[str, Path] | None:
        for pattern, methods in self._patterns:
            if match := pattern.fullmatch(path):
                inbound.names = match.groupdict()
                return methods
        return None

    async def _tell(self, inbound: Inbound, error: ProblemError) -> None:
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


def build(settings: Settings, session: Session, *, cause_patience_s: float = CAUSE_PATIENCE_S) -> App:
    """Return the gateway as an ASGI application; *session* is run by the caller."""
    desk = Desk(
        settings=settings,
        session=session,
        workers=Workers(),
        guard=Guard(settings.gateway),
        metrics=Metrics(),
        openapi=docs.openapi(PATHS),
        cause_patience_s=cause_patience_s,
    )
    gateway = Gateway(desk)
    if not settings.gateway.cors_origins:
        return gateway
    return CORSMiddleware(
        gateway,
        allow_origins=settings.gateway.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=EXPOSED_HEADERS,
    )


def run(settings: Settings) -> None:
    """Be the gateway's process, on uvloop."""
    uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """
    Serve until told to stop; then let running answers end within the grace period.

    Raises:
        ConfigError: the address is none, or reachable from other machines while there is no API key.

    """
    host, port = split_listen(settings.gateway.listen)
    session = Session(str(settings.run / SOCKET_NAME))
    async with asyncio.TaskGroup() as group:
        connection = group.create_task(session.run())
        try:
            if not (host == "localhost" or is_loopback(host)):
                log.info("gateway.waits_for_keys", listen=settings.gateway.listen)
                check_listen(host, (await session.catalog()).keys)
            await _serve(build(settings, session), settings, host, port)
        finally:
            connection.cancel()


async def _serve(app: App, settings: Settings, host: str, port: int) -> None:
    gateway = settings.gateway
    served = server(app, host=host, port=port, max_header_bytes=gateway.max_header, grace_s=gateway.shutdown_grace_s)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        log.info("gateway.stopping", grace_s=gateway.shutdown_grace_s)
        served.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        log.info("gateway.listening", listen=gateway.listen)
        await served.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


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
