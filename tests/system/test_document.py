"""Requests made up from the OpenAPI document that the real gateway serves, sent to real engines: no 5xx, no worker lost."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from bench.stack import Stack
from tests.system.conftest import NAME
from tests.system.talk import Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

EXAMPLES = 12
READ = (
    "/", "/docs", "/openapi.json", "/health", "/status", "/models", "/v1/models", "/performance", "/metrics",
    "/v1/models/{model}", "/models/{model}/logs", "/plan/{model}",
)  # fmt: skip
ASKED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/inference", "/batch_inference")
CHANGED = ("/load_model", "/unload_model", "/optimize")
LIMITS = {"max_tokens": 8, "max_completion_tokens": 8, "max_length": 8, "n": 2, "best_of": 2}
"""What a made-up request may ask for at most: the question is whether it fails, not how long an answer can be."""


@pytest.fixture(scope="module")
def document(shared: Stack) -> Any:  # noqa: ANN401 -- a schema of schemathesis
    """Read the document as the gateway serves it."""
    return schemathesis.openapi.from_dict(shared.api.get("/openapi.json"))


def tame(body: object, *, known: bool) -> None:
    """Have a made-up body ask for little, and, half of the time, of a model that exists."""
    if not isinstance(body, dict):
        return
    for field, most in LIMITS.items():
        if isinstance(body.get(field), int) and not isinstance(body[field], bool) and most < body[field] < 2**31:
            body[field] = most
    for request in body.get("requests") or () if isinstance(body.get("requests"), list) else ():
        tame(request, known=known)
    if known:
        body["model"] = NAME
        for other in ("model_name", "preferred_model", "fallback", "auto_select", "tags"):
            body.pop(other, None)


def test_every_documented_path_is_tried(document: Any) -> None:  # noqa: ANN401 -- a schema of schemathesis
    """The lists above are the document's own: a new path must be put into one of them."""
    assert {*READ, *ASKED, *CHANGED} == set(document.raw_schema["paths"])


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", [*READ, *ASKED, *CHANGED])
def test_no_made_up_request_finds_a_bug(world: Stack, caller: Caller, document: Any, path: str, mode: GenerationMode) -> None:  # noqa: ANN401
    """Valid or not, it is answered with a documented status below 500, an error has its envelope, and no worker dies of it."""
    operation = document[path]["GET" if path in READ else "POST"]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        return  # nothing can be sent that would be wrong
    documented = set(operation.definition.raw["responses"])
    caller.post("/load_model", {"model": NAME})
    failures_before = world.api.get("/performance")["totals"]["failures"]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def check(case: schemathesis.Case, *, known: bool) -> None:
        if path in ASKED or path in CHANGED:
            tame(case.body, known=known and path != "/v1/embeddings")
        answer = case.call(base_url=world.url, timeout=100, allow_redirects=False)
        assert answer.status_code < 500, answer.text
        assert str(answer.status_code) in documented, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}

    check()
    assert failures_before == world.api.get("/performance")["totals"]["failures"]
