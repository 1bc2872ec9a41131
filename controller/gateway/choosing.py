"""From a checked body to what the controller is asked: which model may serve it, how long it is, how hard it looks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from controller.errors import Reason
from controller.gateway import fields
from controller.gateway.directory import Directory
from controller.gateway.inbound import Inbound
from controller.gateway.problems import Fault, ProblemError
from controller.gateway.schemas import Choice
from controller.gateway.signals import Weighed, estimate_tokens, weigh
from controller.spec import ApiPath
from controller.wire import Ask, Talk

Mode = Literal["manual", "auto", "hybrid"]

AUTO: Final = "auto"
OUR_FIELDS: Final = frozenset({"model", "auto_select", "preferred_model", "fallback", "tags", "conversation_id"})
"""What is meant for us and not passed on; the engine gets the chosen model's name."""
_PLAIN_FIELDS: Final = OUR_FIELDS | {"messages", "prompt", "input", "stream", "max_tokens", "temperature"}
_MOST_FIELDS: Final = 64
_DOUBT: Final = 2
"""A prompt is refused here only if it is too long with half the usual tokens; nearer cases are the engine's to count."""


def choose(
    choice: Choice,
    raw: Mapping[str, Any],
    *,
    directory: Directory,
    api_path: ApiPath,
    also: ApiPath | None = None,
    texts: Sequence[str],
    turns: int = 1,
    token_count: int = 0,
    max_tokens: int = 0,
    auto_by_default: bool = False,
    talk: Talk | None = None,
) -> Ask:
    """
    Say what the controller is to be asked for.

    Args:
        choice: the checked fields that choose.
        raw: the body they came in.
        directory: the models there are.
        api_path: what the model must serve.
        also: what will do instead.
        texts: the prompt's texts.
        turns: turns of the conversation.
        token_count: the length of a prompt that came as tokens.
        max_tokens: the longest answer, 0 if none was named.
        auto_by_default: a body that names no model has one chosen.
        talk: whose conversation it is.

    Raises:
        ProblemError: no such model, or one that surely cannot serve this.

    """
    mode, wanted, stand_ins = _mode(choice, auto_by_default=auto_by_default)
    prompt_tokens = token_count + estimate_tokens(texts, turns=turns if len(texts) > 1 else 0)
    weighed = Weighed(difficulty=0.0, signals=())
    if mode == "manual":
        # The engine counts for itself, so that no prompt is refused for an estimate that was a little high.
        prompt_tokens = token_count + (prompt_tokens - token_count) // _DOUBT
        card = directory.model(wanted or "")
        if also is None or also.value not in card.api_paths:
            _check_path(card.name, card.api_paths, api_path)
        _check_length(prompt_tokens, max_tokens, context_tokens=card.context_tokens, whose=card.name)
    else:
        if wanted is not None:
            directory.model(wanted, param="preferred_model" if choice.preferred_model else "model")
        for name in stand_ins:
            directory.model(name, param="fallback")
        sure = token_count + (prompt_tokens - token_count) // _DOUBT
        _check_length(sure, max_tokens, context_tokens=directory.longest_context_tokens, whose="the roomiest model")
        weighed = weigh(
            texts,
            prompt_tokens=prompt_tokens,
            turns=turns,
            tools=bool(raw.get("tools")),
            max_tokens=max_tokens,
            structured=_structured(raw),
        )
    return Ask(
        mode=mode,
        model=wanted,
        fallback=tuple(stand_ins),
        api_path=api_path.value,
        also=also.value if also else None,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        tools=bool(raw.get("tools")),
        tags=tuple(choice.tags or ()),
        difficulty=weighed.difficulty,
        signals=weighed.signals,
        request_fields=tuple(name[:64] for name in fields.asked(raw, beside=_PLAIN_FIELDS)[:_MOST_FIELDS]),
        talk=talk,
    )


def deadline(inbound: Inbound) -> float | None:
    """
    Return how many seconds the caller is willing to wait for its turn, from the header `x-windlass-max-wait-s`.

    Raises:
        ProblemError: it is no number of seconds.

    """
    header = inbound.header(b"x-windlass-max-wait-s")
    if header is None:
        return None
    try:
        value = float(header)
    except ValueError:
        value = -1.0
    if not 0 < value < 86400:
        raise ProblemError(
            Fault.BAD_FIELD, "x-windlass-max-wait-s: wanted seconds above 0 and below a day", param="x-windlass-max-wait-s"
        )
    return value


def _mode(choice: Choice, *, auto_by_default: bool) -> tuple[Mode, str | None, list[str]]:
    if choice.auto_select:
        return "auto", None, []
    stand_ins = choice.fallback
    names = stand_ins if isinstance(stand_ins, list) else [stand_ins] if isinstance(stand_ins, str) else []
    wanted = choice.preferred_model or choice.model
    if wanted == AUTO or (not wanted and auto_by_default):
        return "auto", None, []
    if not wanted:
        raise ProblemError(
            Reason.MALFORMED,
            "model: wanted the name of a model, or auto to have one chosen; GET /v1/models lists them",
            param="model",
        )
    if choice.preferred_model or names or stand_ins is True:
        return "hybrid", wanted, names
    return "manual", wanted, []


def _check_path(model: str, served: Sequence[str], api_path: ApiPath) -> None:
    if api_path.value not in served:
        raise ProblemError(
            Reason.NOT_ELIGIBLE,
            f"the model {model} does not serve {api_path.value}; it serves {', '.join(sorted(served))}",
            param="model",
        )


def _check_length(prompt_tokens: int, max_tokens: int, *, context_tokens: int, whose: str) -> None:
    if not context_tokens:
        return  # no model at all: the controller says so
    details = {"context_tokens": context_tokens, "prompt_tokens_at_least": prompt_tokens, "max_tokens": max_tokens}
    if prompt_tokens > context_tokens:
        text = f"the prompt has at least {prompt_tokens} tokens, and the context of {whose} is {context_tokens}; shorten it"
        raise ProblemError(Fault.TOO_LONG, text, param="messages", details=details)
    if prompt_tokens + max_tokens > context_tokens:
        text = (
            f"max_tokens is too large: {max_tokens}; the context of {whose} is {context_tokens} tokens, prompt and answer "
            f"together, and the prompt has at least {prompt_tokens}"
        )
        raise ProblemError(Fault.TOO_LONG, text, param="max_tokens", details=details)


def _structured(raw: Mapping[str, Any]) -> bool:
    wanted = raw.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")
