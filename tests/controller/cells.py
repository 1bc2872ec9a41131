"""What workers hold of conversations, and the slots API by which they write, read and forget it."""

import json
import re
from pathlib import Path
from typing import Final

_REQUEST: Final = re.compile(rb"POST /slots/(\d+)\?action=(\w+) ")


class Cells:
    """
    The slots of all workers: a conversation is its bytes, one a token.

    Attributes:
        contents: what is in each slot, by model and number.
        asked: what was asked of them, such as `save a 0`.
        broken: actions that are answered with an error.
        deaf: actions that are never answered.
        silent: a restore says that it has worked, and does nothing.

    """

    def __init__(self) -> None:
        self.contents: dict[tuple[str, int], bytes] = {}
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self.deaf: set[str] = set()
        self.silent = False

    def clear(self, model: str) -> None:
        """Lose what a worker held: it has ended."""
        self.contents = {place: held for place, held in self.contents.items() if place[0] != model}

    def compute(self, model: str, slot: int, said: bytes, *, reuse: bool = True) -> int:
        """Have a worker compute a conversation, and return how much of it was there already."""
        held = self.contents.get((model, slot), b"")
        self.contents[model, slot] = said
        pairs = enumerate(zip(held, said, strict=False))
        common = next((at for at, (old, new) in pairs if old != new), min(len(held), len(said)))
        return common if reuse else 0

    def answer(self, model: str, folder: Path, request: bytes) -> bytes:
        """Answer a request to the slots API; nothing where the worker is deaf to it."""
        found = _REQUEST.match(request)
        assert found, request
        slot, action = int(found[1]), found[2].decode()
        self.asked.append(f"{action} {model} {slot}")
        name = json.loads(request.partition(b"\r\n\r\n")[2]).get("filename", "")
        if action == "save":  # in place, as the real one does: whoever is killed in the middle leaves half of it
            (folder / name).write_bytes(self.contents.get((model, slot), b""))
        if action in self.deaf:
            return b""
        if action in self.broken:
            return _reply(400, {"error": {"message": "no"}})
        return _reply(200, getattr(self, f"_{action}")(model, slot, folder / name))

    def _save(self, model: str, slot: int, file: Path) -> dict[str, int]:
        return {"n_saved": len(file.read_bytes())}

    def _restore(self, model: str, slot: int, file: Path) -> dict[str, int]:
        data = file.read_bytes()
        self.contents[model, slot] = b"" if self.silent else data
        return {"n_restored": len(data)}

    def _erase(self, model: str, slot: int, _: Path) -> dict[str, int]:
        return {"n_erased": len(self.contents.pop((model, slot), b""))}


def _reply(status: int, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
