"""OpenAI's own Python client, as strict as it can be, against real engines."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from bench.stack import Stack
from tests.system.conftest import GIANT, MODELS, NAME, VECTORS

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(world: Stack) -> Iterator[OpenAI]:
    """Return a client that validates every answer and never tries again by itself."""
    with OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0, timeout=120, _strict_response_validation=True) as made:
        yield made


@pytest.fixture
def easy_client(world: Stack) -> Iterator[OpenAI]:
    """
    Return a client that reads answers as callers' clients do.

    The strict one refuses two things that OpenAI's own service sends: the empty `finish_reason` of a text that streams, and
    embeddings in base64, which it asks for by default and validates before it decodes them.
    """
    with OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_the_models_are_listed_and_described(client: OpenAI) -> None:
    """Every registered model is in the list, and each can be asked for by its name."""
    listed = {model.id for model in client.models.list()}
    one = client.models.retrieve(NAME)

    assert set(MODELS) <= listed
    assert (NAME, "model") == (one.id, one.object)


def test_a_chat_comes_to_its_end(client: OpenAI) -> None:
    """A whole answer has text, a reason to stop, its model's name, and usage that adds up."""
    answer = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_tokens=200)

    assert answer.usage is not None
    assert (NAME, "stop", 1) == (answer.model, answer.choices[0].finish_reason, len(answer.choices))
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 0


def test_a_chat_is_cut_at_max_tokens(client: OpenAI) -> None:
    """An answer that reaches its limit says so, by either name of the limit."""
    older = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_tokens=3)
    newer = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_completion_tokens=3)

    assert older.usage is not None
    assert newer.usage is not None
    assert ["length", "length"] == [older.choices[0].finish_reason, newer.choices[0].finish_reason]
    assert (3, 3) == (older.usage.completion_tokens, newer.usage.completion_tokens)


def test_a_chat_as_a_stream_says_the_same(client: OpenAI) -> None:
    """Every chunk validates, the text is that of the whole answer, and usage comes last where it is asked for."""
    whole = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_tokens=200)
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=HELLO, temperature=0, max_tokens=200, stream=True, stream_options={"include_usage": True}
        )
    )

    said = [choice for chunk in chunks for choice in chunk.choices]
    assert whole.choices[0].message.content == "".join(choice.delta.content or "" for choice in said)
    assert ["stop"] == [choice.finish_reason for choice in said if choice.finish_reason]
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        chunks[-1].usage.prompt_tokens,
        chunks[-1].usage.completion_tokens,
    )


def test_a_stream_has_no_usage_unless_it_is_asked_for(client: OpenAI) -> None:
    """Clients that never heard of usage in streams see none."""
    chunks = list(client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_tokens=8, stream=True))

    assert [None] == list({chunk.usage for chunk in chunks})
    assert all(len(chunk.choices) == 1 for chunk in chunks)


def test_a_text_is_continued(client: OpenAI, easy_client: OpenAI) -> None:
    """The older path answers whole and as a stream, with the same text."""
    whole = client.completions.create(model=NAME, prompt="The captain", temperature=0, max_tokens=12)
    chunks = list(easy_client.completions.create(model=NAME, prompt="The captain", temperature=0, max_tokens=12, stream=True))

    assert whole.usage is not None
    assert ("length", 12) == (whole.choices[0].finish_reason, whole.usage.completion_tokens)
    assert whole.choices[0].text == "".join(choice.text for chunk in chunks for choice in chunk.choices)


def test_a_stop_word_ends_the_answer(client: OpenAI) -> None:
    """The answer ends before the word it was told to stop at."""
    whole = client.completions.create(model=NAME, prompt="The captain", temperature=0, max_tokens=24)
    words = whole.choices[0].text.split()
    cut = client.completions.create(model=NAME, prompt="The captain", temperature=0, max_tokens=24, stop=[words[2]])

    assert cut.choices[0].finish_reason == "stop"
    assert words[2] not in cut.choices[0].text
    assert whole.choices[0].text.startswith(cut.choices[0].text)


def test_texts_are_embedded(client: OpenAI, easy_client: OpenAI) -> None:
    """The safetensors checkpoint, run by transformers, embeds: equal texts alike and others not, in both encodings."""
    by_default = easy_client.embeddings.create(model=VECTORS, input=["a windlass", "the sea", "a windlass"])
    as_floats = client.embeddings.create(model=VECTORS, input="a windlass", encoding_format="float")

    first, other, again = (entry.embedding for entry in by_default.data)
    assert [0, 1, 2] == [entry.index for entry in by_default.data]
    assert len(first) == len(other) == len(again) > 1
    assert pytest.approx(first, abs=1e-4) == again
    assert pytest.approx(first, abs=1e-4) == as_floats.data[0].embedding
    assert first != other
    assert by_default.usage.total_tokens > 0


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """The error that callers catch for it names the model that was probably meant."""
    with pytest.raises(openai.NotFoundError, match=NAME) as chat:
        client.chat.completions.create(model="windlas-mini", messages=HELLO)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("windlas-mini")

    assert ("model_not_found", "model", "invalid_request_error") == (chat.value.code, chat.value.param, chat.value.type)


def test_bad_requests_are_told_by_class_and_code(client: OpenAI) -> None:
    """A value out of range, a prompt beyond the context, and a path the model does not serve are bad requests."""
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=-1)
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "word " * 5000}])
    with pytest.raises(openai.BadRequestError) as path:
        client.embeddings.create(model=NAME, input="a windlass")

    assert ("context_length_exceeded", "model_not_eligible") == (long.value.code, path.value.code)


def test_what_can_never_fit_is_unprocessable(client: OpenAI) -> None:
    """A model larger than the budget is refused with its class."""
    with pytest.raises(openai.UnprocessableEntityError, match=GIANT) as never:
        client.chat.completions.create(model=GIANT, messages=HELLO)

    assert never.value.code == "model_never_fits"


def test_a_body_beyond_the_limit_is_too_large(client: OpenAI) -> None:
    """Ten megabytes are refused with 413, and the next request is served."""
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x" * 10_000_000}])
    answer = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=4)

    assert (413, "request_too_large") == (large.value.status_code, large.value.code)
    assert answer.choices[0].message.content
