"""The verbs of bundles: what they print for people and for programs, and how they end."""

import json
import os
import sys
from pathlib import Path

import pytest

from controller.bundles.manifest import FILE_NAME, FORMAT
from tests.unit.bundles import build, contents, home, key, other, put, root, write_mini
from tests.unit.test_cli import Run, run, squeezed

__all__ = ["home", "other", "root", "run"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    """Be at home; no controller runs, and the thread of the tests stays as it is."""
    monkeypatch.setenv("WINDLASS_HOME", str(home))
    monkeypatch.setenv("WINDLASS_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(os, "setpriority", lambda *_: None)


def test_there_and_back(run: Run, root: Path, other: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each folder, or JSON for programs; a rehearsal says what would be and changes nothing."""
    rehearsed = run("bundle", "export", "--all", "--to", str(root), "--dry-run")
    there_then = root.exists()
    exported = run("bundle", "export", "one", "--to", str(root))
    grown = run("bundle", "export", "one", "two", "--to", str(root), "--json")
    shown = run("bundle", "show", str(root), "--verify")
    monkeypatch.setenv("WINDLASS_HOME", str(other))
    imported = run("bundle", "import", str(root), "--only", "two")
    again = run("bundle", "import", str(root), "--json")

    assert (0, "would be copied: models/one, 12.1 KiB\nwould be copied: models/two, 300 B\n", "") == rehearsed
    assert not there_then
    assert (0, "copied: models/one, 12.1 KiB\n", "") == exported
    assert ["there", "copied"] == [one["state"] for one in json.loads(grown[1])["folders"]]
    assert {"ok": True, "bundle": str(root), "dry_run": False} == {
        k: v for k, v in json.loads(grown[1]).items() if k != "folders"
    }
    assert ["models/one one - - 4 12.1 KiB -", "models/two two - - 1 300 B -"] == squeezed(shown[1])[1:]
    assert (0, "left: models/one, 12.1 KiB: it was not asked for\ncopied: models/two, 300 B\n", "") == imported
    assert [("model", "one", "copied", None), ("model", "two", "there", None)] == [
        (one["kind"], one["name"], one["state"], one["reason"]) for one in json.loads(again[1])["folders"]
    ]
    assert contents(home / "models") == contents(other / "models")


def test_engine_files_are_shown_with_what_they_are_for(run: Run, root: Path, home: Path) -> None:
    """Whose they are, how stored, and for which device."""
    made = build(home, key(source=write_mini(home), device="sm87"))
    run("bundle", "export", "mini", "--to", str(root))
    shown, told = run("bundle", "show", str(root)), json.loads(run("bundle", "show", str(root), "--json")[1])

    assert f"engines/{made.fingerprint} mini q8_0 sm87 2" in squeezed(shown[1])[1]
    assert ("engine_file", "sm87", None) == tuple(told["folders"][0][name] for name in ("kind", "device", "problem"))
    assert (True, False) == (told["ok"], told["verified"])


def test_how_it_ends(run: Run, root: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 where something is damaged, 2 for a command line that says nothing, 4 where it is refused and nothing was changed."""
    empty = run("bundle", "export", "--to", str(root))
    both = run("bundle", "export", "one", "--all", "--to", str(root))
    unknown = run("bundle", "export", "three", "--to", str(root))
    run("bundle", "export", "--all", "--to", str(root))
    part = root / "models" / "two" / "weights.gguf"
    part.write_bytes(b"TWO" * 100)
    by_size, by_hash = run("bundle", "show", str(root)), run("bundle", "show", str(root), "--verify")
    monkeypatch.setenv("WINDLASS_HOME", str(other))
    put(other / "models" / "one", {"weights.gguf": b"mine"})
    clash = run("bundle", "import", str(root))
    kept, torn = run("bundle", "import", str(root), "--keep"), run("bundle", "import", str(root), "--keep", "--replace")
    damaged = run("bundle", "import", str(root), "--replace")
    (root / FILE_NAME).write_text(json.dumps({"format": FORMAT + 1}))
    newer = run("bundle", "import", str(root))

    assert [2, 2, 4] == [empty[0], both[0], unknown[0]]
    assert "there are: one, two" in unknown[2]
    assert [0, 1] == [by_size[0], by_hash[0]]
    assert (4, True) == (clash[0], "--replace" in clash[2])
    assert (1, 2) == (kept[0], torn[0])
    assert "left: models/one, " in kept[1]
    assert 1 == damaged[0]
    assert "replaced: models/one" in damaged[1]
    assert f"failed: models/two, 300 B: {part}: wanted the SHA-256" in damaged[1]
    assert (4, True) == (newer[0], "it was made by a newer version" in newer[2])


def test_a_bar_on_a_terminal(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn beside what is printed, and not at all for programs."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for_people = run("bundle", "export", "one", "--to", str(root))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for_programs = run("bundle", "export", "one", "--to", str(root), "--json")

    assert "models/one" in for_people[2]
    assert "copied: models/one" in for_people[1]
    assert "" == for_programs[2]
