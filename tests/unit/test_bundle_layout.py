"""Names that a bundle takes, and how its files lie in parts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.bundles.layout import clash, name_problem, part_names, part_sizes

PATHS = ("a", "A", "a/b", "a/B", "b", "a/b/c", "\u00e9", "e\u0301", "b.001", "B/x", "\u00df", "ss")


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "a/..", "a/../b", "/a", "a/", "a//b", ".a", "a/.b", "a\\b", "a:b", "a\x00", "a\n", "a.", "a ", "a*"),
        *("\ud800", "\u202e", "x" * 201, "\u00e9" * 101, "a/" * 8 + "a", "a./b", "a /b"),
    ],
)
def test_a_name_that_leads_elsewhere_is_not_taken(path: str) -> None:
    """Nor one that some file system refuses, or shows as another one."""
    assert name_problem(path) is not None


@pytest.mark.parametrize("path", ["model-00001-of-00002.safetensors", "a b/c.json", "\u00e9", "x" * 200, "a/" * 7 + "a", "a..b"])
def test_names_as_models_have_them_are_taken(path: str) -> None:
    """Whatever is plain."""
    assert name_problem(path) is None


@given(paths=st.lists(st.sampled_from(PATHS), max_size=5))
def test_what_does_not_clash_lies_side_by_side(paths: list[str]) -> None:
    """Where letters' case and the way accents are written make no difference, each is a file of its own."""
    folded = [unicodedata.normalize("NFC", path).casefold() for path in paths]
    distinct = len(set(folded)) == len(folded)
    nested = any(one.startswith(f"{other}/") for one in folded for other in folded)

    assert (clash(paths) is None) is (distinct and not nested)


@given(size=st.integers(0, 10_000), part=st.integers(1, 700))
def test_parts_are_the_whole(size: int, part: int) -> None:
    """None is too large, none but that of an empty file is empty, and each has a name of its own."""
    sizes = part_sizes(size, part)
    called = part_names("x", len(sizes))

    assert size == sum(sizes)
    assert part >= max(sizes)
    assert 0 not in sizes or (0,) == sizes
    assert len(sizes) == len(set(called))
    assert called == ("x",) if len(sizes) == 1 else ("x.001", "x.002") == called[:2]
