"""What callers send, as tokens."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from worker.errors import RequestError
from worker.schemas import Message


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    @property
    def chat_template(self) -> object:
        """The template of a conversation, if there is one."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        ...

    def __len__(self) -> int: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, Sequence[int]]:
        """Turn text into tokens."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        """Write a conversation as one text."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Turn tokens into text."""
        ...


class Prompts:
    """A tokenizer and its chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Write a conversation by the model's own template, up to where the assistant speaks."""
        if not self._tokenizer.chat_template:
            raise RequestError("This model has no chat template; use /v1/completions.", param="messages")
        turns = [{"role": _role(message.role), "content": message.text()} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as exc:
            # Templates are programs of the model's makers and raise what they like, most often about the order of roles.
            raise RequestError(f"The model's chat template does not take these messages: {exc}", param="messages") from exc
        return self._encode(text, special=False)

    def text(self, prompt: str | Sequence[int], *, param: str) -> tuple[int, ...]:
        """Turn a text into tokens as the model expects them, or check tokens that were sent."""
        if isinstance(prompt, str):
            tokens = self._encode(prompt, special=True)
            if not tokens:
                raise RequestError(f"{param} is empty, and this model needs at least one token to begin with.", param=param)
            return tokens
        size = len(self._tokenizer)
        if any(not 0 <= token < size for token in prompt):
            raise RequestError(f"{param} has a token outside this model's vocabulary, which is 0 to {size - 1}.", param=param)
        return tuple(prompt)

    def _encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])


def _role(role: str) -> str:
    # OpenAI renamed the system role; templates know the old name.
    return "system" if role == "developer" else role
