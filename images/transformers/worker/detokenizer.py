"""Text out of tokens, one token at a time."""

from collections.abc import Callable, Sequence
from typing import Final

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_LEAD_TOKENS: Final = 5
_LONGEST_WAIT_TOKENS: Final = 16


class Detokenizer:
    """
    Turn a growing list of tokens into pieces of text that add up to the text of the whole.

    A token alone may be a part of a character, and the space before a word depends on the token before it. So each new token
    is decoded together with a few before it, beginning in the prompt, and shown as the difference; a piece that ends in the
    middle of a character waits for the rest.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-_LEAD_TOKENS:])
        self._begin = 0
        self._shown = len(self._tokens)

    def push(self, token: int) -> str:
        """Take the next token and return the text it completes, which may be none."""
        self._tokens.append(token)
        before, text = self._decode(self._tokens[self._begin : self._shown]), self._decode(self._tokens[self._begin :])
        # A model may also produce bytes that never become a character: those are shown as they are after a while.
        waiting = text.endswith(_REPLACEMENT) and len(self._tokens) - self._shown < _LONGEST_WAIT_TOKENS
        if waiting or len(text) <= len(before):
            return ""
        self._begin, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def flush(self) -> str:
        """Return the text of a character that was never completed."""
        text = self._decode(self._tokens[self._begin :])
        before = self._decode(self._tokens[self._begin : self._shown])
        self._begin = self._shown = len(self._tokens)
        return text[len(before) :]
