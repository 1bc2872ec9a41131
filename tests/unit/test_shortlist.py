"""Of ten thousand models a request is weighed against a few, and gets the same answer."""

from dataclasses import replace

import msgspec
import pytest

from controller.charges import Capacity
from controller.router import Candidate, choose
from controller.shortlist import FEW, MOST, Shortlist
from controller.spec import ApiPath, ModelName, ModelSpec
from controller.wire import Ask
from tests.core.world import model_spec

MODELS = {
    ModelName(f"m{number}"): replace(
        model_spec(f"m{number}", size=1_000_000 * (1 + number * 7919 % 10_000), load_s=1.0 + number % 13),
        context_tokens=256 << number % 5,
        tools=number % 3 == 0,
        tags=frozenset({f"t{number % 4}"}),
        api_paths=frozenset({ApiPath.CHAT if number % 10 else ApiPath.EMBEDDINGS}),
    )
    for number in range(10_000)
}
ROOM = Capacity(ram_bytes=6_000_000_000)


def candidate(spec: ModelSpec) -> Candidate:
    """Make a candidate that lies on disk."""
    return Candidate(spec=spec, load_s=spec.load_s, room=ROOM)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "needs",
    [
        {},
        {"tools": True, "tags": ("t1",)},
        {"prompt_tokens": 2000, "max_tokens": 100},
        {"api_path": ApiPath.EMBEDDINGS.value},
        {"api_path": ApiPath.COMPLETIONS.value, "also": ApiPath.CHAT.value},
    ],
    ids=["any", "tools", "long", "embeddings", "another path will do"],
)
def test_the_choice_is_the_same_as_among_all(difficulty: float, needs: dict[str, object]) -> None:
    """Whoever is left out could not serve it, or would not have been chosen."""
    ask = msgspec.convert({"mode": "auto", "api_path": ApiPath.CHAT.value, "difficulty": difficulty, **needs}, Ask)
    few = Shortlist(MODELS).pick(ask, active=(), room=ROOM)

    assert len(few) <= MOST + 1
    assert choose(ask, [candidate(s) for s in MODELS.values()]).model == choose(ask, [candidate(MODELS[m]) for m in few]).model


def test_whoever_is_in_memory_is_weighed() -> None:
    """Being there already may outweigh everything else."""
    ask = Ask(mode="auto", api_path=ApiPath.CHAT.value)
    few = Shortlist(MODELS).pick(ask, active=[ModelName("m9999"), ModelName("gone")], room=ROOM)

    assert "m9999" in few
    assert "gone" not in few


def test_nobody_able_leaves_a_few_that_say_why() -> None:
    """A refusal needs examples, not ten thousand of them."""
    ask = Ask(mode="auto", api_path="/v1/songs")

    assert MOST == len(Shortlist(MODELS).pick(ask, active=(), room=ROOM))


def test_a_few_are_weighed_all() -> None:
    """On a usual box nothing is left out."""
    some = dict(list(MODELS.items())[:FEW])

    assert some.keys() == Shortlist(some).pick(Ask(mode="auto", api_path="x"), active=(), room=Capacity(ram_bytes=0))
