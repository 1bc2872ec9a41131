"""The engines there are, by name, and which one is the choice for a weights format."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from controller.engines.base import Engine
from controller.engines.llama_cpp import LlamaCpp
from controller.engines.tensorrt_edge_llm import TensorrtEdgeLlm
from controller.engines.tensorrt_llm import TensorrtLlm
from controller.engines.tensorrt_llm_jetson import TensorrtLlmJetson
from controller.engines.transformers import Transformers
from controller.errors import ModelError

ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(
    {engine.name: engine for engine in (LlamaCpp(), Transformers(), TensorrtEdgeLlm(), TensorrtLlm(), TensorrtLlmJetson())}
)
"""Every engine, the preferred one for a format first."""


def find(name: str) -> Engine:
    """
    Return the engine of this name.

    Raises:
        ModelError: there is none; the text lists those there are.

    """
    try:
        return ENGINES[name]
    except KeyError:
        raise ModelError(f"wanted one of the engines {', '.join(ENGINES)}, got {name!r}") from None


def choose(weights_format: str) -> Engine:
    """
    Return the first engine that reads this weights format.

    Raises:
        ModelError: none does; the text lists the formats that are read.

    """
    for engine in ENGINES.values():
        if weights_format in engine.formats:
            return engine
    known = sorted({known for engine in ENGINES.values() for known in engine.formats})
    raise ModelError(f"wanted weights in one of the formats {', '.join(known)}, got {weights_format!r}")
