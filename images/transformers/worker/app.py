"""The routes: requests are read, answers written, hang-ups noticed. Everything that computes is in the runner's hands."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from worker import replies, sse
from worker.arguments import Api, Arguments
from worker.errors import RequestError, context_exceeded, envelope
from worker.runner import Runner
from worker.schemas import ChatRequest, CompletionRequest, EmbeddingsRequest, Sampled, Strict
from worker.sequence import Finished, Job, Piece, Sampling, Timings
from worker.served import Served, Vectors
from worker.work import HungUpError, Work, unless_gone

Body = TypeVar("Body", bound=Strict)


@dataclass(slots=True, kw_only=True)
class Service:
    """
    What the routes stand on.

    Attributes:
        arguments: the command line.
        runner: where the computing is done.
        served: the checkpoint, once it is loaded.

    """

    arguments: Arguments
    runner: Runner
    served: Served | None = None

    def ready(self) -> Served:
        """Return the checkpoint, or refuse: it is still being loaded."""
        if self.served is None:
            raise RequestError("The model is being loaded; ask again in a moment.", status=503, code="loading")
        return self.served

    def offer(self, api: Api, model: str | None) -> Served:
        """Return the checkpoint for a request to *api*, or refuse what is not served here."""
        if model not in (None, self.arguments.model_name):
            message = f"This worker serves {self.arguments.model_name!r} and nothing else, but {model!r} was asked for."
            raise RequestError(message, status=404, code="model_not_found", param="model")
        if api not in self.arguments.apis:
            raise RequestError(
                f"This model is not served for {api}; it is for {', '.join(sorted(self.arguments.apis))}.", status=404
            )
        return self.ready()


def build(service: Service) -> FastAPI:
    """Make the application."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    name, begun_s = service.arguments.model_name, int(time.time())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        service.ready()
        active, waiting = service.runner.counts()
        return {"status": "ok", "active": active, "waiting": waiting}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        served = service.ready()
        model = {"id": name, "object": "model", "created": begun_s, "owned_by": "windlass"}
        return {"object": "list", "data": [{**model, "context_tokens": served.context_tokens, "device": served.device}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = _read(ChatRequest, await request.body())
        body.refuse()
        served = service.offer(Api.CHAT, body.model)
        prompt = await asyncio.to_thread(served.prompts.chat, body.messages)
        form = replies.Form(chat=True, model=name, reply_id=f"chatcmpl-{uuid.uuid4().hex}", created_s=int(time.time()))
        return await _answer(request, service, form, body, [_job(served, body, prompt, param="messages")])

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = _read(CompletionRequest, await request.body())
        body.refuse()
        served = service.offer(Api.COMPLETIONS, body.model)
        prompts = await asyncio.to_thread(lambda: [served.prompts.text(prompt, param="prompt") for prompt in body.prompts])
        form = replies.Form(chat=False, model=name, reply_id=f"cmpl-{uuid.uuid4().hex}", created_s=int(time.time()))
        return await _answer(request, service, form, body, [_job(served, body, prompt, param="prompt") for prompt in prompts])

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        body = _read(EmbeddingsRequest, await request.body())
        body.refuse()
        served = service.offer(Api.EMBEDDINGS, body.model)
        inputs = await asyncio.to_thread(lambda: [served.prompts.text(text, param="input") for text in body.inputs])
        longest = max(map(len, inputs))
        if longest > served.context_tokens:
            raise context_exceeded(prompt_tokens=longest, max_tokens=0, context_tokens=served.context_tokens, param="input")
        return await _embed(request, service, body, inputs)

    _explain(app)
    return app


def _explain(app: FastAPI) -> None:
    """Write every error as OpenAI does, those of the framework too."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, exc: RequestError) -> Response:
        return JSONResponse(exc.body(), exc.status, {"Retry-After": "1"} if exc.status == 503 else None)

    @app.exception_handler(HTTPException)
    async def unrouted(_: Request, exc: HTTPException) -> Response:
        return JSONResponse(envelope(str(exc.detail), status=exc.status_code), exc.status_code, exc.headers)

    @app.exception_handler(HungUpError)
    async def hung_up(_: Request, __: HungUpError) -> Response:
        return Response(status_code=499)  # nobody reads it: the caller has gone

    @app.exception_handler(Exception)
    async def failed(_: Request, exc: Exception) -> Response:
        return JSONResponse(envelope(f"The worker failed: {type(exc).__name__}.", status=500, code="internal_error"), 500)


def _read(kind: type[Body], raw: bytes) -> Body:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        raise RequestError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}", param=param) from exc


def _job(served: Served, body: Sampled, prompt: tuple[int, ...], *, param: str) -> Job:
    left_tokens = served.context_tokens - len(prompt)
    max_tokens = body.limit_tokens or max(1, left_tokens)
    if max_tokens > left_tokens:
        raise context_exceeded(
            prompt_tokens=len(prompt), max_tokens=max_tokens, context_tokens=served.context_tokens, param=param
        )
    told = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
    how = (
        {"temperature": 1.0, "top_p": 1.0, "top_k": 0} | dict(served.defaults) | {k: v for k, v in told.items() if v is not None}
    )
    return Job(
        prompt=prompt,
        max_tokens=max_tokens,
        stops=body.stops,
        sampling=Sampling(
            temperature=how["temperature"],
            top_p=how["top_p"],
            top_k=int(how["top_k"]),
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            seed=body.seed,
        ),
        ignore_eos=bool(body.ignore_eos),
    )


async def _answer(request: Request, service: Service, form: replies.Form, body: Sampled, jobs: Sequence[Job]) -> Response:
    answer = service.ready().causal
    if answer is None:
        raise RequestError("This checkpoint makes vectors and continues no text.", status=404)
    work: Work[Piece | Finished] = Work(service.runner, [partial(answer, job) for job in jobs])
    try:
        if not body.stream:
            choices = await unless_gone(request, _collect(work, count=len(jobs)))
            return JSONResponse(form.whole(choices))
        # The status line waits for the first result, so an answer that cannot begin is still an honest error.
        first = await unless_gone(request, work.next())
    except BaseException:
        work.cancel()
        raise
    frames = _frames(work, first, form, count=len(jobs), include_usage=body.include_usage)
    return StreamingResponse(frames, media_type=sse.MEDIA_TYPE, headers={"Cache-Control": "no-cache"})


async def _collect(work: Work[Piece | Finished], *, count: int) -> list[replies.Choice]:
    texts: list[list[str]] = [[] for _ in range(count)]
    choices: dict[int, replies.Choice] = {}
    while len(choices) < count:
        match await work.next():
            case index, Piece(text=text):
                texts[index].append(text)
            case index, Finished(reason=reason, timings=timings):
                choices[index] = replies.Choice(text="".join(texts[index]), reason=reason, timings=timings)
    return [choices[index] for index in range(count)]


async def _frames(
    work: Work[Piece | Finished], first: tuple[int, Piece | Finished], form: replies.Form, *, count: int, include_usage: bool
) -> AsyncIterator[bytes]:
    def frame(body: dict[str, Any], **more: object) -> bytes:
        # With include_usage, OpenAI gives every chunk the field and only the last one a value.
        return sse.frame({**body, **({"usage": None} if include_usage and "usage" not in body else {}), **more})

    try:
        if form.chat:
            for index in range(count):
                yield frame(form.opening(index))
        done: list[Timings] = []
        result: tuple[int, Piece | Finished] | None = first
        while len(done) < count:
            match result or await work.next():
                case index, Piece(text=text):
                    yield frame(form.piece(index, text))
                case index, Finished(reason=reason, timings=timings):
                    done.append(timings)
                    last = len(done) == count and not include_usage
                    yield frame(form.closing(index, reason), **({"timings": replies.timed(done)} if last else {}))
            result = None
        if include_usage:
            yield frame(form.summary(done), timings=replies.timed(done))
        yield sse.DONE
    except RequestError as exc:
        yield sse.frame(exc.body())
    finally:
        # Also where the caller hangs up: the response is cancelled while it waits for the next result.
        work.cancel()


async def _embed(request: Request, service: Service, body: EmbeddingsRequest, inputs: Sequence[Sequence[int]]) -> Response:
    embedder = service.ready().embedder
    if embedder is None:
        raise RequestError("This checkpoint is not served for embeddings.", status=404)
    work: Work[Vectors] = Work(service.runner, [partial(embedder.embed, inputs)])
    try:
        _, vectors = await unless_gone(request, work.next())
    finally:
        work.cancel()
    reply = replies.embeddings(
        vectors,
        model=service.arguments.model_name,
        prompt_tokens=sum(map(len, inputs)),
        as_base64=body.encoding_format == "base64",
    )
    return JSONResponse(reply)
