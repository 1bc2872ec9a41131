"""
NVIDIA's package in an environment of its own, made from the lock of its image when it is first asked for.

Its server pins the very releases of its dependencies, so it cannot share ours. The native code is taken out again: it needs a
GPU, and is half a gigabyte. What is asked of it, a script of ours asks in that environment.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from controller.ops import wheels
from controller.ops.targets import l4t_base

PROJECT: Final = Path(__file__).parents[2]
LOCK: Final = PROJECT / "requirements" / "tensorrt-edge-llm.lock"
DRIVER: Final = Path(__file__).with_name("driver.py")
OURS: Final = PROJECT / "images" / "tensorrt-edge-llm"
ROOT: Final = PROJECT / "build" / "vendor"
PACKAGE: Final = "tensorrt-edgellm"


def python() -> Path:
    """Return the environment's Python, and make the environment if it is not there or the lock has changed."""
    assert sys.version_info < (3, 13), f"{PACKAGE} has wheels for Python 3.10 to 3.12, and this is {sys.version.split()[0]}"
    folder = ROOT / f"edgellm-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    with _alone():
        if not folder.exists():
            arriving = folder.with_suffix(".arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            run(sys.executable, "-m", "venv", str(arriving))
            pip = (str(arriving / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            run(*pip, "--only-binary=:all:", *wheels.locked(str(LOCK)))
            for payloads in arriving.glob("lib/python3*/site-packages/tensorrt_edgellm/_native/payloads"):
                shutil.rmtree(payloads)
            arriving.rename(folder)
    return folder / "bin" / "python"


def wheel_for_jetson() -> Path:
    """Return the package as a Jetson's image gets it, and fetch it if it is not there: 447 MB."""
    folder = ROOT / "aarch64"
    listed = folder / "wanted.txt"
    with _alone():
        folder.mkdir(parents=True, exist_ok=True)
        listed.write_text(_pin())
        if not (found := list(folder.glob(f"*{_version()}*.whl"))):
            base = l4t_base("7.2", "runtime")
            wanted = wheels.locked(str(listed))
            run(
                *wheels.wheels_argv(
                    (sys.executable, "-m", "pip"), wanted, destination=str(folder), base=base, architecture="aarch64"
                )
            )
            found = list(folder.glob(f"*{_version()}*.whl"))
    (wheel,) = found
    return wheel


def ask(verb: str, value: object) -> Any:  # noqa: ANN401
    """Have the script do *verb* with a value in the package's environment, and return what it says."""
    done = subprocess.run(
        [str(python()), str(DRIVER), verb],
        input=json.dumps(value),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(OURS), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def read(wheel: Path, name: str) -> bytes:
    """Read one file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def _version() -> str:
    found = re.search(rf"^{PACKAGE}==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert found, f"{LOCK} does not pin {PACKAGE}"
    return found[1]


def _pin() -> str:
    """Return the package's own part of the lock, hashes included."""
    lines = LOCK.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{PACKAGE}=="))
    end = next((number for number in range(start + 1, len(lines)) if not lines[number].startswith(" ")), len(lines))
    # What an extra brings is a package of its own; this one is fetched alone.
    return "\n".join(lines[start:end]).replace("[server]", "") + "\n"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one test process at a time make what all of them use."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def run(*argv: str) -> None:
    """Run a command that must do well."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout}{done.stderr}"
