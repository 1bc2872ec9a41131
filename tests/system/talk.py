"""Callers of a running stack: plain HTTP, whole answers and streams that can be read one event at a time."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from bench.stack import Stack, output, wait_until

AS_ROOT: Final = () if os.geteuid() == 0 else ("sudo", "-n")
"""What goes before a command that only root may run."""
PROMPT: Final = "The ship"
LONG: Final = 900
"""Tokens of an answer that goes on for a while; with its prompt it fits into the built-in model's context."""
SLOW: Final = "0.05"
"""Of one core: an answer of `LONG` tokens then takes many seconds, on any machine."""
PATIENCE_S: Final = 120.0
"""For what must happen, and does so within a second or two on a machine that has nothing else to do."""


class Stream:
    """An answer on its way, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        """Read nothing yet."""
        self.response = response
        self.events: list[Any] = []
        self._lines = response.iter_lines()

    def next(self) -> Any:  # noqa: ANN401 -- an event, or "[DONE]", or nothing
        """Return the next event; `None` at the end."""
        for line in self._lines:
            if line.startswith("data:"):
                text = line.removeprefix("data:").strip()
                self.events.append(text if text == "[DONE]" else json.loads(text))
                return self.events[-1]
        return None

    def rest(self) -> list[Any]:
        """Read to the end and return all events there were."""
        while self.next() is not None:
            pass
        return self.events

    @property
    def text(self) -> str:
        """What has been said so far, on either of OpenAI's generating paths."""
        chunks = [choice for event in self.events if isinstance(event, dict) for choice in event.get("choices") or ()]
        return "".join(chunk["text"] if "text" in chunk else chunk["delta"].get("content") or "" for chunk in chunks)

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, once it has."""
        chunks = [choice for event in self.events if isinstance(event, dict) for choice in event.get("choices") or ()]
        return chunks[-1].get("finish_reason") if chunks else None


class Caller:
    """One HTTP client of a gateway, with the requests that most tests make."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Connect with the first request."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(PATIENCE_S))

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def get(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's own
        """`GET path`."""
        return self.http.get(path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's own
        """`POST path` with a JSON body."""
        return self.http.post(path, json=body, **options)

    def complete(self, model: str, *, prompt: str = PROMPT, tokens: int = 16, **more: object) -> httpx.Response:
        """Continue a text, always in the same way."""
        return self.post("/v1/completions", _completion(model, prompt, tokens) | more)

    def text(self, model: str, *, prompt: str = PROMPT, tokens: int = 16) -> str:
        """Continue a text and return how it goes on."""
        answer = self.complete(model, prompt=prompt, tokens=tokens)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    @contextmanager
    def stream(self, model: str, *, prompt: str = PROMPT, tokens: int = LONG, **more: object) -> Iterator[Stream]:
        """Continue a text as a stream, to the last token asked for."""
        body = _completion(model, prompt, tokens) | {"stream": True, "ignore_eos": True} | more
        with self.http.stream("POST", "/v1/completions", json=body) as response:
            yield Stream(response)


def _completion(model: str, prompt: str, tokens: int) -> dict[str, object]:
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}


def whole(stream: Stream) -> bool:
    """Say whether a stream has come to a proper end: a reason to finish, and the closing mark."""
    return stream.events[-1:] == ["[DONE]"] and stream.finish_reason in ("stop", "length")


# What the stack shows, and what the engine shows of it.


def row(running: Stack, model: str) -> dict[str, Any]:
    """Return a model's row of `/models`; empty if there is none."""
    rows = running.api.get("/models")["models"]
    return next((dict(found) for found in rows if found["name"] == model), {})


def leases(running: Stack, model: str) -> int:
    """Return how many callers a model is answering."""
    workers = running.api.get("/status")["workers"]
    return sum(int(worker["leases"]) for worker in workers if worker["model"] == model)


def started_at(running: Stack, model: str) -> str:
    """Return when the engine last started a model's container."""
    return output(["docker", "inspect", "--format", "{{.State.StartedAt}}", running.worker(model)])


def exists(container: str) -> bool:
    """Say whether the engine knows a container."""
    return subprocess.run(["docker", "inspect", container], capture_output=True, check=False).returncode == 0


def exit_code(container: str) -> int | None:
    """Return how a container ended; `None` while it runs."""
    running, code = output(["docker", "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", container]).split()
    return None if running == "true" else int(code)


def throttle(running: Stack, model: str, cpus: str) -> None:
    """
    Give a worker this much of one core from now on, so that what would be over at once takes its time.

    The engine refuses while it starts or stops the container, so it is asked again until that is over, or the container gone.
    """
    container = running.worker(model)
    argv = ["docker", "update", "--cpus", cpus, container]

    def done() -> bool:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0 or not exists(container)

    wait_until(done, " ".join(argv), PATIENCE_S)


@contextmanager
def slowly(running: Stack, model: str) -> Iterator[None]:
    """Have a model answer slowly in the block, and as fast as it can after it."""
    running.api.post("/load_model", {"model": model})
    throttle(running, model, SLOW)
    try:
        yield
    finally:
        throttle(running, model, "2")


def settle(running: Stack) -> None:
    """Wait until nobody holds a lease, nobody waits, and all is well."""

    def calm() -> bool:
        status = running.api.get("/status")
        return status["leases"] == 0 and not status["queue"] and not status["transitions"]

    wait_until(calm, "the stack has come to rest", PATIENCE_S)
