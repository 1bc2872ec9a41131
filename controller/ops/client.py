"""
A small client of the native API, for the command line.

It speaks HTTP with the standard library alone, so that a verb starts quickly, and turns whatever goes wrong into one of two
errors: nobody answered, or the answer was an error.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from controller.errors import AnswerError, UnreachableError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
PATIENCE_S: Final = 15.0
"""How long a question about the state may take."""
LOAD_PATIENCE_S: Final = 900.0
"""How long loading, unloading and answering may take: a load waits for its turn."""

_REFUSED_FROM: Final = 400
_FAILED_FROM: Final = 500
_NOT_NOW: Final = 503


class Api:
    """The gateway at one URL."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """
        Take the address apart.

        Raises:
            UnreachableError: it is not an http or https URL.

        """
        wrong = UnreachableError(f"wanted a URL such as {DEFAULT_URL}, got {url!r}; set WINDLASS_URL or --url")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise wrong from exc
        if parts.scheme not in {"http", "https"} or not host:
            raise wrong
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host = host
        self._port = port
        self._prefix = parts.path.rstrip("/")
        self._key = key

    def get(self, path: str, *, query: Mapping[str, str | int] | None = None) -> Any:  # noqa: ANN401
        """Ask for *path* and return the body."""
        return self._exchange("GET", path + (f"?{urlencode(query)}" if query else ""), None, PATIENCE_S)

    def post(self, path: str, body: Mapping[str, object], *, patience_s: float = LOAD_PATIENCE_S) -> Any:  # noqa: ANN401
        """Send *body* to *path* and return the answer's body."""
        return self._exchange("POST", path, body, patience_s)

    def health(self, *, patience_s: float = PATIENCE_S) -> Any:  # noqa: ANN401
        """Return the body of `/health`, which is no error when the state is failing."""
        return self._exchange("GET", "/health", None, patience_s, allowed=_NOT_NOW)

    def stream(self, path: str, body: Mapping[str, object]) -> Iterator[Any]:
        """Send *body* to *path* and yield the events of the answer until it is done."""
        with (
            closing(self._connect(LOAD_PATIENCE_S)) as connection,
            closing(self._send(connection, "POST", path, body)) as response,
        ):
            if response.status >= _REFUSED_FROM:
                raise _answer_error(response.status, self._read(response, LOAD_PATIENCE_S), url=self.url)
            try:
                yield from _events(response)
            except (OSError, http.client.HTTPException) as exc:
                raise UnreachableError(f"the answer of {self.url} broke off: {exc or type(exc).__name__}") from exc

    def _exchange(self, method: str, path: str, body: Mapping[str, object] | None, patience_s: float, *, allowed: int = 0) -> Any:  # noqa: ANN401
        with closing(self._connect(patience_s)) as connection:
            response = self._send(connection, method, path, body)
            data = self._read(response, patience_s)
        if response.status >= _REFUSED_FROM and response.status != allowed:
            raise _answer_error(response.status, data, url=self.url)
        try:
            return json.loads(data)
        except ValueError as exc:
            raise AnswerError(
                f"wanted JSON from {self.url}{path}, got {data[:80]!r}; is it Windlass?", code=None, refused=False
            ) from exc

    def _connect(self, patience_s: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return connection(self._host, self._port, timeout=patience_s)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Mapping[str, object] | None
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        payload = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, self._prefix + path, payload, headers)
            return connection.getresponse()
        except TimeoutError as exc:
            raise UnreachableError(f"{self.url} did not answer within {connection.timeout:.0f} s; see `windlass status`") from exc
        except (OSError, http.client.HTTPException, UnicodeError) as exc:
            raise UnreachableError(
                f"no gateway answers at {self.url} ({exc or type(exc).__name__}); start it with `make run`, or set WINDLASS_URL"
            ) from exc

    def _read(self, response: http.client.HTTPResponse, patience_s: float) -> bytes:
        try:
            return response.read()
        except TimeoutError as exc:
            raise UnreachableError(f"{self.url} began to answer and did not end within {patience_s:.0f} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise UnreachableError(f"the answer of {self.url} broke off: {exc or type(exc).__name__}") from exc


def segment(name: str) -> str:
    """Quote a name for use as one segment of a path."""
    return quote(name, safe="")


def _answer_error(status: int, data: bytes, *, url: str) -> AnswerError:
    refused = status < _FAILED_FROM or status == _NOT_NOW
    try:
        error = json.loads(data)["error"]
        return AnswerError(str(error["message"]), code=error.get("code") or error.get("type"), refused=refused)
    except (ValueError, LookupError, TypeError, AttributeError):
        text = data[:200].decode(errors="replace").strip()
        return AnswerError(f"{url} answered {status}: {text or 'nothing more'}", code=None, refused=refused)


def _events(response: http.client.HTTPResponse) -> Iterator[Any]:
    for line in response:
        field, _, value = line.decode(errors="replace").strip().partition(":")
        if field != "data":
            continue
        if value.strip() == "[DONE]":
            return
        try:
            event = json.loads(value)
        except ValueError:
            continue  # a comment or a line of a dialect we do not speak
        if isinstance(event, dict) and "error" in event:
            raise _answer_error(_FAILED_FROM, json.dumps(event).encode(), url="the gateway")
        yield event
