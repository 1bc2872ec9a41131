"""What a bundle holds, and whether it is whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.bundles.bring import Bring
from controller.bundles.manifest import FILE_NAME, Bundle, EngineItem, FilePart, Item, read_bundle
from controller.bundles.reporting import Progress
from controller.errors import BundleError, BundleRefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """
    A folder of a bundle.

    Attributes:
        at: where it lies.
        item: what the manifest says of it.
        problem: what is wrong with its files; empty if nothing is, as far as was looked.

    """

    at: str
    item: Item
    problem: str

    def as_json(self) -> dict[str, Any]:
        """Describe it for programs."""
        about = {"files": len(self.item.files), "size_bytes": self.item.size_bytes, "problem": self.problem or None}
        if isinstance(self.item, EngineItem):
            said = {key: getattr(self.item, key) for key in ("model", "engine", "quantization", "device")}
            return {"kind": "engine_file", "name": self.item.name, **said, **about}
        return {"kind": "model", "name": self.item.name, **about}


def known_bundle(root: Path) -> Bundle:
    """
    Read the manifest of a bundle.

    Raises:
        BundleError: it cannot be read.
        BundleRefusedError: there is none.

    """
    if not root.is_dir():
        raise BundleRefusedError(f"{root}: wanted the folder of a bundle, and there is none")
    bundle = read_bundle(root)
    if bundle is None:
        raise BundleRefusedError(f"{root}: there is no {FILE_NAME}: it is no bundle, or its export has not come to an end")
    return bundle


def show(root: Path, *, verify: bool, progress: Progress) -> tuple[Shown, ...]:
    """
    Say what a bundle holds, and of each folder the first thing that is wrong: by sizes, or by every byte.

    Raises:
        BundleError: its manifest cannot be read.
        BundleRefusedError: it is no bundle of ours.

    """
    bring = Bring(root=root, moved=progress.moved)
    look = bring.check if verify else bring.look
    shown = []
    for at, item in known_bundle(root).items():
        progress.begin(at, item.size_bytes)
        shown.append(Shown(at=at, item=item, problem=_problem(at, item, look)))
    return tuple(shown)


def _problem(at: str, item: Item, look: Callable[[str, FilePart], None]) -> str:
    try:
        for file in item.files:
            for name, part in zip(file.part_names, file.parts, strict=True):
                look(f"{at}/{name}", part)
    except BundleError as exc:
        return str(exc)
    return ""
