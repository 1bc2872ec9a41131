"""Callers of a controller that goes away, on a clock of their own."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from controller import wire
from controller.errors import Reason
from controller.gateway.absence import ALARM_S, LIMIT_S
from controller.gateway.desk import Desk
from controller.gateway.lease import Lease, Session, _Link
from controller.gateway.native import _health
from controller.gateway.problems import ProblemError

pytestmark = pytest.mark.looptime(noop_cycles=1)
ROOM = 3


class Wire(asyncio.Transport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[wire.Message] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take whole lines, as they are written."""
        self.sent += [wire.decode_request(line) for line in bytes(data).splitlines()]

    def is_closing(self) -> bool:
        """Stay open."""
        return False


class Controller:
    """The other end of a session: there, away, and there again."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._link: _Link | None = None
        self.wire = Wire()

    def comes(self) -> None:
        """Welcome the session on a new connection."""
        self.wire = Wire()
        self._link = _Link(self.session)
        self._link.connection_made(self.wire)
        self._link.data_received(wire.encode(wire.Welcome(version="0", instance="0")))

    def goes(self) -> None:
        """End the connection."""
        assert self._link is not None
        self._link.connection_lost(None)

    def grants(self, lease: wire.Acquire) -> None:
        """Grant what was asked for."""
        assert self._link is not None
        granted = wire.Granted(id=lease.id, model="mini", run="run-1", socket="/s", waited_s=0.0, bound_s=9.0, limit_s=60.0)
        self._link.data_received(wire.encode(granted))

    @property
    def asked(self) -> list[wire.Acquire]:
        """What the present connection was asked for."""
        return [message for message in self.wire.sent if isinstance(message, wire.Acquire)]


ASK = wire.Ask(mode="manual", model="mini", api_path="/v1/chat/completions")


async def ask(session: Session, *, deadline_s: float | None = None) -> Lease:
    """Wait for a lease, and give it back."""
    async with session.lease(ASK, deadline_s=deadline_s) as lease:
        return lease


def refusal(asked: "asyncio.Task[Lease]") -> Reason:
    """Return why it was refused."""
    problem = asked.exception()
    assert isinstance(problem, ProblemError), problem
    return cast("Reason", problem.kind)


def gone() -> Controller:
    """Return a controller that was there and has just gone; not a fixture, whose clock would be another."""
    made = Controller(Session("/nonexistent", waiting_limit=ROOM))
    made.comes()
    made.goes()
    return made


async def test_callers_wait_for_a_slow_start() -> None:
    """Long after the alarm, who came before and who came meanwhile is asked for again, with the time it has waited."""
    controller = gone()
    session = controller.session
    early = asyncio.create_task(ask(session))
    await asyncio.sleep(LIMIT_S / 2)
    late = asyncio.create_task(ask(session))
    await asyncio.sleep(LIMIT_S / 2 - 1)
    assert not early.done()
    controller.comes()
    await asyncio.sleep(2 * LIMIT_S)  # at the controller they wait as long as they have to
    for lease in controller.asked:
        controller.grants(lease)
    await asyncio.gather(early, late)

    assert [LIMIT_S - 1, LIMIT_S / 2 - 1] == [lease.waited_s for lease in controller.asked]
    assert 0 == session.held


async def test_callers_do_not_wait_for_ever() -> None:
    """After the limit those who wait are sent away, and whoever comes later at once, until it is back."""
    controller = gone()
    session = controller.session
    waiting = asyncio.create_task(ask(session))
    await asyncio.wait([waiting])
    took_s = asyncio.get_running_loop().time()
    later = asyncio.create_task(ask(session))
    await asyncio.wait([later])

    assert LIMIT_S == took_s == asyncio.get_running_loop().time()
    assert [Reason.UNAVAILABLE] * 2 == [refusal(waiting), refusal(later)]
    assert 0 == session.held
    controller.comes()
    back = asyncio.create_task(ask(session))
    await asyncio.sleep(0.1)
    assert 1 == len(controller.asked)
    back.cancel()


async def test_a_caller_waits_no_longer_than_it_has_said() -> None:
    """Its own deadline counts from its asking, and it hears that it was this."""
    waiting = asyncio.create_task(ask(gone().session, deadline_s=30.0))
    await asyncio.wait([waiting])

    assert 30.0 == asyncio.get_running_loop().time()
    assert Reason.TOO_LATE == refusal(waiting)


async def test_who_waits_at_the_controller_waits_on_when_it_goes() -> None:
    """The limit begins when it is lost, each time anew; a deadline does not."""
    controller = gone()
    session = controller.session
    controller.comes()
    patient, hasty = asyncio.create_task(ask(session)), asyncio.create_task(ask(session, deadline_s=150.0))
    await asyncio.sleep(100)
    controller.goes()
    await asyncio.sleep(40)
    controller.comes()
    await asyncio.sleep(0)
    controller.goes()
    await asyncio.wait([hasty])
    assert 150.0 == asyncio.get_running_loop().time()
    await asyncio.wait([patient])

    assert 140.0 + LIMIT_S == asyncio.get_running_loop().time()
    assert [Reason.TOO_LATE, Reason.UNAVAILABLE] == [refusal(hasty), refusal(patient)]


async def test_no_more_wait_than_there_is_room_for() -> None:
    """A caller too many is told so; who hangs up makes room."""
    controller = gone()
    session = controller.session
    first, *others = [asyncio.create_task(ask(session)) for _ in range(ROOM)]
    await asyncio.sleep(1)
    surplus = asyncio.create_task(ask(session))
    await asyncio.wait([surplus])
    first.cancel()
    await asyncio.wait([first])
    next_one = asyncio.create_task(ask(session))
    await asyncio.sleep(1)

    assert Reason.QUEUE_FULL == refusal(surplus)
    assert ROOM == session.waiting
    for one in (*others, next_one):
        one.cancel()


async def test_what_is_held_is_no_business_of_the_limits() -> None:
    """An answer under way goes on without the controller and takes no waiting caller's room."""
    controller = gone()
    session = controller.session
    controller.comes()
    held = session.lease(ASK)
    entering = asyncio.create_task(held.__aenter__())
    await asyncio.sleep(0.1)
    controller.grants(controller.asked[0])
    await entering
    controller.goes()
    waiting = [asyncio.create_task(ask(session)) for _ in range(ROOM)]
    await asyncio.sleep(1)

    assert (ROOM, ROOM + 1) == (session.waiting, session.held)
    assert held.revoked is None
    held.release("ok")
    for one in waiting:
        one.cancel()


async def test_health_fails_while_callers_still_wait() -> None:
    """People hear of a slow start before anybody is sent away."""
    controller = gone()
    desk = cast("Desk", SimpleNamespace(session=controller.session))
    waiting = asyncio.create_task(ask(controller.session))
    await asyncio.sleep(ALARM_S - 1)
    before, _ = await _health(desk)
    await asyncio.sleep(1)
    after, _ = await _health(desk)

    assert ("degraded", "failing") == (before, after)
    assert not waiting.done()
    controller.comes()
    assert controller.session.absence is None
    waiting.cancel()
