"""One long command, with progress, a log, and its last words when it fails."""

from pathlib import Path

import pytest

from controller.ops.steps import StepError, console, run_step


def test_output_goes_into_the_log(tmp_path: Path) -> None:
    """Everything a command says on either stream is kept, and a success is one line for people."""
    log = tmp_path / "logs" / "step.log"
    with console.capture() as shown:
        run_step("greet", ["sh", "-c", "echo out; echo err >&2"], log=log)

    assert "out\nerr\n" == log.read_text()
    assert "done  greet" in shown.get()
    assert "err" not in shown.get()


def test_a_failure_shows_its_last_words(tmp_path: Path) -> None:
    """A command that fails is quoted, and the error names its status and the log."""
    log = tmp_path / "step.log"
    with console.capture() as shown, pytest.raises(StepError, match=r"status 3.*step\.log"):
        run_step("greet", ["sh", "-c", "echo 'disk [full]'; exit 3"], log=log)

    assert "disk [full]" in shown.get()


def test_a_missing_program_is_an_error_of_ours(tmp_path: Path) -> None:
    """A program that is not installed is named, without a traceback of the operating system's."""
    with pytest.raises(StepError, match="greet: no-such-program-anywhere cannot be started"):
        run_step("greet", ["no-such-program-anywhere"], log=tmp_path / "step.log")
