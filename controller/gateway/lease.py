"""
The gateway's side of the controller's socket: one session, many leases.

A lease is waited for, held and given back; whoever holds one hears when it is taken away. The session connects again by
itself. What it holds is then renewed and what waits is asked for again, so that a controller that is restarted costs a waiting
caller only time. For how long one waits for a controller that is away, `absence` decides; there is room for as many as may wait
at the controller itself.
"""

import asyncio
import enum
import itertools
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, assert_never

import msgspec
import structlog

from controller import wire
from controller.errors import ProtocolError, Reason
from controller.gateway.absence import LIMIT_S, Absence
from controller.gateway.directory import Directory
from controller.gateway.problems import Fault, ProblemError, from_controller
from controller.units import format_seconds

WAITING_LIMIT: Final = 512
"""How many may wait for a controller that is away, where nobody says otherwise."""
CALL_TIMEOUT_S: Final = 10.0
"""How long a question that needs no loading may take."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5

Outcome = Literal["ok", "error", "cancelled"]
Priority = Literal["interactive", "batch"]

log = structlog.get_logger()


class Phase(enum.Enum):
    """Where a lease is in its life."""

    WAITING = "waiting"
    """Asked for, or about to be asked for when the controller is back."""
    GRANTED = "granted"
    """The worker may be used."""
    ENDED = "ended"
    """Given back, refused, or taken away."""


class Lease:
    """
    The right to use one worker, from the asking to the giving back.

    Enter it to wait for the grant; leaving gives it back if nothing did before.

    Attributes:
        granted: what was granted, once it is.
        progress: the last word of the controller while waiting.
        revoked: why it was taken away, if it was.
        on_revoked: called once when it is taken away.

    """

    __slots__ = (
        "_asked_at_s",
        "_grant",
        "_link",
        "_revocation",
        "_session",
        "_timer",
        "acquire",
        "granted",
        "on_revoked",
        "phase",
        "progress",
        "revoked",
    )

    def __init__(self, session: "Session", acquire: wire.Acquire) -> None:
        """Describe a lease that nobody has asked for yet."""
        self.acquire = acquire
        self.phase = Phase.WAITING
        self.granted: wire.Granted | None = None
        self.progress: wire.Queued | wire.Loading | None = None
        self.revoked: wire.Revoked | None = None
        self.on_revoked: Callable[[], None] | None = None
        self._session = session
        self._asked_at_s = 0.0
        self._grant: asyncio.Future[wire.Granted] | None = None
        self._revocation: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        """Its name on the wire."""
        return self.acquire.id

    def again(self) -> wire.Acquire:
        """Return what to ask a controller that knows nothing of it, with the time it has waited."""
        return msgspec.structs.replace(self.acquire, waited_s=asyncio.get_running_loop().time() - self._asked_at_s)

    def renewal(self, granted: wire.Granted) -> wire.Renew:
        """Return what to claim from a controller that knows nothing of it."""
        return wire.Renew(id=self.id, model=granted.model, run=granted.run, slot=granted.slot, talk=self.acquire.ask.talk)

    async def __aenter__(self) -> "Lease":
        """
        Wait for the grant.

        Raises:
            ProblemError: it was refused.

        """
        loop = asyncio.get_running_loop()
        self._asked_at_s = loop.time()
        self._grant = loop.create_future()
        try:
            self._session.register(self)
            await self._grant
        except BaseException as exc:
            self.release("cancelled" if isinstance(exc, asyncio.CancelledError) else "error")
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        if kind is None:
            self.release("ok")
        else:
            self.release("cancelled" if issubclass(kind, asyncio.CancelledError) else "error")

    def release(
        self,
        outcome: Outcome,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cached_tokens: int | None = None,
        first_token_s: float | None = None,
        total_s: float | None = None,
    ) -> None:
        """Give it back, or stop waiting for it, and report what it was used for. A second call does nothing."""
        if self.phase is Phase.ENDED:
            return
        self._end()
        self._session.forget(
            wire.Release(
                id=self.id,
                outcome=outcome,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cached_tokens=cached_tokens,
                first_token_s=first_token_s,
                total_s=total_s,
            )
        )

    async def cause(self, *, patience_s: float) -> str:
        """Return why the worker is gone, after waiting a moment for the controller to say so; empty if it does not."""
        if self.revoked is None and self.phase is Phase.GRANTED:
            self._revocation = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(patience_s):
                    await self._revocation
            except TimeoutError:
                return ""
        return self.revoked.cause if self.revoked else ""

    # What the session tells it.

    def wait_for_controller(self, absence: Absence) -> None:
        """Wait for a controller that is away, as long as there is patience; what is granted goes on without it."""
        if self.phase is Phase.WAITING:
            deadline_s = self.acquire.deadline_s
            ends_s = absence.patience_ends_s(asked_at_s=self._asked_at_s, deadline_s=deadline_s)
            problem = away() if ends_s == absence.until_s else away(deadline_s)
            self._timer = asyncio.get_running_loop().call_at(ends_s, self._patience_is_over, problem)

    def controller_is_back(self) -> None:
        """Wait without that limit again."""
        if self.phase is Phase.WAITING and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def grant(self, message: wire.Granted) -> None:
        """Take the grant; one that only confirms a renewal changes nothing."""
        if self.phase is not Phase.WAITING:
            return
        self.phase = Phase.GRANTED
        self.granted = message
        self._timer = asyncio.get_running_loop().call_later(message.limit_s, self._time_is_up)
        if self._grant is not None and not self._grant.done():
            self._grant.set_result(message)

    def refuse(self, problem: ProblemError) -> None:
        """Take the refusal; of a renewal, it means that the worker is gone."""
        if self.phase is Phase.WAITING:
            self._end()
            if self._grant is not None and not self._grant.done():
                self._grant.set_exception(problem)
        elif self.phase is Phase.GRANTED:
            self.revoke(wire.Revoked(id=self.id, cause="", message=str(problem)))

    def revoke(self, message: wire.Revoked) -> None:
        """Take note that the lease is over; its holder hears of it once."""
        if self.phase is not Phase.GRANTED:
            return
        self.revoked = message
        self._end()
        if self._revocation is not None and not self._revocation.done():
            self._revocation.set_result(None)
        if self.on_revoked is not None:
            self.on_revoked()

    def _time_is_up(self) -> None:
        limit_s = self.granted.limit_s if self.granted else 0.0
        text = f"the request was cut after {limit_s:g} s, as long as one may hold a worker (scheduler.request_limit_s)"
        release = wire.Release(id=self.id, outcome="error", total_s=limit_s)
        self.revoke(wire.Revoked(id=self.id, cause=Fault.TIME_LIMIT, message=text))
        self._session.forget(release)

    def _patience_is_over(self, problem: ProblemError) -> None:
        self.refuse(problem)
        self._session.forget(wire.Release(id=self.id, outcome="error"))

    def _end(self) -> None:
        self.phase = Phase.ENDED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Session:
    """
    The one connection to the controller.

    Attributes:
        directory: the last catalog; `None` until the first one came.
        version: the controller's version, once it said.

    """

    def __init__(self, socket: str, *, waiting_limit: int = WAITING_LIMIT, away_limit_s: float = LIMIT_S) -> None:
        """Describe a session; `run` makes it. While the controller is away, no more than *waiting_limit* callers wait."""
        self.directory: Directory | None = None
        self.version = ""
        self._socket = socket
        self._waiting_limit = waiting_limit
        self._away_limit_s = away_limit_s
        self._absence: Absence | None = Absence()
        self._link: _Link | None = None
        self._leases: dict[str, Lease] = {}
        self._calls: dict[str, asyncio.Future[object]] = {}
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._catalog_came = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the controller is there, and has said so."""
        return self._link is not None

    @property
    def absence(self) -> Absence | None:
        """Since when the controller is away, if it is."""
        return self._absence

    @property
    def held(self) -> int:
        """How many leases are held or waited for."""
        return len(self._leases)

    @property
    def waiting(self) -> int:
        """How many leases are waited for."""
        return sum(lease.phase is Phase.WAITING for lease in self._leases.values())

    async def run(self) -> None:
        """Stay connected, for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            link = _Link(self)
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda link=link: link, self._socket)  # type: ignore[misc]
            except OSError as exc:
                log.debug("controller.away", socket=self._socket, error=str(exc))
            else:
                try:
                    await link.lost
                finally:
                    link.close()
                if link.welcomed:
                    pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def catalog(self) -> Directory:
        """Wait for the first catalog."""
        while self.directory is None:
            await self._catalog_came.wait()
        return self.directory

    def known(self) -> Directory:
        """
        Return the catalog.

        Raises:
            ProblemError: no controller was ever there to tell.

        """
        if self.directory is None:
            raise away()
        return self.directory

    def lease(self, ask: wire.Ask, *, priority: Priority = "interactive", deadline_s: float | None = None) -> Lease:
        """Describe a lease to enter."""
        return Lease(
            self,
            wire.Acquire(
                id=f"{self._prefix}-{next(self._numbers)}",
                ask=ask,
                priority=priority,
                deadline_s=deadline_s,
            ),
        )

    async def call(self, verb: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S) -> object:
        """
        Ask the controller something.

        Raises:
            ProblemError: it cannot be done, or nobody is there to do it.

        """
        if self._link is None:
            raise away()
        call = wire.Call(id=f"{self._prefix}-{next(self._numbers)}", verb=verb, arguments=arguments or {})
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._calls[call.id] = answer
        try:
            self._link.send(call)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise ProblemError(Reason.UNAVAILABLE, f"the controller did not answer {verb} within {timeout_s:g} s") from None
        finally:
            self._calls.pop(call.id, None)

    # What a lease asks of it.

    def register(self, lease: Lease) -> None:
        """
        Ask for a lease now, or as soon as the controller is back.

        Raises:
            ProblemError: it is away for too long, or too many wait for it already.

        """
        if self._absence is not None:
            if self._absence.is_given_up(asyncio.get_running_loop().time()):
                raise away()
            if (waiting := self.waiting) >= self._waiting_limit:
                raise crowded(waiting, limit=self._waiting_limit)
            lease.wait_for_controller(self._absence)
        self._leases[lease.id] = lease
        if self._link is not None:
            self._link.send(lease.acquire)

    def forget(self, release: wire.Release) -> None:
        """Say that a lease is not needed any more, whether it was granted or not."""
        if self._leases.pop(release.id, None) is not None and self._link is not None:
            self._link.send(release)

    # What the link tells it.

    def welcome(self, link: "_Link", message: wire.Welcome) -> None:
        """Take the controller as there: renew what is held, ask again for what waits."""
        self._link = link
        self.version = message.version
        self._absence = None
        log.info("controller.connected", instance=message.instance, version=message.version, leases=len(self._leases))
        for lease in self._leases.values():
            lease.controller_is_back()
            if lease.granted is None:
                link.send(lease.again())
            else:
                link.send(lease.renewal(lease.granted))

    def lost(self, link: "_Link") -> None:
        """Take the controller as away; leases that were granted go on, for their streams do."""
        if self._link is not link:
            return
        self._link = None
        log.warning("controller.lost", leases=len(self._leases))
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(ProblemError(Reason.UNAVAILABLE, "the controller went away before it answered"))
        self._absence = Absence(since_s=asyncio.get_running_loop().time(), limit_s=self._away_limit_s)
        for lease in self._leases.values():
            lease.wait_for_controller(self._absence)

    def take(self, message: wire.Reply) -> None:
        """Hand one message to whom it is for."""
        match message:
            case wire.Granted() | wire.Queued() | wire.Loading() | wire.Refused() | wire.Revoked():
                if lease := self._leases.get(message.id):  # one given back meanwhile has nobody
                    self._tell(lease, message)
            case wire.Catalog():
                self.directory = Directory(message)
                self._catalog_came.set()
            case wire.Result():
                self._answer(message.id, message.body, None)
            case wire.Failed():
                self._answer(message.id, None, from_controller(message))
            case wire.Welcome():
                pass  # the link has handled it
            case _:
                assert_never(message)

    def _tell(self, lease: Lease, message: wire.Granted | wire.Queued | wire.Loading | wire.Refused | wire.Revoked) -> None:
        match message:
            case wire.Granted():
                lease.grant(message)
            case wire.Queued() | wire.Loading():
                lease.progress = message
            case wire.Refused():
                del self._leases[lease.id]
                lease.refuse(from_controller(message))
            case wire.Revoked():
                del self._leases[lease.id]
                lease.revoke(message)
            case _:
                assert_never(message)

    def _answer(self, call: str, body: object, problem: ProblemError | None) -> None:
        answer = self._calls.get(call)
        if answer is None or answer.done():
            return
        if problem is None:
            answer.set_result(body)
        else:
            answer.set_exception(problem)


def away(deadline_s: float | None = None) -> ProblemError:
    """Say that nobody decides at the moment, and that the caller waits no longer where it has said so."""
    if deadline_s is None:
        return ProblemError(Reason.UNAVAILABLE, "the controller is away or still starting; ask again in a few seconds")
    return ProblemError(Reason.TOO_LATE, f"the controller is away, and the caller waits {format_seconds(deadline_s)}")


def crowded(waiting: int, *, limit: int) -> ProblemError:
    """Say that as many wait for the controller as may wait at it."""
    text = f"the controller is away, {waiting} callers wait for it, and no more than {limit} may; ask again later"
    return ProblemError(Reason.QUEUE_FULL, text, details={"waiting": waiting, "queue_limit": limit})


class _Link(asyncio.Protocol):
    """One connection: bytes to messages and back."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self.welcomed = False
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's signature
        self._session.lost(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > wire.MAX_LINE_BYTES:
            log.error("controller.line_too_long", limit_bytes=wire.MAX_LINE_BYTES)
            self.close()
            return
        for line in lines:
            try:
                message = wire.decode_reply(line)
            except ProtocolError as exc:
                log.error("controller.unknown_message", error=str(exc))
                self.close()
                return
            if isinstance(message, wire.Welcome):
                self.welcomed = True
                self._session.welcome(self, message)
            else:
                self._session.take(message)

    def send(self, message: wire.Message) -> None:
        """Send soon: what many say in one turn of the loop costs one write, and a release goes after the answer it follows."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(wire.encode(message))

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
