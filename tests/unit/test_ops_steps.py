"""One long command, with progress, a log, and its last words when it fails."""

import os
from pathlib import Path

import pytest

from controller.ops.steps import StepError, console, run_program, run_step


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


@pytest.mark.parametrize("error", [StepError("it [/red] failed"), PermissionError(13, "Permission denied", "/x")])
def test_a_program_ends_with_a_sentence(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours and the system's errors as they are, and nothing else: what is not foreseen keeps its traceback."""
    monkeypatch.setenv("PATH", os.environ["PATH"])

    def fail(with_this: Exception) -> None:
        raise with_this

    with pytest.raises(SystemExit) as ended:
        run_program(lambda: fail(error))
    assert 1 == ended.value.code
    assert f"{error}\n" == capsys.readouterr().out
    with pytest.raises(KeyError):
        run_program(lambda: fail(KeyError("x")))


def test_a_program_finds_the_tools_of_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that has come by a plain `su` has a path without them; what somebody has put before them stays before."""
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin")
    found: list[str] = []
    run_program(lambda: found.append(os.environ["PATH"]))

    assert ["/usr/local/bin:/usr/bin:/usr/sbin:/sbin"] == found
