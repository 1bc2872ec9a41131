"""What a machine says on its serial line is read once, in order, and waiting for it ends."""

from pathlib import Path

import pytest

from tests.appliance.console import Console


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the file of a serial line that has said something."""
    path = tmp_path / "console.log"
    path.write_bytes(b"\x1b[0;32mWelcome\x1b[0m\r\nkey: one\r\nkey: two\r\n")
    return path


def test_each_word_is_waited_for_once(log: Path) -> None:
    """A second wait goes on where the first has ended."""
    console = Console(log)

    found = [console.wait_for(r"^key: (\w+)$", within_s=1)[1] for _ in range(2)]

    assert ["one", "two"] == found


def test_a_wait_that_is_in_vain_shows_the_end(log: Path) -> None:
    """What is never said ends in an error that says what was, without the colours."""
    with pytest.raises(AssertionError, match="waited 0 s for 'never' on the console; its end:\nWelcome\nkey: one\nkey: two"):
        Console(log).wait_for("never", within_s=0)


def test_a_machine_that_is_off_is_not_waited_for(log: Path) -> None:
    """Nobody waits an hour for a machine that will say nothing any more; its last words count."""
    console = Console(log)

    console.wait_for("two", within_s=3600, while_true=lambda: False)
    with pytest.raises(AssertionError):
        console.wait_for("three", within_s=3600, while_true=lambda: False)


def test_a_line_that_has_not_spoken_yet(tmp_path: Path) -> None:
    """Before the first word there is nothing, and that is no error."""
    assert "" == Console(tmp_path / "none").text
