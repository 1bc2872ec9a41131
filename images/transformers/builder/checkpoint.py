"""Is a folder a checkpoint that can be built from? Asked before anything large is imported or read."""

from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from worker import folder

TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json")
ADAPTER_PREFIX: Final = "adapter_"
INDEX: Final = "model.safetensors.index.json"


def check(path: Path) -> dict[str, Any]:
    """
    Refuse a checkpoint that is unsafe or incomplete, and return its `config.json`.

    Raises:
        LoadError: with what was found and what to do.

    """
    return folder.check(path)


def check_tokenizer(path: Path) -> None:
    """
    Refuse a checkpoint without a tokenizer.

    Raises:
        BuildError: there is none.

    """
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise BuildError(
            f"wanted a tokenizer ({', '.join(TOKENIZERS[:2])}), which a GGUF must hold, got none; copy the whole checkpoint"
        )


def weights(path: Path) -> list[Path]:
    """Return the checkpoint's own weights files, adapters left out."""
    return sorted(file for file in path.glob("*.safetensors") if not file.name.startswith(ADAPTER_PREFIX))
