"""A request's body as it comes in: whole, too large, too slow, or not at all."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from controller.gateway.inbound import BODY_TIMEOUT_S, HangUpError, Inbound
from controller.gateway.problems import Fault, ProblemError

Message = MutableMapping[str, Any]


def part(data: bytes, *, more: bool) -> Message:
    """Return a piece of a body as the server hands it on."""
    return {"type": "http.request", "body": data, "more_body": more}


def inbound(*messages: Message, every_s: float = 0.0, length: int | None = None) -> Inbound:
    """Return a request whose body comes in these pieces, one each so many seconds; after the last one nothing comes any more."""
    left = list(messages)

    async def receive() -> Message:
        await asyncio.sleep(every_s)
        return left.pop(0) if left else await asyncio.Future()

    async def send(_: Message) -> None:
        raise AssertionError("reading a body answers nothing")

    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return Inbound({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)


@pytest.mark.parametrize("pieces", [[b"whole"], [b"wh", b"", b"ole"], [b""]])
async def test_a_body_is_what_its_pieces_are_together(pieces: list[bytes]) -> None:
    """One piece or many, up to the limit."""
    messages = [part(piece, more=index + 1 < len(pieces)) for index, piece in enumerate(pieces)]

    assert b"".join(pieces) == await inbound(*messages).body(limit_bytes=5)


@pytest.mark.parametrize(
    ("messages", "every_s", "got"),
    [
        ([], 0.0, 0),
        ([part(b"abc", more=True)], 0.0, 3),
        ([part(b"a", more=True) for _ in range(100)], 9.0, 6),
    ],
    ids=["never begins", "stops", "trickles"],
)
@pytest.mark.looptime(noop_cycles=1)
async def test_a_body_that_is_not_there_in_time_is_refused(messages: list[Message], every_s: float, got: int) -> None:
    """The whole of it has one deadline from the start on: a caller that announces a body and sends none meets it, too."""
    with pytest.raises(ProblemError, match=f"within 60 s, got {got} bytes") as caught:
        await inbound(*messages, every_s=every_s, length=10).body(limit_bytes=1000)

    assert Fault.SLOW_BODY is caught.value.kind
    assert (b"connection", b"close") in caught.value.problem.headers
    assert BODY_TIMEOUT_S == asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    "request_",
    [
        inbound(part(b"abcdef", more=False)),
        inbound(part(b"abc", more=True), part(b"def", more=True), part(b"ghi", more=False)),
        inbound(part(b"abcdef", more=False), length=6),
    ],
    ids=["one piece", "many pieces", "announced"],
)
async def test_a_body_beyond_the_limit_is_refused(request_: Inbound) -> None:
    """However it comes; the rest of it is read, since a client that still sends does not read the refusal."""
    with pytest.raises(ProblemError, match="at most 5 bytes") as caught:
        await request_.body(limit_bytes=5)

    assert Fault.LARGE_BODY is caught.value.kind


async def test_a_caller_that_leaves_in_the_middle_of_its_body_has_hung_up() -> None:
    """That is told apart from a body that is late."""
    with pytest.raises(HangUpError):
        await inbound(part(b"abc", more=True), {"type": "http.disconnect"}).body(limit_bytes=5)
