"""
The messages on the controller's socket: one JSON object a line, each with a `type`.

One connection is one session, and a session carries many leases at once, told apart by `id`. Everything a session holds or waits
for ends with its connection: if a gateway dies, the kernel closes the socket, and that is the whole of the recovery.

A session starts with `Welcome`, and `Catalog` follows whenever the registered models or the keys change. For every `Acquire` come
any number of `Queued` and `Loading`, then exactly one `Granted` or `Refused`; after `Granted`, at most one `Revoked`. A `Release`
ends the lease in any state and is not answered. A `Renew` is answered like an `Acquire`. A `Call` gets one `Result` or `Failed`.
"""

from typing import Any, Final, Literal

import msgspec

from controller.errors import ProtocolError, Reason

MAX_LINE_BYTES: Final = 8 * 1024 * 1024


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """
    What messages and their parts share: frozen, and a field nobody knows is an error.

    The types of the fields are checked where a line is read. None of them can refer to itself, so Python's collector of cycles
    need not look at them: with thousands of models it would look at little else.
    """


class Message(Part, frozen=True, kw_only=True, gc=False, tag=str.lower, tag_field="type"):
    """A line of its own: its `type` is the name of its class in lower case."""


class Talk(Part, frozen=True, kw_only=True, gc=False):
    """
    Whose conversation a request goes on with, without a word of it: names are digests.

    Attributes:
        owner: the id of the API key it came with; empty for callers without one, who are one owner.
        name: what the conversation is called after this request; empty if it is not worth a name.
        origin: what it was called before; empty at its beginning. A conversation that the caller has named keeps its name.
        lasting: the caller has named it, or it was answered before: it is likely to go on.
        scatters: the engine answers it in several slots at once.

    """

    owner: str = ""
    name: str = ""
    origin: str = ""
    lasting: bool = False
    scatters: bool = False


class Ask(Part, frozen=True, kw_only=True, gc=False):
    """
    What a request needs, without a word of the prompt.

    Attributes:
        mode: `manual` serves `model` or refuses, `auto` chooses freely, `hybrid` serves `model` unless `fallback` allows another.
        model: the model asked for (manual) or preferred (hybrid).
        fallback: models that may stand in (hybrid), best first; empty means any eligible one.
        api_path: what the worker must serve.
        also: what it may serve instead.
        prompt_tokens: an estimate of the prompt's length.
        max_tokens: the longest answer asked for; 0 if the caller named none.
        tools: the request offers tools.
        tags: every one of them must be on the model.
        difficulty: 0 for trivial to 1 for hard, by the gateway's cheap signals.
        signals: what that figure was made of, for the explanation.
        talk: whose conversation it is, where there is one.

    """

    mode: Literal["manual", "auto", "hybrid"]
    model: str | None = None
    fallback: tuple[str, ...] = ()
    api_path: str
    also: str | None = None
    prompt_tokens: int = 0
    max_tokens: int = 0
    tools: bool = False
    tags: tuple[str, ...] = ()
    difficulty: float = 0.0
    signals: tuple[str, ...] = ()
    request_fields: tuple[str, ...] = ()
    talk: Talk | None = None


# Gateway to controller.


class Acquire(Message, frozen=True, kw_only=True, gc=False):
    """
    Ask for a lease.

    Attributes:
        deadline_s: how long the caller is willing to wait, if it said so.
        waited_s: how long it has waited already, which is more than nothing if the controller was away meanwhile.

    """

    id: str
    ask: Ask
    priority: Literal["interactive", "batch"] = "interactive"
    deadline_s: float | None = None
    waited_s: float = 0.0


class Renew(Message, frozen=True, kw_only=True, gc=False):
    """
    Claim a lease that was granted before the controller was restarted; the stream it stands for is still running.

    `slot` is what was granted with it, `talk` what it was asked for with.
    """

    id: str
    model: str
    run: str
    slot: int | None = None
    talk: Talk | None = None


class Release(Message, frozen=True, kw_only=True, gc=False):
    """
    Give a lease back, or stop waiting for one, and say what became of it.

    `cached_tokens` of the prompt were not computed, as the engine counts; `None` if it does not say.
    """

    id: str
    outcome: Literal["ok", "error", "cancelled"] = "ok"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float | None = None


class Call(Message, frozen=True, kw_only=True, gc=False):
    """
    Ask for something that is not a lease.

    Verbs: `health`, `status`, `models`, `performance`, `plan`, `load`, `unload`, `optimize`, `logs`, `build`, `builds`,
    `builds.cancel`, `conversations.list`, `conversations.delete`, `conversations.clear`, `keys.list`, `keys.create` and
    `keys.revoke`.
    """

    id: str
    verb: str
    arguments: dict[str, Any] = {}


# Controller to gateway.


class ModelCard(Part, frozen=True, kw_only=True, gc=False):
    """What a gateway must know of a registered model to check a request and to list it."""

    name: str
    engine: str
    tier: str
    tags: tuple[str, ...]
    api_paths: tuple[str, ...]
    context_tokens: int
    parameters: int
    created_s: int
    chat: bool
    tools: bool


class KeyCard(Part, frozen=True, kw_only=True, gc=False):
    """An API key as it is stored: `digest` is the hex SHA-256 of the secret, whose entropy is 256 bit."""

    id: str
    digest: str
    scopes: tuple[str, ...]
    rate_limit_per_min: int | None = None


class Welcome(Message, frozen=True, kw_only=True, gc=False):
    """The controller is there; `instance` changes when it is restarted, and then leases must be renewed."""

    version: str
    instance: str


class Catalog(Message, frozen=True, kw_only=True, gc=False):
    """All registered models and all API keys, as of now."""

    models: tuple[ModelCard, ...]
    keys: tuple[KeyCard, ...]


class Route(Part, frozen=True, kw_only=True, gc=False):
    """
    Which model was chosen and why.

    Attributes:
        model: the model chosen.
        mode: how it was asked for.
        reasons: sentences, the decisive one first.
        resident: it was in memory when the decision fell.
        difficulty: what the request was weighed as.
        considered: eligible candidates with the expected seconds to the end of a typical answer, best first.

    """

    model: str
    mode: str
    reasons: tuple[str, ...]
    resident: bool
    difficulty: float
    considered: tuple[tuple[str, float], ...] = ()


class Queued(Message, frozen=True, kw_only=True, gc=False):
    """It waits; `bound_s` is the longest it can take from now, `eta_s` what is likely."""

    id: str
    model: str
    position: int
    eta_s: float
    bound_s: float


class Loading(Message, frozen=True, kw_only=True, gc=False):
    """Its model is being loaded."""

    id: str
    model: str
    eta_s: float
    evicting: tuple[str, ...] = ()


class Granted(Message, frozen=True, kw_only=True, gc=False):
    """
    It may talk to the worker at `socket` until it gives the lease back, for `limit_s` at most.

    `slot` is the place in the worker where its conversation is; `fields` must be in the request, whatever the caller has set.
    """

    id: str
    model: str
    socket: str
    run: str
    route: Route | None = None
    limit_s: float
    waited_s: float
    bound_s: float
    loaded_s: float | None = None
    slot: int | None = None
    fields: dict[str, int | bool] = {}


class Refused(Message, frozen=True, kw_only=True, gc=False):
    """It is refused, before anything was sent."""

    id: str
    reason: Reason
    message: str
    retry_after_s: float | None = None
    details: dict[str, Any] = {}


class Revoked(Message, frozen=True, kw_only=True, gc=False):
    """
    The lease is over, as its worker or its time is.

    `cause` is an `ExitCause`, `removed`, `time_limit`, `unloaded`, or `memory_short` where other programs took the box's memory.
    """

    id: str
    cause: str
    message: str


class Result(Message, frozen=True, kw_only=True, gc=False):
    """What a `Call` asked for."""

    id: str
    body: Any


class Failed(Message, frozen=True, kw_only=True, gc=False):
    """A `Call` that could not be done."""

    id: str
    reason: Reason
    message: str
    details: dict[str, Any] = {}
    retry_after_s: float | None = None


Request = Acquire | Renew | Release | Call
Reply = Welcome | Catalog | Queued | Loading | Granted | Refused | Revoked | Result | Failed

_WRITER: Final = msgspec.json.Encoder()
_REQUESTS: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_REPLIES: Final[msgspec.json.Decoder[Reply]] = msgspec.json.Decoder(Reply)
_NO_MESSAGE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(message: Message) -> bytes:
    """Write one message as one line."""
    return _WRITER.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """
    Read what a gateway sent.

    Raises:
        ProtocolError: the line is no message of ours.

    """
    try:
        return _REQUESTS.decode(line)
    except _NO_MESSAGE as exc:
        raise ProtocolError(f"wanted acquire, renew, release or call, got {line[:80]!r}: {exc}") from exc


def decode_reply(line: bytes) -> Reply:
    """
    Read what the controller sent.

    Raises:
        ProtocolError: the line is no message of ours.

    """
    try:
        return _REPLIES.decode(line)
    except _NO_MESSAGE as exc:
        raise ProtocolError(f"wanted an answer of the controller, got {line[:80]!r}: {exc}") from exc
