"""Rows know whether their goal is met, survive the way through a file, and make the README's tables."""

import json
from pathlib import Path

import pytest

from bench import rows as module
from bench.report import BEGIN, END, inserted, report
from bench.rows import Row, at_least, at_most, below, exactly, publish, read_part


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (at_most("a", 0.3, "s", 0.3), True),
        (at_most("a", 0.31, "s", 0.3), False),
        (at_least("a", 99.7, "%", 99.7), True),
        (at_least("a", 99.6, "%", 99.7), False),
        (below("a", 7, "", 8, than="the other"), True),
        (below("a", 8, "", 8, than="the other"), False),
        (exactly("a", 0, 0), True),
        (exactly("a", "no", "yes"), False),
        (Row(name="a", value=1.0), None),
    ],
)
def test_a_row_knows_whether_its_goal_is_met(row: Row, met: bool | None) -> None:
    """At the border it is, where the goal is a limit; where another is to be beaten, a tie is not enough."""
    assert met is row.met


def test_a_part_reads_what_it_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Title, rows and series come back as they went, and one missed goal is told."""
    monkeypatch.setattr(module, "OUT", tmp_path)
    rows = [at_most("waiting", 2.0, "s", 1.0, published="24 s", limit="0.1 s"), Row(name="note", value="word")]

    assert not publish("part", "a title", rows, series={"x": [1, 2]})
    assert publish("other", "another", rows[1:])
    assert ("a title", rows, {"x": [1, 2]}) == read_part(tmp_path / "part.json")


def content(*rows: Row) -> dict[str, object]:
    """Return what a run of one part leaves."""
    part = {"name": "swap", "title": "a | title", "seconds": 9, "rows": [row.as_json() for row in rows]}
    machine = {
        "cores": 2,
        "processor": "Some CPU",
        "memory_bytes": 24 << 30,
        "kernel": "6.1",
        "docker": "20.10",
        "busy_cores": 0.04,
    }
    whole = {"began": "2026-01-02T03:04:05+00:00", "seconds": 600, "machine": machine, "parts": [part]}
    restored: dict[str, object] = json.loads(json.dumps(whole))
    return restored


def test_the_report_shows_every_goal_and_says_what_was_missed() -> None:
    """A row with a goal is never left out; columns that nobody fills are, and so are rows that say nothing to compare."""
    text = report(content(at_most("good", 1.0, "s", 2.0), at_most("bad", 3.0, "s", 2.0, limit="1 s"), Row(name="note", value=7)))

    assert "2 cores of Some CPU, 24 GiB of memory, Linux 6.1, Docker 20.10; 2026-01-02, 10 minutes; " in text
    assert "before it others kept 0.0 cores busy; 1 of 2 goals met." in text
    assert "| a \\| title | value | goal | limit | met |" in text
    assert "| good | 1.000 s | ≤ 2 |  | yes |" in text
    assert "| bad | 3.000 s | ≤ 2 | 1 s | **no** |" in text
    assert "note" not in text


def test_the_tables_go_between_their_marks() -> None:
    """What stood there before is replaced, the rest stays; without the marks it is an error."""
    assert f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow" == inserted(f"above\n{BEGIN}\nold\n{END}\nbelow", "new")
    with pytest.raises(SystemExit, match="needs the two lines"):
        inserted("no marks", "new")
