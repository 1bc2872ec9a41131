"""
llama.cpp's converter, run in this process.

It is a set of scripts for people; here its complaints become one sentence, and a tokenizer that it does not know by name is
recognised by how it splits text.
"""

import importlib
import logging
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from builder import pretokenizers
from builder.errors import BuildError
from worker import lean

HOME: Final = Path("/opt/llama.cpp")
"""Where the image keeps the scripts."""


class _Complaints(logging.Handler):
    """Keeps what the scripts log as errors: they end with nothing but a status."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def prepare() -> ModuleType:
    """Import the converter's package, with `gguf` of the same release before any other."""
    lean.prepare()
    for folder in (HOME, HOME / "gguf-py"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    conversion = importlib.import_module("conversion")
    base = importlib.import_module("conversion.base").TextModel
    if not hasattr(base, "known_pre_tokenizer"):
        base.known_pre_tokenizer = base.get_vocab_base_pre
        base.get_vocab_base_pre = _pre_tokenizer
    return conversion


def run(script: str, argv: Sequence[str]) -> None:
    """
    Run one of the scripts.

    Raises:
        BuildError: it ended with another status than 0; the text is what it logged.

    """
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    sys.argv = [script, *argv]
    try:
        runpy.run_path(str(HOME / script), run_name="__main__")
    except SystemExit as exc:
        if exc.code not in (None, 0):
            raise BuildError("; ".join(complaints.texts) or f"{script} ended with status {exc.code}") from exc
    finally:
        logging.getLogger().removeHandler(complaints)


def check_family(conversion: ModuleType, config: dict[str, Any]) -> None:
    """
    Refuse a family that the converter does not know.

    Raises:
        BuildError: naming it.

    """
    named = config.get("architectures") or []
    family = str(named[0]) if isinstance(named, list) and named else ""
    if family not in conversion.TEXT_MODEL_MAP:
        raise BuildError(
            f"no GGUF can be made of a {family or 'checkpoint that names no architecture'}: llama.cpp's converter does not know "
            "it; serve it by engine transformers, without `quantization`"
        )


def _pre_tokenizer(model: Any, tokenizer: Any) -> str:  # noqa: ANN401 - the converter's own, untyped
    """Name the way the tokenizer splits text: as the converter knows it, else by the rule in `tokenizer.json`."""
    try:
        name: str = model.known_pre_tokenizer(tokenizer)
    except NotImplementedError:
        return pretokenizers.recognise(model.dir_model / "tokenizer.json")
    return name
