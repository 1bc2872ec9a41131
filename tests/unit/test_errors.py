"""The tree of errors."""

import re
from collections.abc import Iterator

from controller import errors
from controller.errors import AnswerError, ConfigError, Reason, RefusedError, WindlassError


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    """Yield a class and everything below it, as far as this module declares it."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_the_drawing_shows_exactly_the_tree() -> None:
    """Each class stands once in the module's docstring, below its parent."""
    drawn: dict[str, str] = {}
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([ │├└─]*)(\w+Error)\b", line):
            depth = len(match[1])
            path[depth] = match[2]
            above = [path[at] for at in sorted(path) if at < depth]
            drawn[match[2]] = above[-1] if above else "Exception"
            path = {at: name for at, name in path.items() if at <= depth}

    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in tree(WindlassError)}


def test_every_error_of_the_module_is_in_the_tree() -> None:
    """One `except WindlassError` catches all of them."""
    declared = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

    assert declared == {cls.__name__ for cls in tree(WindlassError)}


def test_a_configuration_error_lists_every_problem() -> None:
    """The text has a line for each, and the parts are kept."""
    error = ConfigError(["home: no", "run: neither"])

    assert error.problems == ("home: no", "run: neither")
    assert str(error) == "home: no\nrun: neither"


def test_a_refusal_keeps_its_reason_and_when_to_come_back() -> None:
    """What turns it into an answer needs more than the text."""
    error = RefusedError(Reason.QUEUE_FULL, "512 callers wait", retry_after_s=3.5)

    assert (error.reason, str(error), error.retry_after_s) == (Reason.QUEUE_FULL, "512 callers wait", 3.5)
    assert RefusedError(Reason.MALFORMED, "no").retry_after_s is None


def test_an_answer_with_an_error_keeps_its_kind() -> None:
    """The exit code of the command line depends on it."""
    error = AnswerError("no such model", code="unknown_model", refused=True)

    assert (str(error), error.code, error.refused) == ("no such model", "unknown_model", True)
