"""Fields that ask for something, and bodies as each engine takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import engines
from controller.engines.base import untaken
from controller.gateway.fields import asked, asks, for_engine

EDGE = "tensorrt-edge-llm"


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 1), ("logprobs", None), ("logprobs", False), ("presence_penalty", 0.0), ("tools", []), ("whatever", None)],
)
def test_a_neutral_value_asks_for_nothing(name: str, value: object) -> None:
    """What a client sends without a thought keeps no engine from answering."""
    assert not asks(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("n", 2), ("logprobs", True), ("presence_penalty", 0.1), ("seed", 0), ("whatever", False), ("user", "")]
)
def test_another_value_asks_for_something(name: str, value: object) -> None:
    """And what changes the answer is not passed over."""
    assert asks(name, value)


def test_only_what_not_every_engine_takes_is_named() -> None:
    """The controller is told the fields by which engines differ."""
    assert ["logit_bias", "n"] == asked({"n": 2, "messages": [], "logit_bias": {"5": 1}, "stop": None}, beside={"messages"})


def test_an_engine_that_takes_any_field_gets_the_body_as_it_is() -> None:
    """Nothing is copied on the way to llama.cpp."""
    body = {"messages": [], "whatever": None}

    assert for_engine(body, "llama-cpp") is body
    assert for_engine(body, "an engine of a later version") is body


def test_an_engine_with_a_closed_list_gets_nothing_else() -> None:
    """Fields that it ignores or refuses, and null ones, are left out; at this point those refused are neutral."""
    body = {"model": "m", "messages": [], "user": "u", "n": 1, "seed": None, "temperature": 0.5, "presence_penalty": 0}

    assert {"model": "m", "messages": [], "temperature": 0.5} == for_engine(body, EDGE)


def test_what_an_engine_refuses_is_left_out_where_it_asks_for_nothing() -> None:
    """A worker that would stumble over the name alone does not see it."""
    assert {"messages": []} == for_engine({"messages": [], "logprobs": False, "tools": []}, "transformers")


NAMES = st.sampled_from(
    ["n", "user", "logprobs", "frequency_penalty", "top_k", "min_p", "invented", "seed", "audio", "logit_bias"]
)


@given(st.dictionaries(NAMES, st.sampled_from([None, 0, 1, False, True, {}, [], "x"])), st.sampled_from(sorted(engines.ENGINES)))
def test_nothing_that_asks_for_something_is_lost(body: dict[str, object], engine: str) -> None:
    """What is left out was ignored or neutral, or the request would not have been sent there."""
    known = engines.find(engine)
    refused = untaken(known, asked(body, beside=()))
    sent = for_engine(body, engine)

    for name, value in body.items():
        assert name in sent or name in known.ignored_fields or name in refused or not asks(name, value)
