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

EXAMPLES = 30
READ = (
    "/", "/docs", "/openapi.json", "/health", "/status", "/models", "/v1/models", "/performance", "/metrics",
    "/v1/models/{model}", "/models/{model}/logs", "/plan/{model}", "/builds", "/conversations",
)  # fmt: skip
ASKED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/inference", "/batch_inference")
CHANGED = ("/load_model", "/unload_model", "/optimize", "/build_model", "/cancel_build")
REMOVED = ("/conversations/{id}",)
CASES = [
    *((path, GenerationMode.POSITIVE) for path in (*READ, *ASKED, *CHANGED, *REMOVED)),
    # Where neither a body nor a query is taken, nothing can be sent that would be wrong.
    *((path, GenerationMode.NEGATIVE) for path in ("/performance", "/models/{model}/logs", *ASKED, *CHANGED)),
]
HELLO: dict[str, Any] = {"model": NAME, "max_tokens": 8}
RIGHT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**HELLO, "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {**HELLO, "prompt": "Hello"},
    "/inference": {**HELLO, "prompt": "Hello"},
    "/batch_inference": {**HELLO, "prompts": ["Hello", "The sea"]},
    "/load_model": {"model": NAME},
    "/unload_model": {"model": NAME},
}
"""Requests that work."""
LIMITS = {"max_tokens": 8, "max_completion_tokens": 8, "max_length": 8, "n": 2, "best_of": 2}
"""What a made-up request may ask for at most: the question is whether it fails, not how long an answer can be."""


@pytest.fixture(scope="module")
def document(shared: Stack) -> Any:  # noqa: ANN401 -- a schema of schemathesis
    """Read the document as the gateway serves it."""
    return schemathesis.openapi.from_dict(shared.api.get("/openapi.json"))


def nearly_right(path: str, made_up: object, which: int) -> object:
    """Return a request that works but for one field, which is the made-up one's: what gets as far as the engine."""
    if not isinstance(made_up, dict) or path not in RIGHT:
        return made_up
    fields = sorted(made_up.keys() - {"model", "model_name", "preferred_model"}) or [""]
    field = fields[which % len(fields)]
    body = {**RIGHT[path], **{name: value for name, value in made_up.items() if name == field}}
    return tame(body)


def tame(body: dict[str, Any]) -> dict[str, Any]:
    """Have a request ask for little; what is no number beyond the limit stays as it is."""
    big = {name for name, most in LIMITS.items() if type(body.get(name)) is int and most < body[name] < 2**31}
    return {name: LIMITS[name] if name in big else value for name, value in body.items()}


def test_every_documented_path_is_tried(document: Any) -> None:  # noqa: ANN401 -- a schema of schemathesis
    """The lists above are the document's own: a new path must be put into one of them."""
    assert {*READ, *ASKED, *CHANGED, *REMOVED} == set(document.raw_schema["paths"])


@pytest.mark.parametrize(("path", "mode"), [pytest.param(path, mode, id=f"{path}-{mode.value}") for path, mode in CASES])
def test_no_made_up_request_finds_a_bug(world: Stack, caller: Caller, document: Any, path: str, mode: GenerationMode) -> None:  # noqa: ANN401
    """Valid or not, it is answered with a documented status below 500, an error has its envelope, and no worker dies of it."""
    operation = document[path]["GET" if path in READ else "DELETE" if path in REMOVED else "POST"]
    documented = set(operation.definition.raw["responses"])
    caller.post("/load_model", {"model": NAME})
    failures_before = world.api.get("/performance")["totals"]["failures"]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        # The same ones every time: what fails here fails for everybody.
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), nearly=st.booleans(), which=st.integers(0, 99))
    def check(case: schemathesis.Case, *, nearly: bool, which: int) -> None:
        if nearly:
            case.body = nearly_right(path, case.body, which)
            case.path_parameters = dict.fromkeys(case.path_parameters or (), NAME)
        answer = case.call(base_url=world.url, timeout=100, allow_redirects=False)
        assert answer.status_code < 500, answer.text
        assert str(answer.status_code) in documented, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}

    check()
    assert failures_before == world.api.get("/performance")["totals"]["failures"]
