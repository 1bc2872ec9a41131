"""OpenAI's paths: what is sent on, what comes back, what is refused."""

import json

import pytest

from tests.gateway.conftest import World
from tests.gateway.fakes import CHAT, COMPLETIONS, EMBEDDINGS


async def test_a_chat_is_answered_by_the_model_that_was_named(near: World) -> None:
    """The worker gets the body with the model's name, its answer comes back as it is, and the headers tell the route."""
    answer = await near.chat(temperature=0.0, tags=["x"], unknown_extra={"a": 1})

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "said hi"
    assert answer.headers["x-windlass-model"] == "mini"
    assert answer.headers["x-windlass-route"] == "manual; resident; it is resident"
    assert answer.headers["x-windlass-waited-ms"] == "2"
    assert answer.headers["x-windlass-bound-s"] == "12.500"
    assert answer.headers["x-request-id"]
    path, body = near.workers["mini"].requests[0]
    assert path == CHAT
    assert body == {
        "model": "mini",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "unknown_extra": {"a": 1},
    }
    await near.idle()


async def test_usage_is_reported_when_a_lease_is_given_back(near: World) -> None:
    """The controller learns tokens and times from the release."""
    await near.chat()
    await near.idle()

    (release,) = near.controller.released
    assert (release.outcome, release.prompt_tokens, release.completion_tokens) == ("ok", 7, 4)
    assert release.first_token_s == 0.0125
    assert release.total_s is not None


async def test_a_stream_comes_event_by_event(near: World) -> None:
    """Every event of the worker arrives unchanged, and the usage is read from its last ones."""
    answer = await near.chat(stream=True)

    assert answer.headers["content-type"] == "text/event-stream"
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    texts = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(texts) == "Once upon a time"
    await near.idle()
    (release,) = near.controller.released
    assert (release.outcome, release.prompt_tokens, release.completion_tokens) == ("ok", 7, 4)


async def test_auto_leaves_the_choice_to_the_controller(near: World) -> None:
    """With `model: auto` the ask names no model and carries what the request looks like."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Prove step by step that 2 + 2 = 4. Why?"}]}
    answer = await near.ask(CHAT, body)

    assert answer.status_code == 200
    assert json.loads(answer.text)["model"] == "mini"
    ask = near.controller.acquired[0].ask
    assert (ask.mode, ask.model, ask.api_path) == ("auto", None, CHAT)
    assert ask.difficulty > 0.3
    assert any(signal.startswith("reasoning") for signal in ask.signals)
    assert ask.prompt_tokens > 5


async def test_hybrid_names_a_preferred_model_and_its_stand_ins(near: World) -> None:
    """`preferred_model`, `fallback` and `tags` become the ask, and the worker sees none of them."""
    body = {"model": "x", "preferred_model": "large", "fallback": ["mini"], "tags": ["german"], "prompt": "Es war"}
    answer = await near.ask(COMPLETIONS, body)

    assert answer.status_code == 200, answer.text
    ask = near.controller.acquired[0].ask
    assert (ask.mode, ask.model, ask.fallback, ask.tags) == ("hybrid", "large", ("mini",), ("german",))
    assert near.workers["large"].requests == [(COMPLETIONS, {"model": "large", "prompt": "Es war"})]


async def test_embeddings_are_forwarded(near: World) -> None:
    """An embedder answers on its path."""
    answer = await near.ask(EMBEDDINGS, {"model": "vectors", "input": ["a", "b"]})

    assert answer.json()["data"][0]["embedding"] == [0.25, 0.5]


async def test_the_newer_name_of_max_tokens_reaches_the_engine_as_the_older(near: World) -> None:
    """`max_completion_tokens` is sent as `max_tokens`, which every engine knows."""
    await near.chat(max_completion_tokens=9)

    assert near.workers["mini"].requests[0][1]["max_tokens"] == 9
    assert near.controller.acquired[0].ask.max_tokens == 9


async def test_models_are_listed_from_the_catalog(near: World) -> None:
    """The list and each entry have OpenAI's form."""
    listed = (await near.http.get("/v1/models")).json()
    one = (await near.http.get("/v1/models/mini")).json()

    assert [entry["id"] for entry in listed["data"]] == ["mini", "large", "vectors"]
    assert one == listed["data"][0]
    assert (one["object"], one["created"], one["owned_by"]) == ("model", 1_700_000_000, "windlass")


BAD_BODIES = [
    (b"", 400, "invalid_json", None),
    (b"{", 400, "invalid_json", None),
    (b"[1]", 400, "invalid_json", None),
    (b'"x"', 400, "invalid_json", None),
    (b'{"messages": NaN}', 400, "invalid_json", None),
    (b"[" * 100_000, 400, "invalid_json", None),
    (b"\xff\xfe", 400, "invalid_json", None),
    ({"messages": [{"role": "user", "content": "x"}]}, 400, "invalid_value", "model"),
    ({"model": "mini"}, 400, "invalid_value", "messages"),
    ({"model": "mini", "messages": []}, 400, "invalid_value", "messages"),
    ({"model": "mini", "messages": "hi"}, 400, "invalid_value", "messages"),
    ({"model": "mini", "messages": [{"content": "hi"}]}, 400, "invalid_value", "messages.0.role"),
    ({"model": "mini", "messages": [{"role": "user", "content": 5}]}, 400, "invalid_value", "messages.0.content"),
    ({"model": 5, "messages": [{"role": "user", "content": "x"}]}, 400, "invalid_value", "model"),
]

BAD_FIELDS = [
    ("max_tokens", -1, 400, "invalid_value"),
    ("max_tokens", 0, 400, "invalid_value"),
    ("max_tokens", 1.5, 400, "invalid_value"),
    ("max_tokens", "9", 400, "invalid_value"),
    ("max_tokens", True, 400, "invalid_value"),
    ("max_tokens", 10**30, 400, "invalid_value"),
    ("max_tokens", 100_000, 400, "context_length_exceeded"),
    ("temperature", "hot", 400, "invalid_value"),
    ("temperature", 99, 400, "invalid_value"),
    ("stream", "yes", 400, "invalid_value"),
    ("stop", 5, 400, "invalid_value"),
    ("n", 0, 400, "invalid_value"),
    ("tools", "hammer", 400, "invalid_value"),
    ("fallback", [""], 400, "invalid_value"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), BAD_BODIES)
async def test_a_bad_body_is_refused_in_openais_form(near: World, body: object, status: int, code: str, param: str) -> None:
    """Whatever is wrong with a body is a 400 that names the field, and no lease is asked for."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await near.http.post(CHAT, content=content)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert set(error) >= {"message", "type", "param", "code"}
    assert near.controller.acquired == []


@pytest.mark.parametrize(("field", "value", "status", "code"), BAD_FIELDS)
async def test_a_bad_field_is_refused_by_name(near: World, field: str, value: object, status: int, code: str) -> None:
    """A field of the wrong type or out of range is a 400 that names it."""
    answer = await near.chat(**{field: value})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["param"].startswith(field)
    assert near.controller.acquired == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x00b", "a\nb", "MINI", "nonsuch", "x" * 5000, "mini ", "é"])
async def test_an_unknown_model_is_not_found(near: World, name: str) -> None:
    """Names that nobody registered are a 404, however they look, in the body and in the path."""
    answer = await near.ask(CHAT, {"model": name, "messages": [{"role": "user", "content": "x"}]})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert error["message"].isprintable()
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    "path", ["/v1/models/..%2F..%2Fetc", "/v1/models/a%00b", "/v1/models/a%0Ab", "/plan/%2e%2e", "/models/x%0a/logs"]
)
async def test_an_unknown_model_in_a_path_is_not_found(near: World, path: str) -> None:
    """A name in a path is treated as one in a body."""
    answer = await near.http.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_near_names_are_offered(near: World) -> None:
    """A slip of the pen is answered with what was probably meant."""
    answer = await near.ask(CHAT, {"model": "minni", "messages": [{"role": "user", "content": "x"}]})

    assert "did you mean mini" in answer.json()["error"]["message"]
    assert answer.json()["error"]["details"] == {"near": ["mini"]}


async def test_a_prompt_beyond_the_context_is_refused_before_anything_is_loaded(near: World) -> None:
    """What is surely too long never asks for a lease."""
    answer = await near.ask(CHAT, {"model": "mini", "messages": [{"role": "user", "content": "word " * 20_000}]})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["details"]["context_tokens"] == 2048
    assert near.controller.acquired == []


async def test_the_engines_word_on_the_context_is_passed_on(near: World) -> None:
    """What the engine counts as too long is told as OpenAI's clients expect it."""
    said = {"error": {"code": 400, "message": "the request exceeds", "type": "exceed_context_size_error", "n_ctx": 2048}}
    answer = await near.chat(fake={"status": 400, "error": said})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (400, "context_length_exceeded", {"n_ctx": 2048})


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"error": {"message": "bad grammar", "type": "invalid_request_error"}}, (400, "invalid_value")),
        (422, {"detail": "no such field"}, (422, "invalid_value")),
        (500, {"error": {"message": "[json.exception.type_error.302] type must be number"}}, (400, "invalid_value")),
        (500, {"error": {"message": "oops", "type": "server_error"}}, (502, "worker_error")),
        (401, {"error": {"message": "who are you"}}, (502, "worker_error")),
        (503, {"error": {"message": "Loading model"}}, (502, "worker_error")),
    ],
)
async def test_a_workers_error_keeps_its_meaning(
    near: World, status: int, error: dict[str, object], expected: tuple[int, str]
) -> None:
    """What the caller did wrong stays a 4xx, what the worker did is a 502, for streams too as nothing was sent yet."""
    for stream in (False, True):
        answer = await near.chat(fake={"status": status, "error": error}, stream=stream)

        assert (answer.status_code, answer.json()["error"]["code"]) == expected
    await near.idle()


async def test_a_model_that_does_not_serve_the_path_says_what_it_serves(near: World) -> None:
    """Chatting with an embedder is a 400, decided here."""
    answer = await near.ask(CHAT, {"model": "vectors", "messages": [{"role": "user", "content": "x"}]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_eligible")
    assert EMBEDDINGS in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("reason", "status", "code", "retry"),
    [
        ("queue_full", 429, "queue_full", "8"),
        ("unavailable", 503, "unavailable", "8"),
        ("never_fits", 422, "model_never_fits", "8"),
        ("too_late", 503, "deadline_not_reachable", "8"),
    ],
)
async def test_a_refusal_of_the_controller_has_its_status(near: World, reason: str, status: int, code: str, retry: str) -> None:
    """Reasons become statuses by the one table, with the published wait and the numbers."""
    near.controller.refusal = {
        "reason": reason,
        "message": "no room",
        "retry_after_s": 7.2,
        "details": {"footprint_bytes": 5},
    }
    answer = await near.chat()

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (status, code, "no room")
    assert answer.headers["retry-after"] == retry
    assert error["details"] == {"footprint_bytes": 5}
    await near.idle()


async def test_how_long_a_caller_waits_at_most_is_passed_to_the_controller(near: World) -> None:
    """The header `x-windlass-max-wait-s` becomes the deadline, and nonsense in it is refused."""
    body = {"model": "mini", "messages": [{"role": "user", "content": "x"}]}
    await near.ask(CHAT, body, headers={"x-windlass-max-wait-s": "2.5"})
    bad = await near.ask(CHAT, body, headers={"x-windlass-max-wait-s": "soon"})

    assert near.controller.acquired[0].deadline_s == 2.5
    assert bad.status_code == 400


async def test_what_is_not_there_is_not_found(near: World) -> None:
    """An unknown path is a 404 and a wrong method a 405 with the right ones, both in the envelope."""
    missing = await near.http.get("/v2/nothing")
    wrong = await near.http.get(CHAT)

    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_url")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
