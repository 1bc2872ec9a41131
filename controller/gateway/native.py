"""Our own paths: inference with its route and timings, batches, and what the controller tells and does."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from controller import wire
from controller.errors import Reason
from controller.gateway import choosing, forward, schemas, talks
from controller.gateway.auth import Need, may
from controller.gateway.box import Told
from controller.gateway.desk import Desk, Path
from controller.gateway.directory import Directory
from controller.gateway.forward import Job, Usage
from controller.gateway.inbound import Inbound
from controller.gateway.lease import Priority
from controller.gateway.openai import message_texts, read, route_headers
from controller.gateway.problems import Fault, Problem, ProblemError
from controller.gateway.schemas import BatchBody, BuildBody, InferenceBody, LoadBody, ModelBody, OptimizeBody, UnloadBody
from controller.spec import ApiPath

BATCH_WINDOW: Final = 32
"""Items of one batch that wait or run at once: enough to keep a model busy, too few to fill the queue."""
LOAD_TIMEOUT_S: Final = 900.0
"""How long a load that is waited for may take: a large model from a slow disk, behind others."""
HEALTH_TIMEOUT_S: Final = 3.0
LONGEST_TAIL: Final = 10_000
LONGEST_WINDOW_S: Final = 90 * 86400.0

_NOT_PASSED_ON: Final = choosing.OUR_FIELDS | {"prompt", "messages", "raw", "max_length", "stream"}
_WINDOW: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|h|d)?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


async def inference(desk: Desk, inbound: Inbound) -> None:
    """`POST /inference`."""
    raw = await read(desk, inbound)
    body = schemas.check(InferenceBody, raw)
    job = _job(inbound, body, raw, directory=desk.session.known(), deadline_s=choosing.deadline(inbound))
    if body.stream:
        await inbound.attended(forward.stream(desk, job, _Pieces(inbound)))
    else:
        await inbound.attended(_inference(desk, inbound, job))


async def _inference(desk: Desk, inbound: Inbound, job: Job) -> None:
    answer = await forward.whole(desk, job)
    await inbound.reply_json(_result(answer), headers=route_headers(answer.granted))


async def batch_inference(desk: Desk, inbound: Inbound) -> None:
    """`POST /batch_inference`."""
    raw = await read(desk, inbound)
    body = schemas.check(BatchBody, raw)
    items = _items(body, raw)
    await inbound.attended(_batch(desk, inbound, items))


async def _batch(desk: Desk, inbound: Inbound, items: Sequence[Mapping[str, Any]]) -> None:
    results: list[dict[str, Any]] = [{} for _ in items]
    window = asyncio.Semaphore(BATCH_WINDOW)
    directory = desk.session.known()

    async def serve(index: int) -> None:
        async with window:
            results[index] = {"index": index, **await _item(desk, inbound, directory, items[index])}

    async with asyncio.TaskGroup() as group:
        for index in _grouped(items):
            group.create_task(serve(index))
    failed = sum("error" in result for result in results)
    await inbound.reply_json({"results": results, "count": len(results), "failed": failed})


async def _item(desk: Desk, inbound: Inbound, directory: Directory, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Serve one request of a batch; what goes wrong with it is its own result."""
    try:
        job = _job(inbound, schemas.check(InferenceBody, raw), raw, directory=directory, priority="batch")
        return _result(await forward.whole(desk, job))
    except ProblemError as exc:
        return exc.problem.body()


def _items(body: BatchBody, raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    if (body.requests is None) == (body.prompts is None):
        raise ProblemError(Fault.BAD_FIELD, "wanted either requests or prompts, a list of at least one", param="requests")
    shared = {name: value for name, value in raw.items() if name not in ("requests", "prompts", "stream")}
    if body.prompts is not None:
        return [{**shared, "prompt": prompt} for prompt in body.prompts]
    return [{**shared, **request} for request in body.requests or ()]


def _grouped(items: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the order in which to ask: all that name one model in a row, models in the order in which they first appear."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(str(item.get("preferred_model") or item.get("model") or ""), []).append(index)
    return [index for group in groups.values() for index in group]


def _job(
    inbound: Inbound,
    body: InferenceBody,
    raw: Mapping[str, Any],
    *,
    directory: Directory,
    deadline_s: float | None = None,
    priority: Priority = "interactive",
) -> Job:
    if (body.prompt is None) == (body.messages is None):
        raise ProblemError(Fault.BAD_FIELD, "wanted either prompt or messages", param="prompt")
    limit = body.max_length or body.max_tokens or 0
    as_chat = body.messages is not None or bool(body.tools) or body.response_format is not None
    shared = {name: value for name, value in raw.items() if name not in _NOT_PASSED_ON}
    ask = choosing.choose(
        body,
        shared,
        directory=directory,
        api_path=ApiPath.CHAT if as_chat else ApiPath.COMPLETIONS,
        also=None if as_chat or body.raw else ApiPath.CHAT,
        texts=message_texts(body.messages) if body.messages is not None else [body.prompt or ""],
        turns=len(body.messages or ()) or 1,
        max_tokens=limit,
        auto_by_default=True,
        talk=_talk(inbound, body, raw),
    )
    if limit:
        shared["max_tokens"] = limit
    if body.stream:
        shared["stream"] = True
        shared.setdefault("stream_options", {"include_usage": True})

    def compose(model: str) -> tuple[str, Mapping[str, Any]]:
        if body.messages is not None:
            return ApiPath.CHAT.value, {"model": model, **shared, "messages": raw["messages"]}
        if as_chat or (not body.raw and _chats(directory, model)):
            return ApiPath.CHAT.value, {"model": model, **shared, "messages": [{"role": "user", "content": body.prompt}]}
        return ApiPath.COMPLETIONS.value, {"model": model, **shared, "prompt": body.prompt}

    return Job(ask=ask, compose=compose, priority=priority, deadline_s=deadline_s)


def _talk(inbound: Inbound, body: InferenceBody, raw: Mapping[str, Any]) -> wire.Talk:
    if body.messages is not None:
        return talks.of_chat(inbound, raw, body.messages, body.conversation_id)
    return talks.of_text(inbound, raw, body.prompt, body.conversation_id)


def _chats(directory: Directory, model: str) -> bool:
    card = directory.models.get(model)
    return card is not None and card.chat and ApiPath.CHAT.value in card.api_paths


def _result(answer: forward.Answer) -> dict[str, Any]:
    try:
        return _completion(answer, orjson.loads(answer.body))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        text = f"the worker of {answer.granted.model} answered something else than a completion"
        raise ProblemError(Fault.WORKER_ERROR, text, details={"model": answer.granted.model}) from None


def _completion(answer: forward.Answer, said: Any) -> dict[str, Any]:  # noqa: ANN401 -- a worker may say anything
    first = said["choices"][0]
    message = first.get("message") or {}
    result = {
        "response": message.get("content") if "message" in first else first.get("text"),
        "model": answer.granted.model,
        "route": route(answer.granted),
        "usage": said.get("usage") or counted(answer.usage),
        "timings": timings(answer.granted, answer.usage, said.get("timings")),
        "finish_reason": first.get("finish_reason"),
    }
    if message.get("tool_calls"):
        result["tool_calls"] = message["tool_calls"]
    return result


def route(granted: wire.Granted) -> dict[str, Any]:
    """Return which model was chosen and why."""
    if granted.route is None:
        return {"model": granted.model, "mode": "manual", "reasons": []}
    return msgspec.structs.asdict(granted.route)


def counted(usage: Usage) -> dict[str, int]:
    """Return the tokens as OpenAI names them."""
    total = usage.prompt_tokens + usage.completion_tokens
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": total}


def timings(granted: wire.Granted, usage: Usage, engine: object = None) -> dict[str, Any]:
    """Return where the seconds went: waiting, loading, and answering, counted from the grant."""
    spent_s = usage.total_s - (usage.first_token_s or 0.0)
    return {
        "waited_s": granted.waited_s,
        "bound_s": granted.bound_s,
        "loaded_s": granted.loaded_s,
        "first_token_s": usage.first_token_s,
        "total_s": usage.total_s,
        "tokens_per_s": usage.completion_tokens / spent_s if usage.completion_tokens and spent_s > 0 else None,
        "engine": engine,
    }


@dataclass(slots=True)
class _Pieces:
    """Translates a worker's events: one with `response` for each piece of text, and a last one with `done` and the figures."""

    inbound: Inbound
    granted: wire.Granted | None = None
    finish_reason: str | None = None
    usage: object = None
    engine: object = None

    async def begin(self, granted: wire.Granted, content_type: bytes) -> None:
        """Start the answer."""
        self.granted = granted
        headers = [*route_headers(granted), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self.inbound.start(200, content_type, headers)

    async def events(self, data: bytes) -> None:
        """Take the text out of them."""
        out = b"".join(self._piece(line[5:].strip()) for line in data.splitlines() if line.startswith(b"data:"))
        if out:
            await self.inbound.part(out)

    def _piece(self, data: bytes) -> bytes:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            return b""  # the closing [DONE], which `done` replaces
        if not isinstance(event, dict):
            return b""
        if "error" in event:
            return _event(event)
        self.usage = event.get("usage") or self.usage
        self.engine = event.get("timings") or self.engine
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):  # a worker runs other people's code
                continue
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta")
            text = choice["text"] if "text" in choice else delta.get("content") if isinstance(delta, dict) else None
            if text:
                return _event({"response": text})
        return b""

    async def fail(self, problem: Problem) -> None:
        """End with the problem."""
        await self.inbound.end(_event(problem.body()))

    async def end(self, usage: Usage) -> None:
        """End with the figures."""
        assert self.granted is not None
        await self.inbound.end(
            _event(
                {
                    "done": True,
                    "model": self.granted.model,
                    "route": route(self.granted),
                    "usage": self.usage or counted(usage),
                    "timings": timings(self.granted, usage, self.engine),
                    "finish_reason": self.finish_reason,
                }
            )
        )


def _event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value, default=str) + b"\n\n"


# What the controller tells and does.


async def health(desk: Desk, inbound: Inbound) -> None:
    """`GET /health`: open to all; the reasons are for those who may ask models."""
    state, reasons = await _health(desk)
    told = reasons if desk.guard.trusts(inbound, desk.session.directory) else []
    await inbound.reply_json({"status": state, "reasons": told}, status=503 if state == "failing" else 200)


async def _health(desk: Desk) -> tuple[str, list[str]]:
    if (absence := desk.session.absence) is not None:
        if absence.is_alarming(asyncio.get_running_loop().time()):
            return "failing", ["the controller is away"]
        return "degraded", ["the controller was lost a moment ago; callers wait for it"]
    try:
        told = await desk.health.ask(timeout_s=HEALTH_TIMEOUT_S)
    except ProblemError as exc:
        return "failing", [str(exc)]
    if not isinstance(told, dict):
        return "ok", []
    return str(told.get("state", "ok")), [str(reason) for reason in told.get("reasons", ())]


async def status(desk: Desk, inbound: Inbound) -> None:
    """`GET /status`."""
    await inbound.reply_json(await desk.session.call("status"))


async def models(desk: Desk, inbound: Inbound) -> None:
    """`GET /models`."""
    await inbound.reply_json(await desk.session.call("models"))


async def performance(desk: Desk, inbound: Inbound) -> None:
    """`GET /performance`."""
    text = inbound.query().get("window", "1h")
    match = _WINDOW.fullmatch(text.strip())
    window_s = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < window_s <= LONGEST_WINDOW_S:
        raise ProblemError(
            Fault.BAD_FIELD, f"window: wanted a time up to 90d such as 600, 15m or 24h, got {text[:40]!a}", param="window"
        )
    await inbound.reply_json(await desk.session.call("performance", {"window_s": window_s}))


async def plan(desk: Desk, inbound: Inbound) -> None:
    """`GET /plan/{model}`."""
    card = desk.session.known().model(inbound.names["model"])
    await inbound.reply_json(await desk.session.call("plan", {"model": card.name}))


async def logs(desk: Desk, inbound: Inbound) -> None:
    """`GET /models/{model}/logs`."""
    card = desk.session.known().model(inbound.names["model"])
    text = inbound.query().get("tail", "200")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LONGEST_TAIL):
        raise ProblemError(Fault.BAD_FIELD, f"tail: wanted lines from 1 to {LONGEST_TAIL}, got {text[:40]!a}", param="tail")
    await inbound.reply_json(await desk.session.call("logs", {"model": card.name, "tail": int(text)}))


async def load_model(desk: Desk, inbound: Inbound) -> None:
    """`POST /load_model`."""
    body = schemas.check(LoadBody, await read(desk, inbound))
    await _residency(desk, inbound, "load", body, {})


async def unload_model(desk: Desk, inbound: Inbound) -> None:
    """`POST /unload_model`."""
    body = schemas.check(UnloadBody, await read(desk, inbound))
    await _residency(desk, inbound, "unload", body, {"force": body.force})


async def build_model(desk: Desk, inbound: Inbound) -> None:
    """`POST /build_model`."""
    body = schemas.check(BuildBody, await read(desk, inbound))
    arguments = {"model": _named(desk, body), "quantization": body.quantization}
    await inbound.reply_json(await desk.session.call("build", arguments))


async def cancel_build(desk: Desk, inbound: Inbound) -> None:
    """`POST /cancel_build`."""
    body = schemas.check(ModelBody, await read(desk, inbound))
    await inbound.reply_json(await desk.session.call("builds.cancel", {"model": _named(desk, body)}))


async def builds(desk: Desk, inbound: Inbound) -> None:
    """`GET /builds`."""
    await inbound.reply_json(await desk.session.call("builds"))


def _named(desk: Desk, body: ModelBody) -> str:
    """Return the registered model that a body names."""
    name = body.model_name or body.model
    if name is None:
        raise ProblemError(Reason.MALFORMED, "model_name: wanted the name of a model", param="model_name")
    return desk.session.known().model(name, param="model_name" if body.model_name else "model").name


async def _residency(desk: Desk, inbound: Inbound, verb: str, body: LoadBody, more: Mapping[str, Any]) -> None:
    arguments = {"model": _named(desk, body), "wait": body.wait, **more}
    await inbound.reply_json(await inbound.attended(desk.session.call(verb, arguments, timeout_s=LOAD_TIMEOUT_S)))


async def optimize(desk: Desk, inbound: Inbound) -> None:
    """`POST /optimize`."""
    data = await inbound.body(limit_bytes=desk.settings.gateway.max_body)
    if data.strip():
        schemas.parse_object(data)
    await inbound.reply_json(await inbound.attended(desk.session.call("optimize", timeout_s=LOAD_TIMEOUT_S)))


async def conversations(desk: Desk, inbound: Inbound) -> None:
    """`GET /conversations`: the caller's own, on the disk."""
    await inbound.reply_json(await desk.session.call("conversations.list", {"owner": talks.owner(inbound)}))


async def delete_conversation(desk: Desk, inbound: Inbound) -> None:
    """`DELETE /conversations/{id}`: by the caller's own name for it, or by the id that the list shows."""
    given = inbound.names["id"]
    arguments = {"owner": talks.owner(inbound), "name": talks.named(given), "id": given}
    await inbound.reply_json(await desk.session.call("conversations.delete", arguments))


async def clear_conversations(desk: Desk, inbound: Inbound) -> None:
    """`DELETE /conversations`: everybody's."""
    await inbound.reply_json(await desk.session.call("conversations.clear"))


async def metrics(desk: Desk, inbound: Inbound) -> None:
    """`GET /metrics`: what is counted here, and for those who may read `/status` what the controller tells of the box."""
    desk.metrics.leases.set(desk.session.held)
    desk.metrics.controller_up.set(1 if desk.session.connected else 0)
    text = desk.metrics.text()
    if may(inbound.key, Need.ADMIN):
        text += await _box(desk)
    await inbound.reply(text, content_type=b"text/plain; version=0.0.4; charset=utf-8")


async def _box(desk: Desk) -> bytes:
    try:
        told = await desk.session.call("status", timeout_s=HEALTH_TIMEOUT_S)
    except ProblemError:
        return b""  # `controller_up` says so
    return Told(told).text() if isinstance(told, dict) else b""


PATHS: Final = (
    Path(method="GET", path="/health", need=Need.NOTHING, handle=health, summary="Whether it works: ok, degraded or failing"),
    Path(method="GET", path="/status", need=Need.ADMIN, handle=status, summary="Memory, workers, queue, temperature, disk"),
    Path(method="GET", path="/models", need=Need.INFERENCE, handle=models, summary="Every registered model and its state"),
    Path(
        method="GET",
        path="/models/{model}/logs",
        need=Need.ADMIN,
        handle=logs,
        summary="The last lines a model's worker wrote",
        query={"tail": {"type": "integer", "minimum": 1, "maximum": LONGEST_TAIL, "default": 200}},
    ),
    Path(method="GET", path="/plan/{model}", need=Need.ADMIN, handle=plan, summary="What loading a model would evict, and why"),
    Path(method="POST", path="/load_model", need=Need.ADMIN, handle=load_model, summary="Load a model", body=LoadBody),
    Path(method="POST", path="/unload_model", need=Need.ADMIN, handle=unload_model, summary="Unload a model", body=UnloadBody),
    Path(
        method="GET", path="/builds", need=Need.ADMIN, handle=builds, summary="Engine files: built, under way, waiting or failed"
    ),
    Path(
        method="POST",
        path="/build_model",
        need=Need.ADMIN,
        handle=build_model,
        summary="Build a model's engine file now",
        body=BuildBody,
    ),
    Path(
        method="POST",
        path="/cancel_build",
        need=Need.ADMIN,
        handle=cancel_build,
        summary="Stop building for a model until it is asked for",
        body=ModelBody,
    ),
    Path(
        method="POST",
        path="/inference",
        need=Need.INFERENCE,
        handle=inference,
        summary="Ask a model, or have one chosen, and hear why",
        body=InferenceBody,
        streams=True,
    ),
    Path(
        method="POST",
        path="/batch_inference",
        need=Need.INFERENCE,
        handle=batch_inference,
        summary="Ask many things at once, grouped by model",
        body=BatchBody,
    ),
    Path(
        method="GET",
        path="/conversations",
        need=Need.INFERENCE,
        handle=conversations,
        summary="The caller's own conversations on the disk",
    ),
    Path(
        method="DELETE",
        path="/conversations/{id}",
        need=Need.INFERENCE,
        handle=delete_conversation,
        summary="Forget a conversation, on the disk and in memory",
    ),
    Path(
        method="DELETE",
        path="/conversations",
        need=Need.ADMIN,
        handle=clear_conversations,
        summary="Forget everybody's conversations",
    ),
    Path(
        method="GET",
        path="/performance",
        need=Need.ADMIN,
        handle=performance,
        summary="Speed, latencies, loads and swaps",
        query={"window": {"type": "string", "default": "1h", "description": "Seconds, or a number with s, m, h or d."}},
    ),
    Path(method="POST", path="/optimize", need=Need.ADMIN, handle=optimize, summary="Free what is not needed", body=OptimizeBody),
    Path(
        method="GET",
        path="/metrics",
        need=Need.INFERENCE,
        handle=metrics,
        summary="Counters for Prometheus; the box's own with the scope `admin`",
        answers={"type": "string"},
        content_type="text/plain",
    ),
)
