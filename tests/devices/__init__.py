"""Boxes that were written down, to be asked as if they were at hand; README.md says where each format comes from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.drivers.base import EngineInfo
from controller.drivers.docker import engine_info
from controller.probes.system import Outcome, RecordedSystem

HERE: Final = Path(__file__).parent
NAMES: Final = tuple(sorted(folder.name for folder in HERE.iterdir() if (folder / "files.txt").exists()))
_MARK: Final = "==> "
_UNREADABLE: Final = " (unreadable)"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """
    One box.

    Attributes:
        name: of its folder.
        system: its files, nodes and commands.
        unreadable: files that are there and answer with an error.
        docker_info: what its container engine says of itself.

    """

    name: str
    system: RecordedSystem
    unreadable: tuple[str, ...]
    docker_info: dict[str, Any]

    @property
    def engine(self) -> EngineInfo:
        """What the driver makes of that."""
        return engine_info(self.docker_info)

    def unpack(self, root: Path) -> Path:
        """Make its files under *root*, for what reads files itself; a folder stands for a file that cannot be read."""
        for path, text in self.system.files.items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        for path in self.unreadable:
            (root / path.lstrip("/")).mkdir(parents=True)
        return root


def recorded(name: str) -> Recording:
    """Read one recording."""
    folder = HERE / name
    files, unreadable = _files((folder / "files.txt").read_text(encoding="utf-8"))
    commands = json.loads((folder / "commands.json").read_text(encoding="utf-8"))
    return Recording(
        name=name,
        system=RecordedSystem(
            files=files,
            groups=json.loads((folder / "nodes.json").read_text(encoding="utf-8")),
            commands={argv: Outcome(**ended) for argv, ended in commands.items()},
        ),
        unreadable=unreadable,
        docker_info=json.loads((folder / "engine.json").read_text(encoding="utf-8")),
    )


def _files(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    files: dict[str, str] = {}
    unreadable = []
    for block in ("\n" + text).split(f"\n{_MARK}")[1:]:
        head, _, body = block.partition("\n")
        if head.endswith(_UNREADABLE):
            unreadable.append(head.removesuffix(_UNREADABLE))
        else:
            body = body.replace("\\0", "\0")
            files[head] = body if body.endswith(("\n", "\0")) else body + "\n"
    return files, tuple(unreadable)
