"""One question to the controller over its own socket: what the gateway must not be able to answer, such as making API keys."""

import socket
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from controller import wire
from controller.errors import AnswerError, ProtocolError, UnreachableError

PATIENCE_S: Final = 10.0

_CALL_ID: Final = "cli"


def call(socket_path: PurePosixPath, verb: str, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401
    """
    Ask the controller at *socket_path* and return the body of its result.

    Raises:
        UnreachableError: nobody answers there, or we may not ask.
        AnswerError: the controller refused or failed.

    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(socket_path))
            connection.sendall(wire.encode(wire.Call(id=_CALL_ID, verb=verb, arguments=dict(arguments))))
            with connection.makefile("rb") as lines:
                return _result(lines.readline, socket_path)
    except PermissionError as exc:
        raise UnreachableError(f"no permission to use {socket_path}; run this with sudo, or as a member of its group") from exc
    except OSError as exc:
        raise UnreachableError(
            f"no controller answers at {socket_path} ({exc.strerror or exc}); start it with `make run`, or set WINDLASS_RUN"
        ) from exc


def _result(readline: Callable[[int], bytes], socket_path: PurePosixPath) -> Any:  # noqa: ANN401
    while line := readline(wire.MAX_LINE_BYTES):
        try:
            reply = wire.decode_reply(line)
        except ProtocolError as exc:
            raise AnswerError(f"{socket_path} speaks another version of the protocol: {exc}", code=None, refused=False) from exc
        match reply:
            case wire.Result(id=answered, body=body) if answered == _CALL_ID:
                return body
            case wire.Failed(id=answered, message=message, reason=reason) if answered == _CALL_ID:
                raise AnswerError(message, code=reason, refused=True)
            case _:
                continue  # the welcome and the catalog come unasked
    raise UnreachableError(f"the controller at {socket_path} hung up without an answer; see its log")
