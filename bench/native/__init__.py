"""The two programs in C that measurements of the gateway use, compiled when they are asked for, and the worker's image."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.stack import BUILD, output

HERE: Final = Path(__file__).parent
FLAGS: Final = {"worker": ("-static",), "paced": ("-lm",)}
REPOSITORY: Final = "windlass/fake-engine"


def program(name: str) -> Path:
    """Return the path of `worker` or `paced`, compiled from what its source is now."""
    source = HERE / f"{name}.c"
    made = BUILD / "native" / f"{name}-{_digest(source)}"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        arriving = made.with_suffix(".new")
        output(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(arriving), str(source), *FLAGS[name]])
        arriving.rename(made)
    return made


def worker_image() -> str:
    """Return the tag of the worker's image, and make it if the engine does not have it."""
    binary = program("worker")
    tag = f"{REPOSITORY}:{_digest(binary, HERE / 'Dockerfile')}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode:
        context = BUILD / "context" / "fake-engine"
        context.mkdir(parents=True, exist_ok=True)
        shutil.copy2(binary, context / "worker")
        shutil.copy2(HERE / "Dockerfile", context / "Dockerfile")
        output(["docker", "build", "--quiet", "--tag", tag, str(context)])
    return tag


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
