"""Stand between a client and the engine, and cut the line: an engine that goes away, without stopping one that others use."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

ENGINE_SOCKET = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


class Line:
    """
    A Unix socket that passes everything on to the engine.

    Attributes:
        url: what a client connects to.

    """

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._deaf = False

    async def open(self, *, deaf: bool = False) -> None:
        """Accept connections; a deaf line accepts them and passes nothing on."""
        self._deaf = deaf
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._pass, self._path)

    async def cut(self) -> None:
        """Close every connection and take no new ones, as an engine that is stopped."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            with suppress(asyncio.CancelledError, OSError):
                await (asyncio.Event().wait() if self._deaf else self._copy(reader, writer))
        finally:
            self._passing.discard(task)
            writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_one_way(reader, far_writer))
                both.create_task(_one_way(far_reader, writer))
        except* OSError:
            pass
        finally:
            far_writer.close()


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
