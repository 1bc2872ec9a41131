"""OpenAI's paths: what their clients send, checked, and what the worker answers, as it is."""

from collections.abc import Mapping
from typing import Any, Final

from controller import wire
from controller.gateway import choosing, forward, schemas, talks
from controller.gateway.auth import Need
from controller.gateway.desk import Desk, Path
from controller.gateway.directory import listed
from controller.gateway.forward import Answer, Job, Usage
from controller.gateway.inbound import Inbound
from controller.gateway.problems import Problem
from controller.gateway.schemas import ChatBody, CompletionBody, EmbeddingBody, Message
from controller.spec import ApiPath

_LONGEST_REASON: Final = 200


async def models(desk: Desk, inbound: Inbound) -> None:
    """`GET /v1/models`."""
    await inbound.reply(desk.session.known().list_bytes())


async def model(desk: Desk, inbound: Inbound) -> None:
    """`GET /v1/models/{model}`."""
    await inbound.reply_json(listed(desk.session.known().model(inbound.names["model"])))


async def chat(desk: Desk, inbound: Inbound) -> None:
    """`POST /v1/chat/completions`."""
    raw = await read(desk, inbound)
    body = schemas.check(ChatBody, raw)
    limit = body.max_tokens or body.max_completion_tokens or 0
    texts = message_texts(body.messages)
    ask = choosing.choose(
        body,
        raw,
        directory=desk.session.known(),
        api_path=ApiPath.CHAT,
        texts=texts,
        turns=len(body.messages),
        max_tokens=limit,
        talk=talks.of_chat(inbound, raw, body.messages, body.conversation_id),
    )
    if limit:
        raw.pop("max_completion_tokens", None)  # the engines know the older name
        raw["max_tokens"] = limit
    await _serve(desk, inbound, ask, raw, streamed=bool(body.stream))


async def completions(desk: Desk, inbound: Inbound) -> None:
    """`POST /v1/completions`."""
    raw = await read(desk, inbound)
    body = schemas.check(CompletionBody, raw)
    texts, token_count = _prompt(body.prompt)
    ask = choosing.choose(
        body,
        raw,
        directory=desk.session.known(),
        api_path=ApiPath.COMPLETIONS,
        texts=texts,
        token_count=token_count,
        max_tokens=body.max_tokens or 0,
        talk=talks.of_text(inbound, raw, body.prompt, body.conversation_id),
    )
    await _serve(desk, inbound, ask, raw, streamed=bool(body.stream))


async def embeddings(desk: Desk, inbound: Inbound) -> None:
    """`POST /v1/embeddings`."""
    raw = await read(desk, inbound)
    body = schemas.check(EmbeddingBody, raw)
    texts, token_count = _prompt(body.input)
    ask = choosing.choose(
        body, raw, directory=desk.session.known(), api_path=ApiPath.EMBEDDINGS, texts=texts, token_count=token_count
    )
    await _serve(desk, inbound, ask, raw, streamed=False)


async def read(desk: Desk, inbound: Inbound) -> dict[str, Any]:
    """Read a body as a JSON object."""
    return schemas.parse_object(await inbound.body(limit_bytes=desk.settings.gateway.max_body))


def message_texts(messages: list[Message]) -> list[str]:
    """Return the texts of a conversation, the text parts of composed messages included."""
    texts: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        elif message.content:
            texts.extend(part["text"] for part in message.content if isinstance(part.get("text"), str))
    return texts


def passed_on(raw: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the body as the worker gets it: the chosen model's name, and nothing that was meant for us."""
    return {"model": model, **{name: value for name, value in raw.items() if name not in choosing.OUR_FIELDS}}


def route_headers(granted: wire.Granted) -> list[tuple[bytes, bytes]]:
    """Return what an answer says about how it came to be, short enough for headers."""
    headers = [
        (b"x-windlass-model", granted.model.encode()),
        (b"x-windlass-waited-ms", b"%d" % round(granted.waited_s * 1000)),
        (b"x-windlass-bound-s", b"%.3f" % granted.bound_s),
    ]
    if granted.route is not None:
        reason = granted.route.reasons[0] if granted.route.reasons else ""
        text = f"{granted.route.mode}; {'resident' if granted.route.resident else 'loaded'}; {reason}"
        headers.append((b"x-windlass-route", _plain(text)[:_LONGEST_REASON]))
    return headers


async def _serve(desk: Desk, inbound: Inbound, ask: wire.Ask, raw: Mapping[str, Any], *, streamed: bool) -> None:
    job = Job(ask=ask, compose=lambda model: (ask.api_path, passed_on(raw, model)), deadline_s=choosing.deadline(inbound))
    if streamed:
        await inbound.attended(forward.stream(desk, job, PassedOn(inbound)))
    else:
        await inbound.attended(_whole(desk, inbound, job))


async def _whole(desk: Desk, inbound: Inbound, job: Job) -> None:
    answer: Answer = await forward.whole(desk, job)
    await inbound.reply(answer.body, content_type=answer.content_type, headers=route_headers(answer.granted))


class PassedOn:
    """Hands a worker's events on as they are."""

    def __init__(self, inbound: Inbound) -> None:
        """Answer this request."""
        self._inbound = inbound

    async def begin(self, granted: wire.Granted, content_type: bytes) -> None:
        """Start the answer."""
        headers = [*route_headers(granted), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._inbound.start(200, content_type, headers)

    async def events(self, data: bytes) -> None:
        """Hand them on."""
        await self._inbound.part(data)

    async def fail(self, problem: Problem) -> None:
        """End with an error event, which OpenAI's clients raise."""
        await self._inbound.end(b"data: " + problem.body_bytes() + b"\n\n")

    async def end(self, usage: Usage) -> None:  # noqa: ARG002 -- the worker's own last event holds it
        """End the answer."""
        await self._inbound.end()


def _prompt(value: str | list[str] | list[int] | list[list[int]]) -> tuple[list[str], int]:
    """Return a prompt's text, or the count of its tokens; of several prompts each is served alone, so the longest counts."""
    if isinstance(value, str):
        return [value], 0
    texts = [item for item in value if isinstance(item, str)]
    if texts:
        return [max(texts, key=len)], 0
    lists = [len(item) for item in value if isinstance(item, list)]
    return [], max(lists) if lists else len(value)


def _plain(text: str) -> bytes:
    """Make a text fit for a header: one line of printable ASCII."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text).encode("ascii")


PATHS: Final = (
    Path(method="GET", path="/v1/models", need=Need.INFERENCE, handle=models, summary="List the models"),
    Path(method="GET", path="/v1/models/{model}", need=Need.INFERENCE, handle=model, summary="Describe one model"),
    Path(
        method="POST",
        path="/v1/chat/completions",
        need=Need.INFERENCE,
        handle=chat,
        summary="Continue a conversation",
        body=ChatBody,
        streams=True,
    ),
    Path(
        method="POST",
        path="/v1/completions",
        need=Need.INFERENCE,
        handle=completions,
        summary="Continue a text",
        body=CompletionBody,
        streams=True,
    ),
    Path(
        method="POST",
        path="/v1/embeddings",
        need=Need.INFERENCE,
        handle=embeddings,
        summary="Embed texts as vectors",
        body=EmbeddingBody,
    ),
)
