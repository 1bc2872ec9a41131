"""The engine that each kind of model gets on each recorded box, as it was written down and read by a person."""

import re

import pytest

from tests.choices import GOLDEN, KINDS, told
from tests.devices import NAMES


def golden() -> dict[str, str]:
    """Return what was written down, box by box."""
    parts = re.split(r"(?m)^# (.*)\n", GOLDEN.read_text(encoding="utf-8"))
    return {name: f"# {name}\n{text.rstrip()}\n" for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_what_was_written_down(name: str) -> None:
    """Engine, reason, and what speaks against each of the others; `python -m tests.choices` writes it anew."""
    assert golden().get(name) == told(name)


def test_every_box_and_kind_is_written_down() -> None:
    """Nothing is left from a box that is no more."""
    assert set(NAMES) == set(golden())
    assert all(f"\n{kind}:\n" in text for text in golden().values() for kind in KINDS)
