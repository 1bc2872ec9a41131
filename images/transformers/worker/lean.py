"""
Torch without its compiler and without process groups.

transformers imports both at its start: a third of the time a worker takes to be ready, and 50 MB of the memory it keeps. A
worker never compiles a model and is always one process, so the doors to both are closed before transformers is imported.
"""

import importlib.util
import sys
import types
from typing import Any, Final, TypeVar

import torch

T = TypeVar("T")
_COMPILER: Final = "torch._dynamo"


def prepare() -> None:
    """Close the doors; call once, after torch and before transformers is imported."""
    torch.distributed.is_available = _no
    torch.compiler.disable = _keep
    if _COMPILER not in sys.modules:
        sys.modules[_COMPILER] = torch._dynamo = _stand_in()


def _stand_in() -> types.ModuleType:
    """
    Return a module that takes the compiler's marks and does nothing with them.

    Its submodules can be imported without it. Whoever wants anything else of it gets the real one, late but whole.
    """
    spec = importlib.util.find_spec(_COMPILER)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        raise ImportError(f"this torch has no {_COMPILER}")
    loader = spec.loader
    module = types.ModuleType(_COMPILER)
    module.__spec__, module.__file__ = spec, spec.origin
    module.__path__ = list(spec.submodule_search_locations)

    def real(name: str) -> Any:  # noqa: ANN401 - whatever the compiler has under this name
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules[_COMPILER] is module:
            # In its place before it runs: its parts ask for each other while they are imported.
            sys.modules[_COMPILER] = torch._dynamo = importlib.util.module_from_spec(spec)
            loader.exec_module(torch._dynamo)
        return getattr(torch._dynamo, name)

    marks = dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable", "mark_static_address"), _keep)
    vars(module).update(marks, is_compiling=_no, __getattr__=real)
    return module


def _keep(marked: T | None = None, *_: object, **__: object) -> Any:  # noqa: ANN401 - a decorator, with or without arguments
    return _keep if marked is None else marked


def _no() -> bool:
    return False
