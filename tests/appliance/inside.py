"""
Tell what lies in a home, as JSON: is the database whole, is every engine file as its manifest says, what was left half made.

Runs on the box, in the controller's image, with the standard library alone.
"""

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

home = Path(sys.argv[1])
KEPT = ".kept"
"""Where the conversations lie that are kept."""


def database() -> dict[str, object]:
    """Have the database checked by itself, and count what is in it."""
    connection = sqlite3.connect(home / "state.db", timeout=30)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        "integrity": connection.execute("PRAGMA integrity_check").fetchall()[0][0],
        "rows": {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables},  # noqa: S608
        "moved_aside": [path.name for path in home.glob("state.db.corrupt-*")],
    }


def engine_file(folder: Path) -> dict[str, object]:
    """Compare an engine file with its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    hashes = {}
    for entry in manifest["files"]:
        data = (folder / entry["name"]).read_bytes()
        hashes[entry["name"]] = hashlib.sha256(data).hexdigest()
    wanted = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
    there = {path.name for path in folder.iterdir()} - {"manifest.json"}
    return {
        "model": manifest["model"],
        "quantization": manifest["quantization"],
        "whole": hashes == wanted and there == set(wanted),
        "hashes": hashes,
    }


def folders(name: str) -> Iterator[Path]:
    """Yield what lies in a folder of the home, if there is that folder."""
    if (home / name).is_dir():
        yield from (home / name).iterdir()


def half_made() -> Iterator[Path]:
    """Yield what was begun and has not got its name yet."""
    for name in ("engines", "kv", "incoming", "models"):
        yield from (path for path in folders(name) if path.name.startswith(".") and path.name != KEPT)
    yield from (path for path in folders(f"kv/{KEPT}") if path.suffix == ".arriving")


told = {
    "database": database(),
    "engines": {path.name: engine_file(path) for path in folders("engines") if not path.name.startswith(".")},
    "half_made": sorted(map(str, half_made())),
    "models": sorted(path.name for path in folders("models")),
}
json.dump(told, sys.stdout)
