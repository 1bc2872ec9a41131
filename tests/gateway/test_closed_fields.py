"""A worker whose server takes a closed list of fields, and chats alone: what it is sent, and what it is not asked."""

import pytest

from controller import wire
from controller.engines.tensorrt_edge_llm import TAKEN_FIELDS
from tests.gateway.conftest import World
from tests.gateway.fakes import CHAT, COMPLETIONS, card

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def edge(near: World) -> World:
    """Let `mini` be served by such an engine."""
    near.controller.models["mini"] = card("mini", engine="tensorrt-edge-llm", api_paths=(CHAT,))
    near.session.take(wire.Catalog(models=tuple(near.controller.models.values()), keys=()))
    return near


async def test_it_is_sent_what_it_takes_and_nothing_else(edge: World) -> None:
    """What changes no answer is left out, and what the controller is told of has no neutral value in it."""
    answer = await edge.chat(
        user="me", n=1, seed=None, metadata={"a": "b"}, max_completion_tokens=9, top_p=0.5, frequency_penalty=0
    )

    assert answer.status_code == 200, answer.text
    ((path, body),) = edge.workers["mini"].requests
    assert (CHAT, {"model": "mini", "messages": HELLO, "max_tokens": 9, "top_p": 0.5}) == (path, body)
    assert ("max_completion_tokens", "metadata", "top_p", "user") == edge.controller.acquired[0].ask.request_fields
    assert set(body) <= TAKEN_FIELDS


async def test_a_prompt_becomes_an_instruction(edge: World) -> None:
    """`/inference` with a prompt may be answered by it, and a stream of pieces asks for its figures."""
    answer = await edge.ask("/inference", {"model": "mini", "prompt": "hi", "max_length": 5, "stream": True})

    assert answer.status_code == 200, answer.text
    ((path, body),) = edge.workers["mini"].requests
    wanted = {"model": "mini", "messages": HELLO, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    assert (CHAT, wanted) == (path, body)
    ask = edge.controller.acquired[0].ask
    assert (COMPLETIONS, CHAT, ()) == (ask.api_path, ask.also, ask.request_fields)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/inference", {"prompt": "hi", "raw": True}),
        (COMPLETIONS, {"prompt": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
    ],
)
async def test_what_it_does_not_serve_is_refused_at_once(edge: World, path: str, body: dict[str, object]) -> None:
    """Neither is a prompt continued as it is, nor anything embedded."""
    answer = await edge.ask(path, {"model": "mini", **body})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_eligible")
    assert "it serves /v1/chat/completions" in answer.json()["error"]["message"]
    assert not edge.controller.acquired
