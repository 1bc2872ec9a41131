"""Models of real shape for the measurements: written once, kept in `build/models`."""

import subprocess
import sys
from pathlib import Path

from bench.stack import BUILD


def model(shape: str, dtype: str, *, seed: int) -> Path:
    """Return the folder of a model of this shape, and write it first if it is not there."""
    folder = BUILD / "models" / f"{shape}-{dtype}-{seed}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "bench.make_model", "--shape", shape, "--dtype", dtype]
        subprocess.run([*argv, "--seed", str(seed), "--out", str(folder)], check=True)
    return folder


def weights_of(folder: Path) -> Path:
    """Return the one GGUF of a model's folder."""
    (weights,) = folder.glob("*.gguf")
    return weights
