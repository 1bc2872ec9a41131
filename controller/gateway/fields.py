"""
Which fields of a request ask for something, and which of them an engine's server is sent.

Clients send fields at their neutral value without a thought: `n` of 1, `logprobs: null`. A server that takes a closed list of
fields answers those with an error, so they are left out for it. What asks for something that an engine does not take is refused
by the controller before, or goes to a model of another engine where the caller leaves the choice.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from controller.engines import ENGINES

_NEUTRAL: Final[Mapping[str, object]] = {
    "audio": None,
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "function_call": "none",
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "min_p": 0,
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0,
    "repeat_penalty": 1,
    "repetition_penalty": 1,
    "response_format": {"type": "text"},
    "stop": [],
    "store": False,
    "suffix": "",
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 0,
    "typical_p": 1,
}
"""What a field says that says nothing; `null` is always that."""


def asks(name: str, value: object) -> bool:
    """Say whether a field asks for something."""
    return value is not None and not (name in _NEUTRAL and value == _NEUTRAL[name])


def asked(raw: Mapping[str, Any], *, beside: Iterable[str]) -> list[str]:
    """Return the names of the fields that ask for something, but for those that every engine takes."""
    plain = frozenset(beside)
    return sorted(name for name, value in raw.items() if name not in plain and asks(name, value))


def for_engine(body: Mapping[str, Any], engine: str) -> Mapping[str, Any]:
    """Return the body as this engine's server takes it."""
    known = ENGINES.get(engine)
    if known is None or (known.taken_fields is None and not known.refused_fields and not known.ignored_fields):
        return body
    left_out = known.refused_fields | known.ignored_fields
    taken = known.taken_fields
    if taken is None:
        return {name: value for name, value in body.items() if name not in left_out}
    return {name: value for name, value in body.items() if name in taken and name not in left_out and value is not None}
