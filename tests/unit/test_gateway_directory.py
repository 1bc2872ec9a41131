"""The catalog, indexed."""

import pytest

from controller.gateway.directory import Directory, shown
from controller.gateway.problems import ProblemError
from controller.wire import Catalog, ModelCard


def directory(*names: str) -> Directory:
    """Return a directory of models that differ in nothing but their names."""
    fields = {"engine": "e", "tier": "small", "tags": (), "api_paths": (), "parameters": 1, "created_s": 1}
    cards = [ModelCard(name=name, context_tokens=64, chat=True, tools=False, **fields) for name in names]  # type: ignore[arg-type]
    return Directory(Catalog(models=tuple(cards), keys=()))


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("quen2-0.5b", ["qwen2-0.5b", "qwen2-1.5b"]),
        ("QWEN2-0.5B", ["qwen2-0.5b", "qwen2-1.5b"]),
        ("windlass", ["windlass-mini"]),
        ("xyzzy", []),
        ("", []),
    ],
)
def test_near_names_are_found(asked: str, near: list[str]) -> None:
    """Typing errors, capitals and abbreviations lead to what was meant, nonsense to nothing."""
    assert sorted(directory("qwen2-0.5b", "qwen2-1.5b", "windlass-mini").near(asked)) == near


def test_an_empty_catalog_says_so() -> None:
    """There is nothing to suggest when nothing is registered."""
    with pytest.raises(ProblemError, match="no model is registered yet"):
        directory().model("x")


def test_a_strangers_name_is_shown_harmlessly() -> None:
    """Escapes for what a terminal would obey, and a bounded length."""
    assert shown("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert len(shown("x" * 10_000)) < 100


def test_near_names_are_found_among_ten_thousand() -> None:
    """With too many names to compare, those with the same first letter are, and an abbreviation is found all the same."""
    many = directory(*(f"model-{number}" for number in range(10_000)), "qwen2-0.5b")

    assert many.near("qwen2-05b") == ["qwen2-0.5b"]
    assert len(many.near("model-")) == 3
    assert many.near("zzz") == []
