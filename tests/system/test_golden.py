"""What the built-in model says at temperature 0 stays the same, whatever happens to its worker in between."""

from typing import Any

import pytest

from bench.stack import Stack, output, wait_until
from tests.system.conftest import NAME, VECTORS, WIDE, Place
from tests.system.talk import PATIENCE_S, Caller, row, settle

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

Case = dict[str, Any]


def of(engine: str, golden: list[Case]) -> list[Case]:
    """Return the golden values for one engine."""
    return [case for case in golden if case["engine"] == engine]


def expected(cases: list[Case]) -> dict[str, str]:
    """Return what is to be said, by what is asked."""
    return {str(case.get("prompt") or case["messages"]): case["text"] for case in cases}


def said(caller: Caller, model: str, cases: list[Case]) -> dict[str, str]:
    """Ask everything and return what was said, by what was asked."""
    heard: dict[str, str] = {}
    for case in cases:
        more = {"model": model, "temperature": 0, "max_tokens": case["max_tokens"]}
        if case["api"] == "chat":
            answer = caller.post("/v1/chat/completions", {"messages": case["messages"], **more})
        else:
            answer = caller.post("/v1/completions", {"prompt": case["prompt"], **more})
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        heard[str(case.get("prompt") or case["messages"])] = (
            choice["message"]["content"] if "message" in choice else choice["text"]
        )
    return heard


def test_llama_cpp_says_what_was_written_down(caller: Caller, golden: list[Case]) -> None:
    """Every golden value is said through the gateway by the engine that most models run on."""
    cases = of("llama-cpp", golden)

    assert expected(cases) == said(caller, NAME, cases)


def test_transformers_says_what_was_written_down(caller: Caller, golden: list[Case]) -> None:
    """The other form of the same weights, run by the other engine, says its golden values."""
    cases = of("transformers", golden)[::3]

    assert expected(cases) == said(caller, VECTORS, cases)


def test_a_swap_changes_no_answer(world: Stack, caller: Caller, golden: list[Case]) -> None:
    """A model that another one has pushed out of memory says the same when it is back."""
    cases = of("llama-cpp", golden)[:6]
    before = said(caller, NAME, cases)
    caller.text(WIDE)
    pushed_out = row(world, NAME)["state"]
    after = said(caller, NAME, cases)

    assert pushed_out in ("stopped", "stopping")
    assert expected(cases) == before == after


def test_a_restart_of_the_stack_changes_no_answer(world: Stack, caller: Caller, golden: list[Case]) -> None:
    """Controller and gateway are restarted; the worker goes on as it was, and says the same."""
    cases = of("llama-cpp", golden)[:6]
    before = said(caller, NAME, cases)
    output([*world.compose, "restart", "--timeout", "10"])
    wait_until(lambda: world.api.health()["status"] in ("ok", "degraded"), "the stack is well again", PATIENCE_S)
    settle(world)
    resident = row(world, NAME)["state"]
    after = said(caller, NAME, cases)

    assert resident == "resident"
    assert expected(cases) == before == after


def test_a_copy_of_the_folder_says_the_same(caller: Caller, place: Place, golden: list[Case]) -> None:
    """The same weights under another name, dropped in while the stack runs, give the same answers."""
    cases = of("llama-cpp", golden)[:3]
    copy = place("copied-in")

    assert expected(cases) == said(caller, copy, cases)
