"""Whatever a caller sends, the answer is a 4xx that says what is wrong, and the next caller is served."""

import json
from typing import Any

import pytest

from bench.stack import Stack
from tests.system.conftest import GIANT, NAME
from tests.system.talk import Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

CHAT: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
NAMES = (
    "../../etc/passwd",
    "..",
    "with\x00nul",
    "two\nlines",
    "/etc/passwd",
    "a" * 300,
    "",
    " ",
    "WINDLASS-MINI",
    "ein-modell-für-alle",
    "%2e%2e",
)

MALFORMED = {
    "nothing": b"",
    "not JSON": b"{not json",
    "half of it": b'{"model": "windlass-mini", "messages": [{"role"',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a string": b'"hello"',
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "two values": b"{} {}",
    "nested without end": b"[" * 100_000,
}

WRONG: dict[str, dict[str, Any]] = {
    "messages as text": {"messages": "hello"},
    "no messages": {"messages": []},
    "a message without a role": {"messages": [{"content": "hello"}]},
    "a message of a number": {"messages": [7]},
    "model as a number": {"model": 7},
    "model as a list": {"model": [NAME]},
    "model as nothing": {"model": None},
    "stream as text": {"stream": "yes"},
    "temperature as text": {"temperature": "hot"},
    "temperature too high": {"temperature": 99},
    "top_p below nothing": {"top_p": -1},
    "max_tokens negative": {"max_tokens": -1},
    "max_tokens nothing": {"max_tokens": 0},
    "max_tokens as text": {"max_tokens": "many"},
    "max_tokens in part": {"max_tokens": 1.5},
    "max_tokens beyond the context": {"max_tokens": 1_000_000},
    "max_tokens beyond any number": {"max_tokens": 10**30},
    "n beyond reason": {"n": 100_000},
    "stop as a number": {"stop": 3},
    "seed as text": {"seed": "seed"},
    "tools as text": {"tools": "hammer"},
    "tags as a number": {"model": "auto", "tags": 7},
    "fallback as a number": {"preferred_model": NAME, "fallback": 7},
    "a grammar that is none": {"grammar": "root ::= ("},
    "a schema that is none": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}},
}


def refusal(answer: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 -- httpx's response
    """Return the status and the error, after making sure of the envelope."""
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:300]}"
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    return answer.status_code, error


def test_an_unknown_model_is_not_found_and_the_near_ones_are_named(caller: Caller) -> None:
    """On every path that takes a name, one that nobody registered is a 404 that suggests what was probably meant."""
    answers = [
        caller.post("/v1/chat/completions", {**CHAT, "model": "windlas-mini"}),
        caller.post("/v1/completions", {"model": "windlas-mini", "prompt": "x"}),
        caller.post("/v1/embeddings", {"model": "windlas-mini", "input": "x"}),
        caller.post("/inference", {"model": "windlas-mini", "prompt": "x"}),
        caller.post("/inference", {"preferred_model": "windlas-mini", "fallback": [NAME], "prompt": "x"}),
        caller.post("/load_model", {"model": "windlas-mini"}),
        caller.post("/unload_model", {"model": "windlas-mini"}),
        caller.get("/plan/windlas-mini"),
        caller.get("/models/windlas-mini/logs"),
        caller.get("/v1/models/windlas-mini"),
    ]

    assert [(404, "model_not_found")] * len(answers) == [(refusal(one)[0], refusal(one)[1]["code"]) for one in answers]
    assert all(NAME in refusal(one)[1]["message"] for one in answers)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_none_is_refused(caller: Caller, name: str) -> None:
    """Names with dots and slashes, NUL, line breaks, capitals, or too long are unknown like any other, in bodies and in paths."""
    answers = [caller.post("/v1/chat/completions", {**CHAT, "model": name}), caller.post("/load_model", {"model_name": name})]
    path = "".join(f"%{byte:02x}" for byte in name.encode())
    if path:
        answers += [caller.get(f"/v1/models/{path}"), caller.get(f"/plan/{path}"), caller.get(f"/models/{path}/logs")]

    assert {400, 404} >= {refusal(answer)[0] for answer in answers}


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/inference", "/batch_inference", "/load_model"]
)
def test_a_malformed_body_is_refused(caller: Caller, path: str) -> None:
    """What is no JSON object is a 400 on every path that takes one."""
    answers = {what: caller.http.post(path, content=body) for what, body in MALFORMED.items()}

    assert dict.fromkeys(MALFORMED, 400) == {what: refusal(answer)[0] for what, answer in answers.items()}


@pytest.mark.parametrize("what", WRONG)
def test_a_field_of_the_wrong_kind_is_refused(caller: Caller, what: str) -> None:
    """Types and ranges are checked, by us or by the engine, and the complaint is the caller's to mend."""
    status, _ = refusal(caller.post("/v1/chat/completions", {**CHAT, **WRONG[what]}))

    assert status in (400, 404)


def test_a_prompt_beyond_the_context_is_refused_with_numbers(caller: Caller) -> None:
    """The answer says how long the prompt is and how long the context; nothing is cut silently."""
    by_far = refusal(caller.complete(NAME, prompt="word " * 20_000))[1]
    by_little = refusal(caller.complete(NAME, prompt="Then the captain looked. " * 260))[1]

    assert ["context_length_exceeded"] * 2 == [by_far["code"], by_little["code"]]
    assert "1024" in json.dumps(by_far)
    assert "1024" in json.dumps(by_little)


def test_ten_megabytes_are_too_large(caller: Caller) -> None:
    """A body beyond the limit is a 413, whether it says its length or not."""
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 10_000_000}]}).encode()
    told = refusal(caller.http.post("/v1/chat/completions", content=body))
    untold = refusal(
        caller.http.post("/v1/chat/completions", content=(body[at : at + 65536] for at in range(0, len(body), 65536)))
    )

    assert [(413, "request_too_large")] * 2 == [(status, error["code"]) for status, error in (told, untold)]


def test_headers_have_a_limit(caller: Caller) -> None:
    """A head beyond the limit is a 431."""
    answer = caller.get("/v1/models", headers={"x-much": "y" * 60_000})

    assert answer.status_code == 431


def test_paths_and_methods_that_are_not_there(caller: Caller) -> None:
    """Nothing at a path is a 404, the wrong method a 405 that names the right one."""
    nothing = caller.get("/v1/nothing")
    wrong = caller.get("/v1/chat/completions")

    assert (404, "unknown_url") == (refusal(nothing)[0], refusal(nothing)[1]["code"])
    assert (405, "POST") == (refusal(wrong)[0], wrong.headers["allow"])


def test_a_model_that_can_never_fit_is_refused_with_its_numbers(caller: Caller) -> None:
    """422 with the footprint, where it came from, the budget, and how to override it, on every path that would load it."""
    answers = [
        caller.post("/v1/chat/completions", {**CHAT, "model": GIANT}),
        caller.post("/inference", {"model": GIANT, "prompt": "x"}),
        caller.post("/load_model", {"model": GIANT}),
    ]

    texts = [refusal(answer)[1]["message"] for answer in answers]
    assert [(422, "model_never_fits")] * 3 == [(refusal(one)[0], refusal(one)[1]["code"]) for one in answers]
    assert all(word in text for text in texts for word in ("64 GiB", "override", "900 MiB", "memory", "model.toml"))


def test_queries_out_of_range_are_refused(caller: Caller) -> None:
    """A window or a tail that is none is a 400."""
    answers = [caller.get("/performance", params={"window": window}) for window in ("-1h", "forever", "0", "9999999d")] + [
        caller.get(f"/models/{NAME}/logs", params={"tail": tail}) for tail in ("-1", "all", "0", "99999999999999999999")
    ]

    assert [400] * len(answers) == [refusal(answer)[0] for answer in answers]


def test_after_all_that_everybody_is_served(world: Stack, caller: Caller) -> None:
    """No worker was lost, and the next request is answered."""
    answer = caller.post("/v1/chat/completions", CHAT)

    assert answer.status_code == 200
    assert "ok" == world.api.health()["status"]
