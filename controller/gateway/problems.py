"""
What a caller is told when something is wrong: the one table from reasons to HTTP.

Every path answers errors in the form OpenAI's clients know, `{"error": {"message", "type", "param", "code"}}`, with `details`
inside where there are numbers. No other file holds the status of an error.
"""

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from controller.errors import Reason, WindlassError
from controller.state import ExitCause
from controller.wire import Failed, Refused


class Fault(enum.StrEnum):
    """What is wrong with a request that only the HTTP side can see; the controller's reasons are in `errors.Reason`."""

    BAD_REQUEST = "bad_request"
    """It is not HTTP as we read it."""
    BAD_JSON = "bad_json"
    """The body is not one JSON object."""
    BAD_FIELD = "bad_field"
    """A field is missing, of the wrong type or out of range."""
    TOO_LONG = "too_long"
    """The prompt, or prompt and answer, exceed the model's context."""
    NO_KEY = "no_key"
    """This caller needs an API key and sent none."""
    WRONG_KEY = "wrong_key"
    """The API key is none of ours."""
    NO_SCOPE = "no_scope"
    """The API key may not do this."""
    FOREIGN_PAGE = "foreign_page"
    """A web page of another origin, or under another host's name, calls without a key."""
    NO_PATH = "no_path"
    """There is nothing at this path."""
    NO_METHOD = "no_method"
    """The path exists, the method does not."""
    SLOW_BODY = "slow_body"
    """The body did not arrive in time."""
    LARGE_BODY = "large_body"
    """The body is larger than `gateway.max_body`."""
    LARGE_HEAD = "large_head"
    """The request head is larger than `gateway.max_header`."""
    TOO_OFTEN = "too_often"
    """The rate limit of this key is used up."""
    TIME_LIMIT = "time_limit"
    """The request held its worker for as long as a request may."""
    OUT_OF_MEMORY = "out_of_memory"
    """The worker was killed by the kernel at its own memory limit."""
    WORKER_ERROR = "worker_error"
    """The worker answered, with an error of its own."""
    STOPPING = "stopping"
    """The gateway is being stopped."""
    BUG = "bug"
    """Something nobody foresaw; it is in the gateway's log under the request's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one kind of problem looks over HTTP; `retry_s` is what `Retry-After` says if nobody knows better."""

    status: int
    type: str
    code: str
    retry_s: float | None = None


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"

SHAPES: Final[Mapping[Reason | Fault, Shape]] = {
    Reason.MALFORMED: Shape(status=400, type=_INVALID, code="invalid_value"),
    Reason.UNKNOWN_MODEL: Shape(status=404, type=_INVALID, code="model_not_found"),
    Reason.NOT_ELIGIBLE: Shape(status=400, type=_INVALID, code="model_not_eligible"),
    Reason.CONFLICT: Shape(status=409, type="conflict_error", code="conflict"),
    Reason.NEVER_FITS: Shape(status=422, type=_INVALID, code="model_never_fits"),
    Reason.MEMORY_SHORT: Shape(status=503, type=_SERVER, code="memory_short", retry_s=10.0),
    Reason.QUEUE_FULL: Shape(status=429, type="rate_limit_error", code="queue_full", retry_s=5.0),
    Reason.TOO_LATE: Shape(status=503, type=_SERVER, code="deadline_not_reachable", retry_s=5.0),
    Reason.WORKER_FAILED: Shape(status=502, type=_SERVER, code="worker_failed", retry_s=2.0),
    Reason.UNAVAILABLE: Shape(status=503, type=_SERVER, code="unavailable", retry_s=5.0),
    Fault.BAD_REQUEST: Shape(status=400, type=_INVALID, code="bad_request"),
    Fault.BAD_JSON: Shape(status=400, type=_INVALID, code="invalid_json"),
    Fault.BAD_FIELD: Shape(status=400, type=_INVALID, code="invalid_value"),
    Fault.TOO_LONG: Shape(status=400, type=_INVALID, code="context_length_exceeded"),
    Fault.NO_KEY: Shape(status=401, type=_INVALID, code="missing_api_key"),
    Fault.WRONG_KEY: Shape(status=401, type=_INVALID, code="invalid_api_key"),
    Fault.NO_SCOPE: Shape(status=403, type="permission_error", code="insufficient_scope"),
    Fault.FOREIGN_PAGE: Shape(status=403, type="permission_error", code="foreign_origin"),
    Fault.NO_PATH: Shape(status=404, type=_INVALID, code="unknown_url"),
    Fault.NO_METHOD: Shape(status=405, type=_INVALID, code="method_not_allowed"),
    Fault.SLOW_BODY: Shape(status=408, type=_INVALID, code="request_timeout"),
    Fault.LARGE_BODY: Shape(status=413, type=_INVALID, code="request_too_large"),
    Fault.LARGE_HEAD: Shape(status=431, type=_INVALID, code="header_too_large"),
    Fault.TOO_OFTEN: Shape(status=429, type="rate_limit_error", code="rate_limit_exceeded", retry_s=1.0),
    Fault.TIME_LIMIT: Shape(status=504, type=_SERVER, code="time_limit_exceeded"),
    Fault.OUT_OF_MEMORY: Shape(status=502, type=_SERVER, code="worker_out_of_memory", retry_s=2.0),
    Fault.WORKER_ERROR: Shape(status=502, type=_SERVER, code="worker_error"),
    Fault.STOPPING: Shape(status=503, type=_SERVER, code="stopping", retry_s=2.0),
    Fault.BUG: Shape(status=500, type=_SERVER, code="internal_error"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, ready to be told."""

    shape: Shape
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> dict[str, Any]:
        """Return the envelope."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.shape.type,
            "param": self.param,
            "code": self.shape.code,
        }
        if self.details:
            error["details"] = dict(self.details)
        return {"error": error}

    def body_bytes(self) -> bytes:
        """Return the envelope as JSON."""
        return orjson.dumps(self.body(), default=str)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with it; whole seconds, rounded up, in `retry-after`."""
        headers = list(self.headers)
        wait_s = self.retry_after_s if self.retry_after_s is not None else self.shape.retry_s
        if wait_s is not None:
            headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
        return headers


class ProblemError(WindlassError):
    """A request ends with a problem that its caller is told."""

    def __init__(
        self,
        kind: Reason | Fault,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, Any] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        shape: Shape | None = None,
    ) -> None:
        """Look the kind up in the table, once; *shape* overrides it for an answer passed on from elsewhere."""
        super().__init__(message)
        self.kind = kind
        self.problem = Problem(
            shape=shape or SHAPES[kind],
            message=message,
            param=param,
            retry_after_s=retry_after_s,
            details=details or {},
            headers=headers,
        )


def from_controller(message: Refused | Failed) -> ProblemError:
    """Turn the controller's refusal into what the caller is told."""
    return ProblemError(
        message.reason,
        message.message,
        retry_after_s=message.retry_after_s,
        details=message.details,
        param=_param(message.reason),
    )


def from_exit(cause: str, message: str, *, model: str) -> ProblemError:
    """Say why a worker that was answering does not any more; *cause* is an `ExitCause`, `time_limit`, `memory_short` or empty."""
    details = {"model": model, "cause": cause or "unknown"}
    if cause == ExitCause.OUT_OF_GPU_MEMORY:
        return ProblemError(
            Fault.OUT_OF_MEMORY, message or f"the worker of {model} got no more memory of the GPU", details=details
        )
    if cause == ExitCause.OUT_OF_MEMORY:
        text = message or f"the worker of {model} ran out of its memory limit and was killed; a larger `memory` may help"
        return ProblemError(Fault.OUT_OF_MEMORY, text, details=details)
    if cause == Reason.MEMORY_SHORT:
        text = message or f"the worker of {model} was ended, as other programs take the memory of this box"
        return ProblemError(Reason.MEMORY_SHORT, text, details=details)
    if cause == Fault.TIME_LIMIT:
        return ProblemError(Fault.TIME_LIMIT, message or f"the request held {model} for as long as one may", details=details)
    return ProblemError(Reason.WORKER_FAILED, message or f"the worker of {model} ended before its answer did", details=details)


_WORKER_RETRY_S: Final = 1.0
_TOO_LONG: Final = ("exceed_context", "context size", "EDGELLM_INPUT_TOO_LONG")
"""How servers say that a prompt is longer than the context."""
_CALLERS_FAULT: Final = re.compile(r"\[json\.exception|failed to parse|invalid[ _]request|(?:is not |un)supported", re.IGNORECASE)


def from_worker(status: int, body: bytes, *, model: str) -> ProblemError:
    """
    Turn a worker's error answer into ours.

    What the worker blames on the caller keeps its status; what it blames on itself is a bad gateway. A server that answers 500 to
    a field of the wrong type is corrected.
    """
    said = _said(body)
    message = str(said.get("message") or body[:300].decode(errors="replace") or f"the worker of {model} answered {status}")
    kind = str(said.get("type") or "")
    if "context_length" in kind or any(word in f"{kind} {message}" for word in _TOO_LONG):
        numbers = {k: v for k, v in said.items() if isinstance(v, int) and k != "code"}
        return ProblemError(Fault.TOO_LONG, message, param="messages", details=numbers)
    if status == 429:
        # The worker's own queue: its controller sends no more than it can take, so this passes.
        text = f"the worker of {model} has too much to do: {message}"
        return ProblemError(Reason.UNAVAILABLE, text, retry_after_s=_WORKER_RETRY_S, details={"model": model})
    if status == 404:
        # Its model is there, or it would not have been asked: the worker was started for another one, or lacks the path.
        return ProblemError(Fault.WORKER_ERROR, message, details={"model": model, "worker_status": status})
    if 400 <= status < 500 and status not in (401, 403):
        code = said.get("code")
        shape = Shape(status=status, type=_INVALID, code=code if isinstance(code, str) else "invalid_value")
        param = said.get("param")
        return ProblemError(Fault.WORKER_ERROR, message, shape=shape, param=param if isinstance(param, str) else None)
    if _CALLERS_FAULT.search(message) or kind == "invalid_request_error":
        return ProblemError(Fault.BAD_FIELD, message)
    return ProblemError(Fault.WORKER_ERROR, message, details={"model": model, "worker_status": status})


def _said(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error", parsed.get("detail", parsed))
    return error if isinstance(error, dict) else {"message": str(error)}


def _param(reason: Reason) -> str | None:
    return "model" if reason in (Reason.UNKNOWN_MODEL, Reason.NOT_ELIGIBLE, Reason.NEVER_FITS) else None
