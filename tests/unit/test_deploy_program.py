"""What the program of a deploy says and ends with when it is not a box that is at fault."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from controller.ops.deploy.__main__ import FOLDER
from controller.ops.release import PROJECT
from tests.waiting import until

PROGRAM = [sys.executable, "-m", "controller.ops.deploy"]
ROLLBACK = [*PROGRAM, "rollback", "--host"]
HEARS_INTERRUPTIONS = ["/usr/bin/env", "--default-signal=INT"]
"""What a shell runs in the background ignores SIGINT, and so does all that is started by it: these tests, too."""


def test_an_interruption_is_told(tmp_path: Path) -> None:
    """Who stops it is told what goes on, and gets a status of its own."""
    program, began = tmp_path / "ssh", tmp_path / "began"
    program.write_text(f"#!/bin/sh\n: >{began}\nexec sleep 60\n")
    program.chmod(0o755)
    with subprocess.Popen(
        [*HEARS_INTERRUPTIONS, *ROLLBACK, "box"],
        cwd=PROJECT, env={"WINDLASS_SSH": str(program)}, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        asyncio.run(until("it connects", began.exists))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: its ssh hears it, too
        assert process.stdout is not None
        said = process.stdout.read()

    assert 130 == process.returncode
    assert "a switch that has begun goes on on the box" in said


def test_a_program_that_is_missing_is_told() -> None:
    """A machine without ssh is told so in words, and which boxes were not touched."""
    done = subprocess.run(
        [*ROLLBACK, "box,other"], cwd=PROJECT, env={"WINDLASS_SSH": "/nowhere/ssh"}, capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert "failed: box; untouched: other" in done.stdout
    assert "/nowhere/ssh" in done.stdout
    assert "Traceback" not in done.stderr


def test_two_deploys_of_one_checkout() -> None:
    """The second one ends before it touches the files that the first one sends."""
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run(
            [*PROGRAM, "deploy", "--host", "box"], cwd=PROJECT, env={}, capture_output=True, text=True, check=False
        )

    assert 2 == done.returncode
    assert "another deploy of this checkout is under way" in done.stdout
