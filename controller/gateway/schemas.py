"""
What callers may send: the fields we know, with their types and ranges. The OpenAPI document is made of the same classes.

Fields we do not know are passed on to the engine as they are. Types are strict: `"5"` is no number, and `true` is none either.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from controller.gateway.problems import Fault, ProblemError

LARGEST_TOKENS: Final = 2**31 - 1
LARGEST_SEED: Final = 2**63 - 1
MOST_ITEMS: Final = 256
"""Requests in one batch."""

Tokens = Annotated[int, Field(ge=1, le=LARGEST_TOKENS)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
LONGEST_NAME: Final = 256
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class Body(BaseModel):
    """What all request bodies share."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Choice(Body):
    """How the model is chosen. Extensions of ours: OpenAI's clients send them with `extra_body`."""

    model: Annotated[str | None, Field(description="A registered model, or `auto` to have one chosen.")] = None
    auto_select: Annotated[bool | None, Field(description="Choose a model for me, whatever `model` says.")] = None
    preferred_model: Annotated[Name | None, Field(description="This one if it starts soon enough, else a stand-in.")] = None
    fallback: Annotated[
        list[Name] | Name | bool | None,
        Field(description="Stand-ins for the preferred model, best first; empty or `true` allows any."),
    ] = None
    tags: Annotated[list[Name] | None, Field(max_length=32, description="Tags the model must have.")] = None
    conversation_id: Annotated[
        Name | None, Field(description="A name for this conversation; what was computed of it survives a swap under it.")
    ] = None


class Sampling(Choice):
    """What OpenAI's two generating paths have in common."""

    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    seed: Annotated[int | None, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] = None
    stop: Annotated[str, Field(max_length=4096)] | Annotated[list[str], Field(max_length=16)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | list[Any] | None = None
    user: str | None = None


class Message(Body):
    """One turn of a conversation."""

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatBody(Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None


class CompletionBody(Sampling):
    """`POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_ITEMS)]
        | Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_TOKENS)]], Field(min_length=1)]
        | Annotated[
            list[Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_TOKENS)]], Field(min_length=1)]], Field(min_length=1)
        ]
    )
    max_tokens: Annotated[int | None, Field(ge=0, le=LARGEST_TOKENS)] = None
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    echo: bool | None = None
    best_of: Annotated[int | None, Field(ge=1, le=128)] = None
    suffix: str | None = None


class EmbeddingBody(Choice):
    """`POST /v1/embeddings`."""

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
        | Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_TOKENS)]], Field(min_length=1)]
        | Annotated[
            list[Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_TOKENS)]], Field(min_length=1)]], Field(min_length=1)
        ]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, le=65536)] = None
    user: str | None = None


class InferenceBody(Choice):
    """`POST /inference`: a prompt or a conversation. Without `model` and `preferred_model`, a model is chosen."""

    prompt: Annotated[str | None, Field(description="A text: an instruction to a chat model, continued by any other.")] = None
    messages: Annotated[list[Message] | None, Field(min_length=1, max_length=4096)] = None
    raw: Annotated[bool | None, Field(description="Continue `prompt` as it is, even on a chat model.")] = None
    max_length: Annotated[Tokens | None, Field(description="The longest answer in tokens; the same as `max_tokens`.")] = None
    max_tokens: Tokens | None = None
    stream: bool | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] = None
    stop: Annotated[str, Field(max_length=4096)] | Annotated[list[str], Field(max_length=16)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None


class BatchBody(Choice):
    """`POST /batch_inference`: requests of their own, or prompts that share everything else in the body."""

    requests: Annotated[
        list[dict[str, Any]] | None,
        Field(min_length=1, max_length=MOST_ITEMS, description="Bodies of `/inference`, without `stream`."),
    ] = None
    prompts: Annotated[list[str] | None, Field(min_length=1, max_length=MOST_ITEMS)] = None


class ModelBody(Body):
    """`POST /cancel_build`: the name of a model and nothing else."""

    model_name: Name | None = None
    model: Annotated[Name | None, Field(description="The same as `model_name`.")] = None


class BuildBody(ModelBody):
    """`POST /build_model`."""

    quantization: Annotated[
        Literal["bf16", "f16", "q8_0", "q4_k_m", "q4_0", "auto"] | None,
        Field(description="Another one than its `model.toml` says: made ahead, and served when the manifest names it."),
    ] = None

    @field_validator("quantization", mode="before")
    @classmethod
    def _in_small_letters(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class LoadBody(ModelBody):
    """`POST /load_model`."""

    wait: Annotated[bool, Field(description="Answer when it is done; else when it is decided.")] = True


class UnloadBody(LoadBody):
    """`POST /unload_model`."""

    force: Annotated[bool, Field(description="Even if it is busy; its callers get an error.")] = False


class OptimizeBody(Body):
    """`POST /optimize`: takes nothing, and an empty body will do."""


B = TypeVar("B", bound=Body)
_BRANCHES: Final = frozenset({"str", "bool", "int", "float"})


def parse_object(data: bytes) -> dict[str, Any]:
    """
    Read a body as a JSON object.

    Raises:
        ProblemError: it is none.

    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        got = "nothing" if not data.strip() else str(exc)
        raise ProblemError(Fault.BAD_JSON, f"wanted a JSON object as the body, got {got}") from None
    if not isinstance(value, dict):
        raise ProblemError(Fault.BAD_JSON, f"wanted a JSON object as the body, got {_kind(value)}")
    return value


def check(model: type[B], value: Mapping[str, Any]) -> B:
    """
    Check a body's fields.

    Raises:
        ProblemError: naming the first field that is wrong.

    """
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise _problem(exc) from None


def _problem(exc: ValidationError) -> ProblemError:
    """Tell the deepest complaint: where a field may have several types, the branch that got furthest was meant."""
    errors = exc.errors(include_url=False, include_context=False)
    first = _top(errors[0])
    error = max(errors, key=lambda one: (_top(one) == first, not one["type"].endswith("_type"), len(_place(one["loc"]))))
    place = ".".join(str(part) for part in _place(error["loc"])) or "body"
    got = "" if error["type"] == "missing" else f", got {_kind(error['input'])}"
    return ProblemError(Fault.BAD_FIELD, f"{place}: {_sentence(error['msg'])}{got}", param=place)


def _top(error: Mapping[str, Any]) -> object:
    return error["loc"][0] if error["loc"] else ""


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out the names that a union gives to its branches: they are types, not fields."""
    return tuple(part for part in loc if isinstance(part, int) or (part.isidentifier() and part not in _BRANCHES))


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:]


def _kind(value: object) -> str:
    """Say what a value is without repeating much of it."""
    match value:
        case None | bool():
            text = str(orjson.dumps(value), "ascii")
        case int() | float():
            text = f"the number {value}"[:60]
        case str():
            text = f"a string of {len(value)} characters" if len(value) > 40 else f"the string {value!a}"
        case list():
            text = f"a list of {len(value)} items"
        case dict():
            text = f"an object with {len(value)} keys"
        case _:
            text = type(value).__name__
    return text
