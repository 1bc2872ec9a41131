"""
What callers send.

Fields that are not named here are ignored, as OpenAI's servers do with fields of a later day. Fields whose meaning would be
lost are named and refused: an answer that silently lacks the log probabilities somebody asked for is worse than none.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from worker.errors import RequestError

DEFAULT_COMPLETION_TOKENS: Final = 16
"""What OpenAI's `/v1/completions` answers with when nothing is said."""

_MOST_STOPS: Final = 16
_MOST_INPUTS: Final = 2048


class Strict(BaseModel):
    """Numbers are finite, types are not guessed, unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)


class StreamOptions(Strict):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class ResponseFormat(Strict):
    """Only plain text is produced."""

    type: str


class TextPart(Strict):
    """A part of a message's content."""

    type: str
    text: str | None = None


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    def text(self) -> str:
        """Return the content as one text, or refuse what is not text."""
        if isinstance(self.content, list):
            other = next((part.type for part in self.content if part.type != "text" or part.text is None), None)
            if other is not None:
                raise RequestError(
                    f"A content part of type {other!r} was sent, but this model reads text only.", param="messages"
                )
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""


class Sampled(Strict):
    """What chat and completions have in common."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    ignore_eos: bool | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None

    @field_validator("stop")
    @classmethod
    def _stop_strings(cls, stop: str | list[str] | None) -> str | list[str] | None:
        strings = [stop] if isinstance(stop, str) else stop or []
        if len(strings) > _MOST_STOPS or not all(strings):
            raise ValueError(f"wanted at most {_MOST_STOPS} stop strings, none of them empty")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, in one shape."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens the answer may have, or None for as many as fit."""
        return self.max_tokens

    def refuse(self) -> None:
        """Refuse every field whose meaning would be lost."""
        _refuse("n", self.n not in (None, 1), "one answer a request; send the request again for another")
        # Zero is a request too: the log probability of the token that was chosen. Only False and nothing are not.
        _refuse("logprobs", not (self.logprobs is None or self.logprobs is False), "no log probabilities")
        _refuse("top_logprobs", bool(self.top_logprobs), "no log probabilities")
        _refuse("logit_bias", bool(self.logit_bias), "no bias on single tokens")
        _refuse("response_format", self.response_format is not None and self.response_format.type != "text", "plain text only")
        _refuse("stream_options", self.stream_options is not None and not self.stream, "stream options with stream: true only")


class ChatRequest(Sampled):
    """The body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens the answer may have; the newer name wins."""
        return self.max_completion_tokens or self.max_tokens

    def refuse(self) -> None:
        """Refuse every field whose meaning would be lost."""
        Sampled.refuse(self)
        _refuse("tools", bool(self.tools), "no tools")
        _refuse("functions", bool(self.functions), "no functions")


Tokens = Annotated[list[int], Field(min_length=1)]


class CompletionRequest(Sampled):
    """The body of `/v1/completions`."""

    prompt: str | Tokens | Annotated[list[str], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens each answer may have."""
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, in one shape."""
        return _listed(self.prompt)

    def refuse(self) -> None:
        """Refuse every field whose meaning would be lost."""
        Sampled.refuse(self)
        _refuse("echo", bool(self.echo), "the continuation only, without the prompt")
        _refuse("suffix", bool(self.suffix), "continuations only, no text to fill in")
        _refuse("best_of", self.best_of not in (None, 1), "one answer a prompt")


class EmbeddingsRequest(Strict):
    """The body of `/v1/embeddings`."""

    model: str | None = None
    input: str | Tokens | Annotated[list[str], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """The inputs, in one shape."""
        return _listed(self.input)

    def refuse(self) -> None:
        """Refuse a width other than the model's own, and more than one request should ask."""
        _refuse("dimensions", self.dimensions is not None, "vectors of the model's own width")
        if len(self.inputs) > _MOST_INPUTS:
            raise RequestError(f"input: wanted at most {_MOST_INPUTS} texts, got {len(self.inputs)}.", param="input")


def _listed(value: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(value, str):
        return [value]
    if isinstance(value[0], int):
        return [[token for token in value if isinstance(token, int)]]
    return [entry for entry in value if not isinstance(entry, int)]


def _refuse(field: str, wrong: bool, offered: str) -> None:  # noqa: FBT001 - reads as a table row
    if wrong:
        raise RequestError(
            f"{field} is not supported here: this engine gives {offered}.", code="unsupported_parameter", param=field
        )
