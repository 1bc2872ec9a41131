"""What callers may send."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.problems import ProblemError
from controller.gateway.schemas import (
    BatchBody,
    Body,
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    InferenceBody,
    LoadBody,
    UnloadBody,
    check,
    parse_object,
)

MESSAGES = [{"role": "user", "content": "x"}]
ALL = [ChatBody, CompletionBody, EmbeddingBody, InferenceBody, BatchBody, LoadBody, UnloadBody]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def complaint_of(act: Callable[[], object]) -> ProblemError | None:
    """Return the complaint that *act* raises, if it does; anything else it raises fails the test."""
    try:
        act()
    except ProblemError as exc:
        return exc
    return None


@pytest.mark.parametrize(
    ("model", "value", "param", "text"),
    [
        (ChatBody, {}, "messages", "messages: field required"),
        (ChatBody, {"messages": [{"role": "user", "content": {}}]}, "messages.0.content", "an object with 0 keys"),
        (ChatBody, {"messages": MESSAGES, "stop": [5]}, "stop.0", "got the number 5"),
        (CompletionBody, {"prompt": ["a", 5]}, "prompt.1", "valid string, got the number 5"),
        (CompletionBody, {"prompt": [1, -2]}, "prompt.1", "greater than or equal to 0"),
        (CompletionBody, {"prompt": []}, "prompt", "at least 1 item"),
        (EmbeddingBody, {"input": ""}, "input", "at least 1 character"),
        (EmbeddingBody, {"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        (LoadBody, {"model_name": None, "wait": 1}, "wait", "got the number 1"),
    ],
)
def test_the_complaint_names_the_field_and_what_came(model: type[Body], value: dict[str, Any], param: str, text: str) -> None:
    """It goes as deep as the mistake is, whichever type of several was meant."""
    with pytest.raises(ProblemError) as wrong:
        check(model, value)

    assert wrong.value.problem.param == param
    assert text in str(wrong.value)


@pytest.mark.parametrize(
    "extra",
    [
        {"temperature": 1},
        {"temperature": None, "max_tokens": None},
        {"stop": ["a"], "logit_bias": {"5": -100}, "seed": 7},
        {"stop": "a", "logit_bias": [[5, False]], "top_k": 40, "grammar": "root ::= x"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "tool_call_id": "1"},
            ]
        },
    ],
)
def test_what_clients_send_is_accepted(extra: dict[str, Any]) -> None:
    """Numbers of either kind, nulls, both forms of a field, and fields we do not know."""
    check(ChatBody, {"model": "m", "messages": MESSAGES, **extra})


@given(st.sampled_from(ALL), st.dictionaries(st.sampled_from(sorted({f for m in ALL for f in m.model_fields})), JSON, max_size=5))
def test_no_body_makes_anything_but_a_complaint(model: type[Body], value: dict[str, Any]) -> None:
    """Any JSON is accepted or refused in words; nothing else is ever raised."""
    complaint = complaint_of(lambda: check(model, value))

    assert complaint is None or (complaint.problem.shape.status, str(complaint).isprintable()) == (400, True)


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_complaint(data: bytes) -> None:
    """The same for what is no JSON at all."""
    complaint = complaint_of(lambda: parse_object(data))

    assert complaint is None or complaint.problem.shape.code == "invalid_json"
