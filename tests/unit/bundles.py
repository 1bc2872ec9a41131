"""What the tests of bundles share: small homes, and a progress that cuts the power."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from controller.bundles.arrival import Arrival
from controller.bundles.export import Packer
from controller.bundles.judging import Wish
from controller.bundles.packing import all_models, find_sources
from controller.bundles.reporting import Outcome, State
from controller.store.database import open_database
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.fingerprint import BuildKey
from controller.store.folder import list_files
from controller.store.manifest import read_manifest
from controller.store.planning import source_digests
from tests.checkpoints import write_gguf_folder

SMALL_PARTS = 4096
NOISE = b"".join(number.to_bytes(4) for number in range(SMALL_PARTS * 3 // 4 + 25))
FILES = {"weights.gguf": NOISE, "empty": b"", "adapter/adapter_config.json": b"{}", "model.toml": b'tags = ["code"]\n'}


class PowerCutError(BaseException):
    """The power is cut: nothing of ours handles this."""


@dataclass
class Meter:
    """Counts, and cuts the power after so many steps."""

    cut_after: int = -1
    steps: int = 0
    moved_bytes: int = 0
    begun: list[str] = field(default_factory=list)

    def begin(self, what: str, size_bytes: int) -> None:
        """Note it."""
        self.begun.append(what)
        self._step()

    def moved(self, count_bytes: int) -> None:
        """Count it."""
        self.moved_bytes += count_bytes
        self._step()

    def _step(self) -> None:
        if self.steps == self.cut_after:
            raise PowerCutError
        self.steps += 1


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files, and return their folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home with two models."""
    put(tmp_path / "home" / "models" / "one", FILES)
    put(tmp_path / "home" / "models" / "two", {"weights.gguf": b"two" * 100})
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Say where the bundle is made."""
    return tmp_path / "stick" / "windlass"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Say where the other home is."""
    return tmp_path / "other"


def key(**changes: object) -> BuildKey:
    """Describe what an engine file is built from."""
    wanted: dict[str, object] = {
        "source": "abc",
        "engine": "llama-cpp",
        "quantization": "q8_0",
        "options": (("quantize", "q8_0"),),
        "images": {"llama-cpp": "windlass/llama-cpp:1"},
        "device": "any",
    }
    return BuildKey(**{**wanted, **changes})  # type: ignore[arg-type]


def shelf(home: Path) -> EngineFiles:
    """Open the engine files of a home, as a controller does."""
    home.mkdir(parents=True, exist_ok=True)
    return EngineFiles(home / "engines", open_database(home / "state.db"))


def build(home: Path, wanted: BuildKey, data: bytes = b"engine" * 1000) -> EngineFile:
    """Have a home build an engine file."""
    files = shelf(home)
    (files.begin(wanted.fingerprint) / "model.gguf").write_bytes(data)
    return files.commit(wanted, PurePosixPath("model.gguf"), model="mini", seconds=1.0)


def pack(home: Path, root: Path, *models: str, progress: Meter | None = None, part_bytes: int = SMALL_PARTS) -> list[State]:
    """Export, and return what became of each folder."""
    sources = find_sources(home, models or all_models(home), with_engine_files=True)
    return [one.state for one in Packer(root=root, progress=progress or Meter(), part_bytes=part_bytes).pack(sources)]


def take(
    home: Path, *roots: Path, wish: Wish | None = None, progress: Meter | None = None, move: bool = False
) -> tuple[Outcome, ...]:
    """Import."""
    return Arrival(home=home, wish=wish or Wish(), progress=progress or Meter(), move=move).take(roots)


def names(folder: Path) -> frozenset[str]:
    """Return what a model's folder is called by the engine files built of it."""
    return source_digests(folder, list_files(folder), read_manifest(folder))


def write_mini(home: Path) -> str:
    """Put a small GGUF into a home as the model `mini`, and return what its engine files call it."""
    (digest,) = names(write_gguf_folder(home / "models", "mini"))
    return digest
