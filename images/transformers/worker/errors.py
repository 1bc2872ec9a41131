"""
Every refusal of the worker.

    LoadError       the model cannot be served at all; the process says why and ends
    RequestError    one request is refused, with the body OpenAI's clients expect
"""

from typing import Any


class LoadError(Exception):
    """The model folder cannot be served: unsafe, incomplete, or of a kind this server does not run."""


class RequestError(Exception):
    """
    One request is refused.

    Attributes:
        status: the HTTP status.
        code: a word a program can compare, such as `context_length_exceeded`.
        param: the field that is to blame, if one is.

    """

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        """Keep the parts beside the text."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """Write the error as OpenAI does."""
        return envelope(str(self), status=self.status, code=self.code, param=self.param)


def envelope(message: str, *, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Write an error body as OpenAI does; the type follows from the status."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def context_exceeded(*, prompt_tokens: int, max_tokens: int, context_tokens: int, param: str) -> RequestError:
    """Refuse a request that cannot fit, with the three numbers that say why."""
    return RequestError(
        f"This model's context is {context_tokens} tokens, but {prompt_tokens + max_tokens} were asked for"
        f" ({prompt_tokens} in the prompt, {max_tokens} for the answer). Shorten the prompt or lower max_tokens.",
        code="context_length_exceeded",
        param=param if prompt_tokens >= context_tokens else "max_tokens",
    )
