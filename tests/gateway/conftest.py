"""The gateway's world: itself under a real server, and a controller and workers that obey the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.config import GatewaySettings, Settings
from controller.gateway.app import build
from controller.gateway.lease import Session
from controller.gateway.listener import Server, server
from tests.gateway.fakes import CHAT, COMPLETIONS, EMBEDDINGS, FakeController, FakeWorker, card
from tests.waiting import until

PATIENCE_S = 0.05
"""The fake controller says why a worker is gone at once or never."""


@dataclass(kw_only=True)
class World:
    """A running gateway and what is around it."""

    controller: FakeController
    workers: dict[str, FakeWorker]
    session: Session
    http: httpx.AsyncClient
    server: Server | None = None
    port: int = 0

    async def ask(self, path: str, body: object, **options: Any) -> httpx.Response:  # noqa: ANN401
        """POST *body* as JSON."""
        return await self.http.post(path, json=body, **options)

    async def chat(self, **fields: Any) -> httpx.Response:  # noqa: ANN401
        """Ask `mini` something."""
        return await self.ask(CHAT, {"model": "mini", "messages": [{"role": "user", "content": "hi"}], **fields})

    async def idle(self) -> None:
        """Wait until no lease is held or waited for."""
        await until("all leases to be given back", lambda: self.controller.leases == 0 and self.session.held == 0)


@asynccontextmanager
async def running(folder: Path, *, away_limit_s: float = 5.0, **gateway: Any) -> AsyncIterator[World]:  # noqa: ANN401
    """Run a gateway with these settings under a real server, in front of two generators and an embedder."""
    async with surroundings(folder) as (controller, workers):
        settings = Settings(gateway=GatewaySettings(listen="127.0.0.1:0", **gateway))
        session = Session(str(controller.path), away_limit_s=away_limit_s)
        app = build(settings, session, cause_patience_s=PATIENCE_S)
        served = server(app, host="127.0.0.1", port=0, max_header_bytes=settings.gateway.max_header, grace_s=1.0)
        tasks = [asyncio.create_task(session.run()), asyncio.create_task(served.serve())]
        try:
            await until("the gateway to listen", lambda: served.started and session.directory is not None)
            port = served.servers[0].sockets[0].getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield World(controller=controller, workers=workers, session=session, server=served, port=port, http=client)
        finally:
            served.should_exit = True
            await tasks[1]
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def direct(folder: Path, *, peer: str = "127.0.0.1", **gateway: Any) -> AsyncIterator[World]:  # noqa: ANN401
    """Call the application without a server in between, as a caller at *peer*: quicker, for bodies and statuses."""
    async with surroundings(folder) as (controller, workers):
        session = Session(str(controller.path))
        app = build(Settings(gateway=GatewaySettings(**gateway)), session, cause_patience_s=PATIENCE_S)
        task = asyncio.create_task(session.run())
        try:
            await until("the catalog to come", lambda: session.directory is not None)
            transport = httpx.ASGITransport(app, client=(peer, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                yield World(controller=controller, workers=workers, session=session, http=client)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[tuple[FakeController, dict[str, FakeWorker]]]:
    """Run a controller and its workers."""
    controller = FakeController(folder / "controller.sock")
    workers = {name: FakeWorker(folder / f"{name}.sock", name) for name in ("mini", "large", "vectors")}
    controller.models = {
        "mini": card("mini"),
        "large": card("large", context_tokens=8192, chat=False, api_paths=(COMPLETIONS,), tags=("german",)),
        "vectors": card("vectors", api_paths=(EMBEDDINGS,), chat=False),
    }
    controller.sockets = {name: worker.path for name, worker in workers.items()}
    healthy = {"state": "ok", "reasons": []}
    controller.answers = {"health": healthy, "status": {**healthy, "queue": []}, "models": {"models": []}}
    await controller.start()
    for worker in workers.values():
        await worker.start()
    try:
        yield controller, workers
    finally:
        for worker in workers.values():
            await worker.stop()
        await controller.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Make a world with a real server and the default settings."""
    async with running(tmp_path) as made:
        yield made


@pytest.fixture
async def near(tmp_path: Path) -> AsyncIterator[World]:
    """Make a world without a server in between."""
    async with direct(tmp_path) as made:
        yield made
