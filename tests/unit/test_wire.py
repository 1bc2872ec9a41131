"""The messages between gateway and controller: what is written is what is read."""

import types
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import wire
from controller.errors import ProtocolError

REQUESTS = get_args(wire.Request)
REPLIES = get_args(wire.Reply)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8), lambda leaf: st.lists(leaf, max_size=3)
)


def messages(kinds: Sequence[type[wire.Part]]) -> st.SearchStrategy[Any]:
    """Make any message of these kinds, with every field drawn."""
    return st.one_of(
        [st.builds(kind, **{field.name: of_type(field.type) for field in msgspec.structs.fields(kind)}) for kind in kinds]
    )


def of_type(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - a type in any form an annotation may have
    """Return a strategy for a field's type. Figures are finite: JSON has no others."""
    plain = {
        str: st.text(max_size=12),
        int: st.integers(0, 2**53),
        float: st.floats(0, 1e9),
        Any: json_values,
        type(None): st.none(),
    }
    inner = get_args(kind)
    match get_origin(kind):
        case types.UnionType:
            return st.one_of([of_type(part) for part in inner])
        case origin if origin is tuple:
            repeated = inner[-1] is ...
            return st.lists(of_type(inner[0]), max_size=2).map(tuple) if repeated else st.tuples(*map(of_type, inner))
        case origin if origin is dict:
            return st.dictionaries(of_type(inner[0]), of_type(inner[1]), max_size=2)
        case None if kind in plain:
            return plain[kind]
        case None if issubclass(kind, wire.Part):
            return messages([kind])
        case _:
            return st.from_type(kind)


@given(messages(REQUESTS))
def test_a_request_survives_the_wire(message: wire.Message) -> None:
    """One line out, the same message in."""
    line = wire.encode(message)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert wire.decode_request(line) == message


@given(messages(REPLIES))
def test_a_reply_survives_the_wire(message: wire.Message) -> None:
    """One line out, the same message in."""
    line = wire.encode(message)

    assert line.count(b"\n") == 1
    assert wire.decode_reply(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b'{"type": "acquire"}',
        b'{"type": "nothing"}',
        b'{"type": "release", "id": 7}',
        b'{"type": "release", "id": "a", "more": 1}',
        b'{"type": "release", "id": "a", "outcome": "lost"}',
        b'{"type": "acquire", "id": "a", "ask": {"mode": "guess", "api_path": "/"}}',
        b"\xff\xfe",
        b'{"type": "release"',
        b"[" * 10_000,
    ],
)
def test_what_is_no_message_is_a_protocol_error(line: bytes) -> None:
    """Whatever comes in: an error of ours, with the beginning of what came."""
    with pytest.raises(ProtocolError, match="wanted acquire, renew, release or call, got"):
        wire.decode_request(line)
    with pytest.raises(ProtocolError, match="wanted an answer of the controller, got"):
        wire.decode_reply(line)


@given(st.binary(max_size=64))
def test_noise_is_never_anything_but_a_protocol_error(line: bytes) -> None:
    """Random bytes do not get past the decoder as another exception."""
    with pytest.raises(ProtocolError):
        wire.decode_request(line)


def test_requests_are_no_replies() -> None:
    """A gateway that talks to a gateway is noticed."""
    with pytest.raises(ProtocolError):
        wire.decode_reply(wire.encode(wire.Release(id="a")))
    with pytest.raises(ProtocolError):
        wire.decode_request(wire.encode(wire.Welcome(version="1", instance="x")))


def test_every_message_names_its_type() -> None:
    """The discriminator is the class's name in lower case, and no two are the same."""
    kinds = (*REQUESTS, *REPLIES)
    names = [kind.__struct_config__.tag for kind in kinds]

    assert names == [kind.__name__.lower() for kind in kinds]
    assert len(set(names)) == len(names)


def test_a_message_cannot_be_changed() -> None:
    """Messages are values."""
    with pytest.raises(AttributeError):
        wire.Release(id="a").id = "b"  # type: ignore[misc]
