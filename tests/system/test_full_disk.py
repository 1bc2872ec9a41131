"""A home directory with no byte left: what runs goes on serving, and the operator is told."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.stack import Stack, output, place_model, stack, wait_until
from tests.system.conftest import CONFIG, MINI, NAME
from tests.system.talk import AS_ROOT, PATIENCE_S, Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SIZE = "192m"
"""Enough that an empty one is not yet called full."""


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system that is soon full."""
    folder = Path(tempfile.mkdtemp(prefix="wl-disk-"))
    options = f"size={SIZE},mode=0755,uid={os.getuid()}"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    yield folder
    subprocess.run([*AS_ROOT, "umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def cramped(small_disk: Path) -> Iterator[Stack]:
    """Run a stack whose home is on the small disk, with one model."""
    with stack("disk", budget="300MiB", config=CONFIG, home=small_disk / "home") as running:
        place_model(MINI, running.models / NAME)
        running.wait_for_models(NAME)
        yield running


def fill(folder: Path) -> Path:
    """Take every byte that is left."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    return ballast


def test_a_full_disk_stops_no_answer_and_shows(cramped: Stack, small_disk: Path) -> None:
    """Models are asked, swapped and restarted as before, health says what is wrong, and making room is enough."""
    caller = Caller(cramped.url)
    expected = caller.text(NAME)
    ballast = fill(small_disk)
    try:
        running = caller.text(NAME)
        cramped.api.post("/unload_model", {"model": NAME})
        swapped = caller.text(NAME)
        wait_until(lambda: "degraded" == cramped.api.health()["status"], "the operator is told", PATIENCE_S)
        told = cramped.api.health()["reasons"]
        cramped.kill_controller()
        wait_until(lambda: cramped.api.health()["status"] in ("ok", "degraded"), "the controller starts all the same", PATIENCE_S)
        restarted = caller.text(NAME)
        told_again = cramped.api.health()["reasons"]
    finally:
        ballast.unlink()
    output([*cramped.compose, "restart", "--timeout", "10", "controller"])
    wait_until(lambda: "ok" == cramped.api.health()["status"], "with room on the disk all is well", PATIENCE_S)
    caller.close()

    assert [expected] * 3 == [running, swapped, restarted]
    assert any("disk" in reason for reason in told)
    assert any("disk" in reason for reason in told_again)
