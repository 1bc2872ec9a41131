"""The entry point of llama.cpp's images, compiled here: what it refuses to begin."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

SOURCE = Path(__file__).parents[2] / "images" / "llama-cpp" / "serve.c"
NO_DRIVER = "libnone-such.so.1"

pytestmark = pytest.mark.skipif(which("cc") is None, reason="needs a C compiler")


def run(tmp_path: Path, *argv: str, driver: str | None = None) -> subprocess.CompletedProcess[str]:
    """Compile it, for a GPU if *driver* names the library it needs, and run it."""
    options = [f'-DDRIVER="{driver}"'] if driver else []
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-pthread", *options, "-o", tmp_path / "serve", SOURCE, "-ldl"], check=True
    )
    return subprocess.run([tmp_path / "serve", *argv], capture_output=True, text=True, check=False)


def test_without_a_gpu_in_mind_it_becomes_the_program(tmp_path: Path) -> None:
    """The image for processors asks for no driver."""
    assert "hello\n" == run(tmp_path, "echo", "hello").stdout


def test_without_a_driver_nothing_begins(tmp_path: Path) -> None:
    """The image for GPUs says what is missing and how to give it, and does not compute on the processors."""
    done = run(tmp_path, "echo", "hello", driver=NO_DRIVER)

    assert (69, "") == (done.returncode, done.stdout)
    assert NO_DRIVER in done.stderr
    assert "--runtime nvidia" in done.stderr


def test_processors_can_be_asked_for(tmp_path: Path) -> None:
    """Who says so gets the processors on the image for GPUs, too."""
    assert "--device none\n" == run(tmp_path, "echo", "--device", "none", driver=NO_DRIVER).stdout
    assert 69 == run(tmp_path, "echo", "--device", "CUDA0", driver=NO_DRIVER).returncode


def test_with_a_driver_it_becomes_the_program(tmp_path: Path) -> None:
    """A library that is there is enough."""
    assert "hello\n" == run(tmp_path, "echo", "hello", driver="libc.so.6").stdout
