"""A gateway as the controller's socket sees one: it speaks the wire, or nonsense."""

# ruff: noqa: ANN401 -- arguments of any type are handed on

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from controller.spec import ApiPath
from controller.wire import (
    MAX_LINE_BYTES,
    Acquire,
    Ask,
    Call,
    Catalog,
    Failed,
    Granted,
    Loading,
    Message,
    Queued,
    Refused,
    Release,
    Renew,
    Result,
    Revoked,
    Welcome,
    decode_reply,
    encode,
)
from tests.controller.rig import reaches


class Client:
    """One connection; everything heard is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard: list[Message] = []
        self.writer = writer
        self._reader = reader
        self._numbers = itertools.count(1)
        self.listening = asyncio.create_task(self._listen())

    def send(self, message: Message) -> None:
        """Say something."""
        self.writer.write(encode(message))

    def ask(self, model: str, *, lease: str, **changes: Any) -> None:
        """Ask for a lease on a model by its name."""
        ask = Ask(mode="manual", model=model, api_path=ApiPath.CHAT.value)
        self.send(Acquire(id=lease, ask=ask, **changes))

    async def granted(self, model: str, *, lease: str) -> Granted:
        """Ask for a lease and wait until it is granted."""
        self.ask(model, lease=lease)
        return await self.grant(lease)

    async def grant(self, lease: str) -> Granted:
        """Wait until a lease is granted."""
        answer = await reaches(f"{lease} is answered", lambda: self.about(lease, Granted, Refused))
        assert isinstance(answer, Granted), answer
        return answer

    async def refused(self, lease: str) -> Refused:
        """Wait until a lease is refused."""
        answer = await reaches(f"{lease} is refused", lambda: self.about(lease, Refused))
        assert isinstance(answer, Refused)
        return answer

    async def revoked(self, lease: str) -> Revoked:
        """Wait until a lease is revoked."""
        answer = await reaches(f"{lease} is revoked", lambda: self.about(lease, Revoked))
        assert isinstance(answer, Revoked)
        return answer

    async def renewed(self, lease: str, model: str, run: str) -> Granted:
        """Renew a lease and wait until it is granted."""
        self.send(Renew(id=lease, model=model, run=run))
        return await self.grant(lease)

    def release(self, lease: str, **report: Any) -> None:
        """Give a lease back."""
        self.send(Release(id=lease, **report))

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Ask for something that is not a lease; return its body, or the failure."""
        number = f"call-{next(self._numbers)}"
        self.send(Call(id=number, verb=verb, arguments=arguments))
        answer = await reaches(f"{verb} is answered", lambda: self.about(number, Result, Failed))
        return answer.body if isinstance(answer, Result) else answer

    def about(self, lease: str, *kinds: type[Message]) -> Message | None:
        """Return the first message of these kinds about a lease, if there is one."""
        return next((m for m in self.heard if isinstance(m, kinds) and getattr(m, "id", None) == lease), None)

    def words(self, lease: str) -> list[str]:
        """Return what was said of a lease, kind by kind, repetitions left out."""
        kinds = [
            type(m).__name__
            for m in self.heard
            if isinstance(m, Queued | Loading | Granted | Refused | Revoked) and m.id == lease
        ]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]

    def catalogs(self) -> list[Catalog]:
        """Return every catalog announced."""
        return [m for m in self.heard if isinstance(m, Catalog)]

    @property
    def instance(self) -> str:
        """Which life of the controller this is."""
        return next(m.instance for m in self.heard if isinstance(m, Welcome))

    @property
    def is_cut(self) -> bool:
        """The controller has ended the connection."""
        return self.listening.done()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        self.listening.cancel()
        await asyncio.gather(self.listening, return_exceptions=True)

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                self.heard.append(decode_reply(line))


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    """Be connected to the controller's socket as long as the block runs."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE_BYTES)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()
