"""
Which engine a model with `engine = "auto"` gets on each recorded box, written down.

`python -m tests.choices` writes it anew; the differences are to be read before they are kept: is it what an expert would run?
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from controller.config import Settings
from controller.probes.device import read_device
from controller.spec import ModelSpec
from controller.store.catalog import Scanner
from controller.units import GIB
from tests.checkpoints import CONFIG, gguf, safetensors, write_checkpoint_folder, write_gguf_folder
from tests.devices import NAMES, recorded

GOLDEN: Final = Path(__file__).parent / "golden" / "engine_choice.txt"
AUTO: Final = 'engine = "auto"\n'
KIB: Final = 1024
_RESERVE_BYTES: Final = GIB
"""What a box keeps for itself where nobody has said anything."""


def _checkpoint(models: Path, name: str, **changes: object) -> Path:
    folder = write_checkpoint_folder(models, name, config={**CONFIG, **changes})
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}{{ tools }}")
    (folder / "model.toml").write_text(AUTO)
    return folder


def _gguf(models: Path, name: str) -> Path:
    return write_gguf_folder(models, name, gguf(), manifest=AUTO)


def _awq(models: Path, name: str) -> Path:
    return _checkpoint(models, name, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})


def _gptq(models: Path, name: str) -> Path:
    return _checkpoint(models, name, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})


def _unknown(models: Path, name: str) -> Path:
    return _checkpoint(models, name, model_type="brandnew", architectures=["BrandNewForCausalLM"])


def _tuned(models: Path, name: str) -> Path:
    folder = _checkpoint(models, name)
    (folder / "style").mkdir()
    (folder / "style" / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "style" / "adapter_model.safetensors").write_bytes(safetensors())
    (folder / "model.toml").write_text(AUTO + 'lora = ["style"]\n')
    return folder


def _completions(models: Path, name: str) -> Path:
    folder = _checkpoint(models, name)
    (folder / "model.toml").write_text(AUTO + 'tags = ["completions"]\n')
    return folder


def _embeddings(models: Path, name: str) -> Path:
    folder = _checkpoint(models, name)
    (folder / "model.toml").write_text(AUTO + 'tags = ["embeddings"]\n')
    return folder


KINDS: Final[Mapping[str, Callable[[Path, str], Path]]] = {
    "a GGUF": _gguf,
    "a checkpoint at 16 bits": _checkpoint,
    "a checkpoint at 4 bits (AWQ)": _awq,
    "a checkpoint at 4 bits (GPTQ)": _gptq,
    "a checkpoint of a family that nobody knows": _unknown,
    "a checkpoint with an adapter": _tuned,
    "a checkpoint tagged completions": _completions,
    "a checkpoint tagged embeddings": _embeddings,
}
"""Models as they lie in folders, all of them asking for `engine = "auto"`."""


def told(name: str) -> str:
    """Write down for one recorded box which engine each kind of model gets, and what speaks against the others."""
    box = recorded(name)
    device = read_device(box.system, box.engine)
    memory_bytes = _memory_bytes(box.system.files["/proc/meminfo"])
    lines = [f"# {name}"]
    with tempfile.TemporaryDirectory() as home:
        models = Path(home) / "models"
        models.mkdir()
        for number, make in enumerate(KINDS.values()):
            make(models, f"m{number}")
        catalog = Scanner(
            Settings(home=PurePosixPath(home)),
            budget_bytes=memory_bytes - _RESERVE_BYTES,
            memory_bytes=memory_bytes,
            device=device,
            now=lambda: time.time() + 3600.0,
        ).scan()
    specs = {spec.name: spec for spec in (*catalog.models, *(order.spec for order in catalog.orders))}
    problems = {problem.folder: problem.text for problem in catalog.problems}
    for number, kind in enumerate(KINDS):
        folder = f"m{number}"
        said = _lines(specs[folder]) if folder in specs else [f"nobody: {problems[folder]}"]  # type: ignore[index]
        lines += ["", f"{kind}:", *(f"    {line}" for line in said)]
    return "\n".join(lines) + "\n"


def _lines(spec: ModelSpec) -> list[str]:
    choice = spec.choice
    assert choice is not None, "all of them ask for it"
    others = sorted((engine, reason) for engine, reason in choice.others)
    return [f"{spec.engine}: {choice.reason}", *(f"  not {engine}: {reason}" for engine, reason in others)]


def _memory_bytes(meminfo: str) -> int:
    return int(next(line.split()[1] for line in meminfo.splitlines() if line.startswith("MemTotal:"))) * KIB


def everything() -> str:
    """Write down all recorded boxes."""
    return "\n".join(told(name) for name in NAMES)


if __name__ == "__main__":
    GOLDEN.write_text(everything(), encoding="utf-8")
    sys.stdout.write(f"written to {GOLDEN}; read the differences before they are kept\n")
