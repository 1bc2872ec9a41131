"""Switches of one engine, as `[engines.<name>.options]` sets them: what there is, of which kind, and what holds without it."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.engines.base import Options

Value = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """
    One switch.

    Attributes:
        default: what holds when it is not set; its type is the type that is wanted.
        text: what it does, for the reference.
        choices: the values allowed, for text; empty allows any.
        smallest: the least allowed, for a number.

    """

    default: Value
    text: str
    choices: tuple[str, ...] = ()
    smallest: int = 0

    def problem(self, value: Value) -> str | None:
        """Say what is wrong with *value*, if anything."""
        # bool is an int to Python, and `ubatch_size = true` is a mistake all the same.
        if type(value) is not type(self.default):
            return f"wanted {_KINDS[type(self.default)]}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"wanted one of {', '.join(self.choices)}, got {value!r}"
        if isinstance(value, int) and value < self.smallest:
            return f"wanted at least {self.smallest}, got {value}"
        return None


_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", str: "text"}


def problems(engine: str, known: Mapping[str, Option], given: Options) -> tuple[str, ...]:
    """Say what is wrong with the options given to *engine*, one sentence each."""
    found: list[str] = []
    for key, value in given.items():
        option = known.get(key)
        text = f"no such option; there are {', '.join(sorted(known))}" if option is None else option.problem(value)
        if text is not None:
            found.append(f"engines.{engine}.options.{key}: {text}")
    return tuple(found)


def whole(known: Mapping[str, Option], given: Options, key: str) -> int:
    """Read an option that is a whole number."""
    return int(given.get(key, known[key].default))


def switch(known: Mapping[str, Option], given: Options, key: str) -> bool:
    """Read an option that is true or false."""
    return bool(given.get(key, known[key].default))


def text(known: Mapping[str, Option], given: Options, key: str) -> str:
    """Read an option that is text."""
    return str(given.get(key, known[key].default))
