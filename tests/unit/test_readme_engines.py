"""README's table of engines and boxes says what the engines say."""

from pathlib import Path

from controller.engines import ENGINES
from tests.support_table import BOXES, RUN, table

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return what stands below a heading."""
    _, _, below = TEXT.partition(f"\n## {heading}\n")
    return below.partition("\n## ")[0]


def test_the_table_is_what_the_engines_say() -> None:
    """Word for word, with nothing more beside it; `python -m tests.support_table` prints it."""
    said = section("Engines and boxes")

    assert table() in said
    assert table().count("\n|") == said.count("\n|") - 1


def test_what_was_run_is_there() -> None:
    """Nobody claims a run of an engine or a box that is no more."""
    assert {box for box, _ in RUN} <= set(BOXES)
    assert {engine for _, engine in RUN} <= set(ENGINES)


def test_what_nobody_has_run_is_said() -> None:
    """Whoever runs something on a Jetson or a GPU for the first time takes that out of both places."""
    nobody = "Not run: a Jetson or any other arm64 board, any GPU or CUDA"

    assert (nobody in section("Not yet run on hardware")) == all(box == "no-gpu" for box, _ in RUN)
