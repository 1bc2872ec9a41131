"""
Which conversation a request goes on with, as digests: the controller hears names, never words.

A caller may name its conversation, in the body or in a header. Else it is called after its own beginning: a chat after all its
messages, and what it goes on from after those before the last answer, since that is what was asked then; a plain text after its
first characters.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from controller.gateway.inbound import Inbound
from controller.gateway.problems import Fault, ProblemError
from controller.gateway.schemas import LONGEST_NAME, Message
from controller.wire import Talk

HEADER: Final = "x-windlass-conversation"
PREFIX_CHARACTERS: Final = 256
"""So much of a plain text is what it is called after; a shorter one is not worth a name."""
PREFIX_TOKENS: Final = 64
_NAME_BYTES: Final = 16
_MANY: Final = frozenset({"n", "n_cmpl", "best_of"})
"""Fields that ask for several answers at once; the engine computes them in as many slots."""
_OTHERWISE: Final = frozenset({"lora"})
"""Fields with which the same text is computed otherwise: what comes of that is good for nobody else."""


def owner(inbound: Inbound) -> str:
    """Return whose a request is."""
    return inbound.key.id if inbound.key is not None else ""


def named(given: str) -> str:
    """Return what a conversation is called whose caller has named it."""
    return _digest(b"named", given.encode("utf-8", "replace"))


def of_chat(inbound: Inbound, raw: Mapping[str, Any], messages: Sequence[Message], given: str | None) -> Talk:
    """
    Say which conversation a chat is.

    Raises:
        ProblemError: it is named by something that is no name.

    """
    talk = _of_named(inbound, raw, given)
    if talk is not None:
        return talk
    last = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=-1)
    hashed, origin = hashlib.blake2b(b"chat", digest_size=_NAME_BYTES), ""
    for at, message in enumerate(messages):
        if at == last:
            origin = hashed.hexdigest()
        content = message.content
        said = content.encode("utf-8", "replace") if isinstance(content, str) else orjson.dumps(content)
        hashed.update(b"%d:%s%d:" % (len(message.role), message.role.encode("utf-8", "replace"), len(said)))
        hashed.update(said)
        if message.tool_calls:
            hashed.update(orjson.dumps(message.tool_calls))
    return Talk(owner=owner(inbound), name=hashed.hexdigest(), origin=origin, lasting=bool(origin), scatters=_scatters(raw))


def of_text(inbound: Inbound, raw: Mapping[str, Any], prompt: object, given: str | None = None) -> Talk:
    """
    Say which conversation a plain text is; several at once are none.

    Raises:
        ProblemError: it is named by something that is no name.

    """
    talk = _of_named(inbound, raw, given)
    if talk is not None:
        return talk
    name = ""
    if isinstance(prompt, str) and len(prompt) >= PREFIX_CHARACTERS:
        name = _digest(b"text", prompt[:PREFIX_CHARACTERS].encode("utf-8", "replace"))
    elif isinstance(prompt, list) and len(prompt) >= PREFIX_TOKENS and isinstance(prompt[0], int):
        name = _digest(b"tokens", orjson.dumps(prompt[:PREFIX_TOKENS]))
    return Talk(owner=owner(inbound), name=name, origin=name, scatters=_scatters(raw))


def _of_named(inbound: Inbound, raw: Mapping[str, Any], given: str | None) -> Talk | None:
    """Return the conversation that the caller has named, or the none of a request whose computation is good for no other."""
    if not _OTHERWISE.isdisjoint(raw):
        return Talk(owner=owner(inbound), scatters=_scatters(raw))
    if given is None and (header := inbound.header(HEADER.encode())) is not None:
        if not 0 < len(header) <= LONGEST_NAME:
            text = f"{HEADER}: wanted from 1 to {LONGEST_NAME} characters, got {len(header)}"
            raise ProblemError(Fault.BAD_FIELD, text, param=HEADER)
        given = header.decode("utf-8", "replace")
    if given is None:
        return None
    name = named(given)
    return Talk(owner=owner(inbound), name=name, origin=name, lasting=True, scatters=_scatters(raw))


def _scatters(raw: Mapping[str, Any]) -> bool:
    return not _MANY.isdisjoint(raw) and any(isinstance(count := raw.get(name), int) and count > 1 for name in _MANY)


def _digest(kind: bytes, text: bytes) -> str:
    return hashlib.blake2b(kind + b":" + text, digest_size=_NAME_BYTES).hexdigest()
