"""TensorRT Edge-LLM's own HTTP application behind our gateway, with a stand-in for its native code: every answer it can give."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import CONFIG, write_checkpoint_folder
from tests.gateway.conftest import World, running
from tests.gateway.fakes import CHAT, card, connection, request
from tests.vendor import place
from tests.waiting import until

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

WITHIN_S = 30.0


class Server:
    """The package's server, in a process of its own."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.socket, self.log = folder / "worker.sock", folder / "log"
        self.process = process

    def noted(self) -> list[str]:
        """Return what the stand-in has seen."""
        return self.log.read_text().split() if self.log.exists() else []


def stand_in(folder: Path, *options: str) -> dict[str, Any]:
    """Lay out what the server looks at, and return what the script is told."""
    bundle = folder / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps({"builder_config": {"max_kv_cache_capacity": 2048, "max_batch_size": 1}}))
    return {
        "argv": ["/source", *options],
        "model_dir": str(write_checkpoint_folder(folder, "source", config={**CONFIG, "model_type": "qwen2"})),
        "bundle_dir": str(bundle),
        "socket": str(folder / "worker.sock"),
        "log": str(folder / "log"),
    }


@asynccontextmanager
async def serving(folder: Path, *options: str, name: str = "mini") -> AsyncIterator[Server]:
    """Run the server with these options under a name."""
    value = stand_in(folder, "--served-model-name", name, "--log-level", "warning", *options)
    python = await asyncio.to_thread(place.python)
    process = await asyncio.create_subprocess_exec(
        str(python), str(place.DRIVER), "serve", json.dumps(value), env={**os.environ, "PYTHONPATH": str(place.OURS)}
    )
    server = Server(folder, process)
    try:
        await until("the server to listen", server.socket.exists, deadline_s=WITHIN_S)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Make a gateway under a real server."""
    async with running(tmp_path) as made:
        yield made


def place_server(world: World, server: Server) -> None:
    """Have `mini` served by the package's server."""
    world.controller.sockets["mini"] = server.socket
    world.controller.models["mini"] = card("mini", engine="tensorrt-edge-llm", api_paths=(CHAT,))
    world.controller.announce()


async def ask(world: World, text: str, **more: Any) -> Any:  # noqa: ANN401
    """Ask `mini` something."""
    return await world.chat(messages=[{"role": "user", "content": text}], **more)


async def test_answers_and_streams(world: World, tmp_path: Path) -> None:
    """A chat, with fields that its server forbids; a stream with its usage; and the same in our own form."""
    async with serving(tmp_path / "s") as server:
        place_server(world, server)
        await until("the catalog", lambda: world.session.known().models["mini"].engine == "tensorrt-edge-llm")
        whole = await ask(world, "hi", user="me", metadata={"a": "b"}, n=1, logprobs=None, seed=None, max_completion_tokens=5)
        streamed = await ask(world, "hi", stream=True, stream_options={"include_usage": True}, store=False)
        pieces = await world.ask("/inference", {"model": "mini", "prompt": "hi", "stream": True})
        native = await world.ask("/inference", {"model": "mini", "prompt": "hi"})

        assert (200, "said hi") == (whole.status_code, whole.json()["choices"][0]["message"]["content"]), whole.text
        events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
        text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
        assert ("Once 0 1", {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}) == (text, events[-1]["usage"])
        assert streamed.text.endswith("data: [DONE]\n\n")
        last = json.loads(pieces.text.splitlines()[-2][6:])
        assert (True, 7, 3) == (last["done"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"])
        assert ("said hi", 7) == (native.json()["response"], native.json()["usage"]["prompt_tokens"])
        await world.idle()
        assert [7, 7, 7, 7] == [release.prompt_tokens for release in world.controller.released]


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        ("this is too long", {}, (400, "context_length_exceeded")),
        ("break", {}, (502, "worker_error")),
        ("hi", {"response_format": {"type": "nonsense"}}, (400, "invalid_value")),
        ("hi", {"seed": -5}, (400, "invalid_value")),
        ("hi", {"stream": True, "stream_options": {"include_obfuscation": True}}, (400, "invalid_value")),
        ("hi", {"tools": [{"type": "function", "function": {"name": "f"}}]}, (400, "invalid_value")),
    ],
)
async def test_its_errors_are_ours(world: World, tmp_path: Path, text: str, more: dict[str, Any], told: tuple[int, str]) -> None:
    """What the caller did wrong is a 400 with a sentence, and what the server did is not."""
    async with serving(tmp_path / "s") as server:
        place_server(world, server)
        await until("the catalog", lambda: world.session.known().models["mini"].engine == "tensorrt-edge-llm")
        answer = await ask(world, text, **more)

        assert told == (answer.status_code, answer.json()["error"]["code"]), answer.text
        assert answer.json()["error"]["message"]
        await world.idle()


async def test_a_stream_that_fails_says_so_in_the_stream(world: World, tmp_path: Path) -> None:
    """Its server begins a stream before it looks at the prompt's length: OpenAI's clients raise on what comes then."""
    async with serving(tmp_path / "s") as server:
        place_server(world, server)
        answer = await ask(world, "this is too long", stream=True)

        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert (200, 413) == (answer.status_code, events[-1]["error"]["code"])
        await world.idle()


async def test_a_full_queue_and_a_foreign_name(world: World, tmp_path: Path) -> None:
    """Its 429 is a 503 that says when to come back; its 404 is our fault and not the caller's."""
    async with serving(tmp_path / "s", "--max-queued-requests", "0") as server, serving(tmp_path / "t", name="other") as other:
        place_server(world, server)
        first = asyncio.create_task(ask(world, "slow"))
        await until("the first to be answered", lambda: world.controller.leases == 1)
        await asyncio.sleep(0.3)
        second = await ask(world, "hi")
        assert 200 == (await first).status_code
        place_server(world, other)
        foreign = await ask(world, "hi")

        assert (503, "1") == (second.status_code, second.headers["retry-after"]), second.text
        assert "has too much to do" in second.json()["error"]["message"]
        assert (502, "worker_error") == (foreign.status_code, foreign.json()["error"]["code"])
        await world.idle()


async def test_a_caller_that_hangs_up_ends_the_work(world: World, tmp_path: Path) -> None:
    """The generation is closed long before its end, and the next caller is served."""
    async with serving(tmp_path / "s") as server:
        place_server(world, server)
        body = {"model": "mini", "messages": [{"role": "user", "content": "slow"}], "stream": True}
        async with connection(world.port) as (reader, writer):
            writer.write(request(CHAT, body))
            await reader.readuntil(b"Once")
        await world.idle()
        await until("the generation to be closed", lambda: server.noted() == ["closed"], deadline_s=WITHIN_S)

        assert 200 == (await ask(world, "hi")).status_code


async def test_it_ends_in_order(tmp_path: Path) -> None:
    """Told to end, it gives its memory back first, and its status says that nothing went wrong."""
    async with serving(tmp_path / "s") as server:
        server.process.terminate()
        await server.process.wait()

        assert ["released"] == server.noted()
