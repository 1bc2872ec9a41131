"""
A LoRA adapter as PEFT saves it: pairs of small matrices, and what their product is multiplied by.

    weight + scale x B x A

Anything else that an adapter may hold (whole matrices, biases, magnitudes of DoRA) is refused: to leave it out would make another
model than the one that was trained.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from builder.errors import BuildError
from worker import folder

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_KEY: Final = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.weight)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """
    What one matrix is changed by.

    Attributes:
        target: the matrix, as the checkpoint names it.
        a: rank x columns.
        b: rows x rank.
        scale: what the product is multiplied by.
        transposed: the matrix is stored as columns x rows.
        key_a: the name of A in the adapter's file.
        key_b: the name of B in the adapter's file.

    """

    target: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool
    key_a: str
    key_b: str

    @property
    def shape(self) -> tuple[int, int]:
        """The shape that the matrix must have."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    def rows(self, begin: int, end: int) -> torch.Tensor:
        """Compute some rows of the change, at 32 bits."""
        left, right = (self.a.T, self.b.T) if self.transposed else (self.b, self.a)
        return (left[begin:end].float() @ right.float()) * self.scale


def read(path: Path) -> dict[str, Pair]:
    """
    Read the adapter in a folder, as target → pair.

    Raises:
        BuildError: it is no LoRA adapter, is damaged, or holds more than pairs.

    """
    config = _config(path)
    tensors = _tensors(path)
    halves: dict[str, dict[str, str]] = {}
    for key in sorted(tensors):
        found = _KEY.fullmatch(key)
        if found is None:
            raise BuildError(
                f"the adapter holds {key!r}, which is no half of a LoRA pair: what replaces whole matrices, biases or magnitudes "
                "is not merged here; merge it where it was trained"
            )
        halves.setdefault(found["module"], {})[found["side"]] = key
    if not halves:
        raise BuildError(f"{WEIGHTS} holds no pair of lora_A and lora_B; it is no LoRA adapter")
    pairs = (_pair(module, sides, tensors, config) for module, sides in halves.items())
    return {pair.target: pair for pair in pairs}


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if not file.is_file():
        raise BuildError(f"wanted {CONFIG} beside the adapter's weights, got none; copy the whole adapter")
    try:
        config = json.loads(file.read_bytes())
    except ValueError as exc:
        raise BuildError(f"{CONFIG} is not JSON: {exc}; copy it again") from exc
    if not isinstance(config, dict) or not isinstance(config.get("lora_alpha"), int | float):
        raise BuildError(f"{CONFIG} says no `lora_alpha`; it describes no LoRA adapter")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise BuildError(f"wanted an adapter of type LORA, got {kind!r}; merge it where it was trained")
    if config.get("use_dora"):
        raise BuildError("the adapter is a DoRA, whose magnitudes are not merged here; merge it where it was trained")
    return config


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    file = path / WEIGHTS
    if not file.is_file():
        raise BuildError(f"wanted {WEIGHTS}, got none; an adapter in a pickle (.bin) is never opened, so save it as safetensors")
    folder.check_header(file)
    try:
        return load_file(file)
    except SafetensorError as exc:
        raise BuildError(f"{WEIGHTS} cannot be read: {exc}; copy it again") from exc


def _pair(module: str, sides: Mapping[str, str], tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Pair:
    if set(sides) != {"A", "B"}:
        raise BuildError(f"the adapter has half a pair for {module}: {', '.join(sides.values())}; copy it again")
    a, b = tensors[sides["A"]], tensors[sides["B"]]
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
        raise BuildError(f"the adapter's pair for {module} is {tuple(a.shape)} and {tuple(b.shape)}, which cannot be multiplied")
    return Pair(
        target=f"{module}.weight",
        a=a,
        b=b,
        scale=_scale(module, rank=a.shape[0], config=config),
        # An embedding is a table of columns, and so are the matrices of the oldest families.
        transposed="embedding_" in sides["A"] or bool(config.get("fan_in_fan_out")),
        key_a=sides["A"],
        key_b=sides["B"],
    )


def _scale(module: str, *, rank: int, config: Mapping[str, Any]) -> float:
    """Divide alpha by the rank, or by its root; single modules may have an alpha of their own."""
    alpha = float(config["lora_alpha"])
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
