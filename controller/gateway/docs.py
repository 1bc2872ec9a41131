"""The OpenAPI document, made of the same table that serves the paths, and a page that shows it without any other site."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from controller.gateway.auth import Need
from controller.gateway.desk import Desk, Path
from controller.gateway.inbound import Inbound
from controller.gateway.problems import SHAPES

DESCRIPTION: Final = "Many models on disk, a few in memory, one API in front. OpenAI's clients work under `/v1`."

_REFERENCE: Final = "#/components/schemas/{model}"
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "details": {"type": "object"},
            },
        }
    },
}
_POLICY: Final = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


async def page(desk: Desk, inbound: Inbound) -> None:  # noqa: ARG001 -- all handlers look alike
    """`GET /docs`."""
    html = files("controller.gateway").joinpath("docs.html").read_bytes()
    headers = [(b"content-security-policy", _POLICY), (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY")]
    await inbound.reply(html, content_type=b"text/html; charset=utf-8", headers=headers)


async def document(desk: Desk, inbound: Inbound) -> None:  # noqa: ARG001
    """`GET /openapi.json`."""
    app: FastAPI = inbound.scope["app"]
    await inbound.reply_json(app.openapi())


async def root(desk: Desk, inbound: Inbound) -> None:  # noqa: ARG001
    """`GET /`: the page."""
    await inbound.reply(b"", status=307, headers=[(b"location", b"/docs")])


PATHS: Final = (
    Path(method="GET", path="/", need=Need.NOTHING, handle=root, summary="Go to the documentation"),
    Path(
        method="GET",
        path="/docs",
        need=Need.NOTHING,
        handle=page,
        summary="This documentation, as a page",
        answers={"type": "string"},
        content_type="text/html",
    ),
    Path(method="GET", path="/openapi.json", need=Need.NOTHING, handle=document, summary="This documentation, for programs"),
)


def describe(app: FastAPI, paths: Sequence[Path]) -> None:
    """Complete what FastAPI writes about itself: the bodies, the error and the key that its paths refer to."""
    written = app.openapi()
    bodies = list(dict.fromkeys(path.body for path in paths if path.body is not None))
    _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    components = written.setdefault("components", {})
    components["schemas"] = {**definitions.get("$defs", {}), "Error": _ERROR}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "Not needed on loopback."}}


def operation(path: Path) -> dict[str, Any]:
    """Describe one path for the OpenAPI document."""
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{path.method.lower()}{path.path}").strip("_"),
        "summary": path.summary,
        "tags": ["OpenAI" if path.path.startswith("/v1/") else "Windlass"],
        "parameters": [*_in_path(path), *_in_query(path)],
        "responses": _responses(path),
        "security": [] if path.need is Need.NOTHING else [{}, {"key": [path.need.value]}],
    }
    if path.body is not None:
        schema = {"$ref": _REFERENCE.format(model=path.body.__name__)}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _in_path(path: Path) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", path.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]


def _in_query(path: Path) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in path.query.items()]


def _responses(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = {path.content_type: {"schema": path.answers}}
    if path.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}}}
    if path.path == "/":
        return {"307": {"description": "The page is at /docs"}}
    responses: dict[str, Any] = {"200": {"description": "Done", "content": content}}
    if path.path == "/health":
        responses["503"] = {"description": "It is failing", "content": content}
        return responses
    statuses = sorted({shape.status for shape in SHAPES.values()})
    return responses | {str(status): {"description": "See `error.code`", **error} for status in statuses}
