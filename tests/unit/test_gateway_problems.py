"""The one table from reasons to HTTP."""

import json

import pytest

from controller.errors import Reason
from controller.gateway.problems import SHAPES, Fault, ProblemError, from_controller, from_exit, from_worker
from controller.wire import Refused


@pytest.mark.parametrize("kind", [*Reason, *Fault])
def test_every_reason_has_an_answer(kind: Reason | Fault) -> None:
    """Nothing that can be raised lacks a status, a type and a code."""
    shape = SHAPES[kind]

    assert 400 <= shape.status < 600
    assert shape.type
    assert shape.code


def test_codes_tell_kinds_apart() -> None:
    """No two kinds share a code but those that mean a wrong value."""
    codes = [shape.code for shape in SHAPES.values()]

    assert {code for code in codes if codes.count(code) > 1} == {"invalid_value"}


def test_whoever_may_come_back_is_told_when() -> None:
    """429 and 503 always carry `retry-after`, in whole seconds and never 0."""
    for kind, shape in SHAPES.items():
        if shape.status in (429, 503):
            assert dict(ProblemError(kind, "x").problem.all_headers())[b"retry-after"].isdigit()
    assert dict(ProblemError(Reason.UNAVAILABLE, "x", retry_after_s=0.01).problem.all_headers())[b"retry-after"] == b"1"
    assert dict(ProblemError(Reason.UNAVAILABLE, "x", retry_after_s=2.1).problem.all_headers())[b"retry-after"] == b"3"


def test_the_envelope_is_openais() -> None:
    """Four keys always, and the numbers where there are some."""
    error = json.loads(ProblemError(Fault.BAD_FIELD, "no", param="n").problem.body_bytes())
    with_numbers = json.loads(ProblemError(Reason.NEVER_FITS, "no", details={"bytes": 5}).problem.body_bytes())

    assert error == {"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}}
    assert with_numbers["error"]["details"] == {"bytes": 5}


def test_a_refusal_about_the_model_names_that_field() -> None:
    """Clients show which parameter was wrong."""
    problem = from_controller(Refused(id="1", reason=Reason.UNKNOWN_MODEL, message="no such")).problem

    assert (problem.param, problem.shape.status) == ("model", 404)


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        ("out_of_memory", 502, "worker_out_of_memory"),
        ("time_limit", 504, "time_limit_exceeded"),
        ("crashed", 502, "worker_failed"),
        ("", 502, "worker_failed"),
    ],
)
def test_ends_of_workers_are_told_apart(cause: str, status: int, code: str) -> None:
    """Out of memory is no crash, and a time limit neither."""
    problem = from_exit(cause, "", model="m").problem

    assert (problem.shape.status, problem.shape.code) == (status, code)
    assert "m" in problem.message


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b'{"error": 5}', b'{"error": {"message": null}}', b"\xff" * 9])
@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_worker_may_say_anything(status: int, body: bytes) -> None:
    """Whatever its error looks like, the caller gets an envelope with a text."""
    problem = from_worker(status, body, model="m").problem

    assert problem.message
    assert problem.shape.status in (status, 502)


def _edge(status: int, message: str, kind: str = "invalid_request_error") -> ProblemError:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return from_worker(status, json.dumps(body).encode(), model="m")


def test_a_prompt_too_long_is_one_error_whatever_the_engine() -> None:
    """TensorRT Edge-LLM's 413 with its own word for it becomes what OpenAI's clients know; a body too large stays one."""
    long, large = _edge(413, "EDGELLM_INPUT_TOO_LONG: 3000 tokens"), _edge(413, "request body exceeds the supported maximum")

    assert (400, "context_length_exceeded") == (long.problem.shape.status, long.problem.shape.code)
    assert 413 == large.problem.shape.status


def test_a_workers_own_queue_being_full_passes() -> None:
    """The caller is told to come back, and when."""
    problem = _edge(429, "server request queue is full", "server_overloaded").problem

    assert (503, (b"retry-after", b"1")) == (problem.shape.status, problem.all_headers()[-1])


def test_a_worker_that_does_not_know_its_model_is_our_fault() -> None:
    """The caller's model is there: it must not look as if it were not."""
    assert 502 == _edge(404, "model 'x' is not served by this process", "not_found_error").problem.shape.status
