"""`model.toml`: what a model's folder says beyond its weights. All of it is optional, and so is the file."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
)

from controller.config import Bytes
from controller.engines.builds import Quantization
from controller.errors import ModelError
from controller.spec import Tier
from controller.units import MIB

FILE_NAME: Final = "model.toml"
MAX_BYTES: Final = 64 * 1024

Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[^/,\x00-\x1f\x7f]{1,255}$")]
"""A file of the folder itself: no path, no control characters, and no comma, which separates adapters."""


Stored = Annotated[
    Quantization | Literal["auto"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
"""A quantisation in capital or small letters."""


class Manifest(BaseModel):
    """What `model.toml` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None = None
    """The engine that runs it; by default `llama-cpp` for GGUF and `transformers` for safetensors; `auto` leaves it to us."""
    file: FileName | None = None
    """The weights file, for a folder that holds several."""
    lora: tuple[FileName, ...] = ()
    """Adapters of the folder to apply to the weights: GGUF files, which `llama-cpp` applies while it serves, or PEFT's."""
    quantization: Stored | None = None
    """How the weights are to be stored (`llama-cpp`); another form than theirs is built, and `auto` is the best that fits."""
    tier: Tier = Tier.MEDIUM
    """`small` stays loaded where it fits, `medium` until its memory is needed, `large` until it is idle."""
    tags: tuple[Tag, ...] = ()
    """Words a request may demand, such as `code` or `german`."""
    context: int | None = Field(default=None, ge=16, strict=True)
    """Tokens of prompt and answer together, for one caller; by default what the model was trained for, at most 4096."""
    parallel: int = Field(default=1, ge=1, le=64, strict=True)
    """Callers it serves at once; each has a context of its own."""
    replicas: int = Field(default=1, ge=1, le=8, strict=True)
    """Workers it may have at once: further ones are loaded while callers wait and memory is free, and share its weights."""
    pinned: bool = Field(default=False, strict=True)
    """Never evict it, and load it at start."""
    priority: int = Field(default=0, ge=-100, le=100, strict=True)
    """Each step doubles what keeping it in memory is worth; of models loaded ahead of any request, the higher one comes first."""
    memory: Annotated[Bytes, Field(ge=16 * MIB)] | None = None
    """What it is charged and limited to, such as `1.2GiB`, instead of what was measured or estimated."""
    gpu_memory: Annotated[Bytes, Field(ge=16 * MIB)] | None = None
    """What it is charged of the memory of cards, such as `5GiB`, instead of what was measured or estimated."""
    load_seconds: float | None = Field(default=None, gt=0, le=3600)
    """How long a load takes, until one was measured."""
    tools: bool | None = Field(default=None, strict=True)
    """It can call tools; by default what its chat template says."""
    options: dict[str, StrictInt | StrictBool | StrictStr] = Field(default={}, max_length=32)
    """The engine's options for this model alone: what `[engines.<name>.options]` takes, and instead of what it says."""
    description: str = Field(default="", max_length=500)
    """A sentence for people who choose a model."""


def read_manifest(folder: Path) -> Manifest:
    """
    Read the manifest of a folder; a folder without one has the defaults.

    Raises:
        ModelError: it cannot be read or says something unknown; every problem is named.

    """
    try:
        with (folder / FILE_NAME).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ModelError(f"{FILE_NAME}: wanted at most {MAX_BYTES} bytes, got more")
        return Manifest.model_validate(tomllib.loads(raw.decode("utf-8")))
    except FileNotFoundError:
        return Manifest()
    except OSError as exc:
        raise ModelError(f"{FILE_NAME}: cannot be read: {exc.strerror}; check its owner and mode") from exc
    except ValidationError as exc:
        problems = "; ".join(_problem(".".join(map(str, error["loc"])), error["type"], error["msg"]) for error in exc.errors())
        raise ModelError(f"{FILE_NAME}: {problems}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{FILE_NAME}: wanted TOML, got something else: {_printable(str(exc))}") from exc


def _problem(key: str, kind: str, text: str) -> str:
    if kind != "extra_forbidden":
        return f"{_printable(key)}: {text}"
    near = difflib.get_close_matches(key, Manifest.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(Manifest.model_fields)}"
    return f"unknown key {_printable(key)!r}; {hint}"


def _printable(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)[:200]
