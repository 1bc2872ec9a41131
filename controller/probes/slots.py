"""
Have a worker write, read or forget what it has computed of a conversation: the slots API of llama.cpp's server.

Its files lie in the worker's own KV directory, under the names given here.
"""

import asyncio
import json
from pathlib import PurePosixPath
from typing import Any, Final

from controller.errors import StoreError

LONGEST_REPLY_BYTES: Final = 64 * 1024


async def save(socket: PurePosixPath, slot: int, file: str, *, timeout_s: float) -> int:
    """
    Write a slot to *file*, and return how many tokens of a conversation that was.

    Raises:
        StoreError: the worker could not, or did not say so in time.

    """
    return await _tokens(socket, slot, "save", "n_saved", {"filename": file}, timeout_s=timeout_s)


async def restore(socket: PurePosixPath, slot: int, file: str, *, timeout_s: float) -> int:
    """
    Read *file* into a slot, and return how many tokens of a conversation that was.

    Raises:
        StoreError: the worker could not, or did not say so in time.

    """
    return await _tokens(socket, slot, "restore", "n_restored", {"filename": file}, timeout_s=timeout_s)


async def erase(socket: PurePosixPath, slot: int, *, timeout_s: float) -> int:
    """
    Forget what is in a slot, and return how many tokens of a conversation that was.

    Raises:
        StoreError: the worker could not, or did not say so in time.

    """
    return await _tokens(socket, slot, "erase", "n_erased", {}, timeout_s=timeout_s)


async def _tokens(socket: PurePosixPath, slot: int, action: str, counted: str, body: dict[str, str], *, timeout_s: float) -> int:
    wanted = f"wanted a worker to {action} slot {slot}"
    try:
        async with asyncio.timeout(timeout_s):
            status, reply = await _post(socket, f"/slots/{slot}?action={action}", body)
    except TimeoutError:
        raise StoreError(f"{wanted} within {timeout_s:g} s, got no answer") from None
    except (OSError, ValueError, LookupError, EOFError, asyncio.LimitOverrunError) as exc:
        raise StoreError(f"{wanted}, got: {exc}") from exc
    count = reply.get(counted) if isinstance(reply, dict) else None
    if status != 200 or not isinstance(count, int):
        raise StoreError(f"{wanted}, got status {status}")  # its text is not repeated: nobody vouches for what is in it
    return count


async def _post(socket: PurePosixPath, path: str, body: dict[str, str]) -> tuple[int, Any]:
    """Send one POST on a connection of its own, and return the status and the body, read as JSON."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: worker\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=LONGEST_REPLY_BYTES)
    try:
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + data)
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        sizes = [int(value) for name, _, value in (line.partition(":") for line in lines) if name.lower() == "content-length"]
        if not sizes or sizes[0] > LONGEST_REPLY_BYTES:
            raise ValueError(f"an answer of {sizes[0] if sizes else 'unknown'} bytes")
        return int(start.split()[1]), json.loads(await reader.readexactly(sizes[0]))
    finally:
        writer.close()
