"""The command line of a box: the real script, and a stand-in for the engine."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.stack import PROJECT

COMMAND = PROJECT / "appliance" / "box" / "tree" / "usr" / "bin" / "windlass"
DOCKER = """#!/bin/bash
printf '%s\\n' "$@"
printf 'told: %s\\n' "$WINDLASS_API_KEY"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a box with one release and a key."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    release = tmp_path / "home" / "releases" / "1.0"
    release.mkdir(parents=True)
    (release / "release.env").write_text("WINDLASS_IMAGE_CONTROLLER=c:1\n")
    (release.parent / "current").symlink_to("1.0")
    (tmp_path / "home" / "etc").mkdir()
    (tmp_path / "home" / "etc" / "api-key").write_text("wl-secret\n")
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "WINDLASS_HOME": str(tmp_path / "home"),
        "WINDLASS_RUN": str(tmp_path / "run"),
        "WINDLASS_CONFIG": str(tmp_path / "appliance.toml"),
    }


def ask(environ: dict[str, str]) -> list[str]:
    """Return what the engine was told, a word a line."""
    done = subprocess.run([COMMAND, "models"], env=environ, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.splitlines()


def test_the_owners_key_is_no_argument(environ: dict[str, str]) -> None:
    """Everybody on a box may read the arguments of its programs."""
    *argv, told = ask(environ)

    assert "told: wl-secret" == told
    assert not [word for word in argv if "wl-secret" in word]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ('[gateway]\nlisten = "0.0.0.0:8000"  # "everywhere"\n', "http://127.0.0.1:8000"),
        ('[gateway]\nlisten = "[::]:80"\n', "http://127.0.0.1:80"),
        ("[gateway]\nlisten='192.168.7.2:8001'\n", "http://192.168.7.2:8001"),
        ('gateway.listen = "[fd00::7]:8002"\n', "http://[fd00::7]:8002"),
        ('[gateway]\n#listen = "0.0.0.0:9"\n', "http://127.0.0.1:8000"),
        (None, "http://127.0.0.1:8000"),
    ],
)
def test_the_gateway_is_asked_where_it_listens(environ: dict[str, str], written: str | None, url: str) -> None:
    """One that listens at a single address is not found at another; without a configuration it is where the product puts it."""
    if written is not None:
        Path(environ["WINDLASS_CONFIG"]).write_text(written)

    assert f"WINDLASS_URL={url}" in ask(environ)
