"""OpenAI's own Python client, as strict as it can be, against the gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from tests.gateway.conftest import World, running

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    """Return a client that validates every answer and never tries again."""
    base = f"http://127.0.0.1:{world.port}/v1"
    async with AsyncOpenAI(base_url=base, api_key="none-needed", max_retries=0, _strict_response_validation=True) as made:
        yield made


async def test_models(client: AsyncOpenAI) -> None:
    """List and entry validate."""
    listed = [model.id async for model in client.models.list()]
    one = await client.models.retrieve("mini")

    assert listed == ["mini", "large", "vectors"]
    assert (one.id, one.owned_by) == ("mini", "windlass")


async def test_a_chat(client: AsyncOpenAI) -> None:
    """A whole answer validates, with usage and finish reason."""
    answer = await client.chat.completions.create(model="mini", messages=HI, max_tokens=8, temperature=0)

    assert answer.choices[0].message.content == "said hi"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 11


async def test_a_chat_as_a_stream(client: AsyncOpenAI) -> None:
    """Every chunk validates."""
    stream = await client.chat.completions.create(model="mini", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Once upon a time"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_extensions_go_through_extra_body(client: AsyncOpenAI, world: World) -> None:
    """A preferred model and its stand-ins are sent as extra fields, and the route is in the headers."""
    raw = await client.chat.completions.with_raw_response.create(
        model="auto", messages=HI, extra_body={"preferred_model": "mini", "fallback": ["large"]}
    )

    assert raw.headers["x-windlass-model"] == "mini"
    assert world.controller.acquired[0].ask.mode == "hybrid"


async def test_completions(client: AsyncOpenAI) -> None:
    """A text is continued, whole and as a stream; of a stream's chunks, strict validation refuses even OpenAI's own."""
    whole = await client.completions.create(model="large", prompt="Once")
    client._strict_response_validation = False  # it wants a finish reason on every chunk of a completion
    stream = await client.completions.create(model="large", prompt="Once", stream=True)

    assert whole.choices[0].text == "said Once"
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Once upon a time"


async def test_embeddings(client: AsyncOpenAI) -> None:
    """Vectors come as numbers."""
    answer = await client.embeddings.create(model="vectors", input="a")

    assert answer.data[0].embedding == [0.25, 0.5]


async def test_errors_are_raised_as_the_classes_that_callers_catch(client: AsyncOpenAI, world: World) -> None:
    """Unknown models, bad values, a full queue, no controller and a dead worker have their classes."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nonsuch", messages=HI)
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == ("model_not_found", "model", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        await client.chat.completions.create(model="mini", messages=HI, max_tokens=-1)
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(model="mini", messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
    world.controller.refusal = {"reason": "queue_full", "message": "512 callers wait", "retry_after_s": 3}
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="mini", messages=HI)
    world.controller.refusal = {"reason": "never_fits", "message": "too large"}
    with pytest.raises(openai.UnprocessableEntityError):
        await client.chat.completions.create(model="mini", messages=HI)


async def test_a_wrong_key_is_an_authentication_error(tmp_path: Path) -> None:
    """Where keys are asked for, one that nobody made raises what callers catch for that."""
    async with running(tmp_path, require_key=True) as world:
        base = f"http://127.0.0.1:{world.port}/v1"
        async with AsyncOpenAI(base_url=base, api_key="wl_wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await client.models.list()

    assert wrong.value.code == "invalid_api_key"


async def test_a_stream_that_breaks_raises(client: AsyncOpenAI) -> None:
    """The error event in the stream is raised with its text, after what came before it."""
    stream = await client.chat.completions.create(model="mini", messages=HI, stream=True, extra_body={"fake": {"die_after": 2}})
    texts: list[str | None] = []

    async def read() -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="mini"):
        await read()

    assert texts == ["Once", " upon"]
