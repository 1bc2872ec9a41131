"""The hash of a tree changes with what tests could notice, and with nothing else."""

import ast
from functools import cache
from pathlib import Path

import pytest

from bench.stack import PROJECT
from tests.appliance.__main__ import read
from tests.appliance.stamp import BOX, MAKE_BOOT, MORE, due, hash_of, names

NAMES = ["a/one.py", "two.sh", "link", "README.md"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a small tree."""
    (tmp_path / "a").mkdir()
    for name in ("a/one.py", "two.sh", "README.md"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "link").symlink_to("two.sh")
    return tmp_path


def test_the_same_tree_has_the_same_hash(folder: Path) -> None:
    """Times do not count, and neither does what only people read."""
    before = hash_of(folder, NAMES)
    (folder / "a/one.py").touch()
    (folder / "README.md").write_text("longer", encoding="utf-8")

    assert before == hash_of(folder, NAMES)


@pytest.mark.parametrize("change", ["content", "mode", "gone", "link", "name"])
def test_whatever_could_be_noticed_changes_it(folder: Path, change: str) -> None:
    """Content, the right to be run, a link's aim, a file that went, and one that is called something else."""
    before, names = hash_of(folder, NAMES), list(NAMES)
    match change:
        case "content":
            (folder / "a/one.py").write_text("a/onE.py", encoding="utf-8")
        case "mode":
            (folder / "two.sh").chmod(0o755)
        case "gone":
            (folder / "a/one.py").unlink()
        case "link":
            (folder / "link").unlink()
            (folder / "link").symlink_to("a/one.py")
        case "name":
            names[0] = "a/uno.py"
            (folder / "a/one.py").rename(folder / "a/uno.py")

    assert before != hash_of(folder, names)


def test_bytes_cannot_move_between_files(folder: Path) -> None:
    """The end of one file and the beginning of the next are told apart."""
    before = hash_of(folder, ["a/one.py", "two.sh"])
    (folder / "a/one.py").write_text("a/one.pyt", encoding="utf-8")
    (folder / "two.sh").write_text("wo.sh", encoding="utf-8")

    assert before != hash_of(folder, ["a/one.py", "two.sh"])


def test_a_file_of_tests_is_due_when_it_has_not_passed_on_this_tree() -> None:
    """Never passed, passed on another tree, passed on this one."""
    written = {"files": {"boot": {"tree": "old"}, "deploy": {"tree": "new"}}, "figures": {}}

    assert ["boot", "update"] == due({"boot": "new", "deploy": "new", "update": "new"}, written)


REPORT = """<testsuites><testsuite tests="4">
<testcase classname="tests.appliance.test_boot" name="a" time="1.4"/>
<testcase classname="tests.appliance.test_boot" name="b" time="2.2"/>
<testcase classname="tests.appliance.test_deploy" name="a" time="1"/>
<testcase classname="tests.appliance.test_deploy" name="b" time="1"><{how}/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("how", ["failure", "error", "skipped"])
def test_a_file_has_passed_when_every_test_of_it_has(tmp_path: Path, how: str) -> None:
    """One that failed, could not begin or was left out counts against its file alone."""
    (tmp_path / "tests.xml").write_text(REPORT.replace("{how}", how), encoding="utf-8")

    assert {"boot": {"tests": 2, "seconds": 4}} == read(tmp_path / "tests.xml")


@cache
def imported(path: Path) -> set[Path]:
    """Return the files of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            named = [node.module or "", *(f"{node.module}.{name}" for name in named)]
        found |= {PROJECT / name.replace(".", "/") for name in named if name.split(".")[0] in {"bench", "controller", "tests"}}
    return {file for one in found for file in (one.with_suffix(".py"), one / "__init__.py") if file.is_file()}


def reached(name: str) -> set[Path]:
    """Return the files, relative to the project, that a file of the appliance's tests imports, and what those import."""
    left, seen = {PROJECT / f"tests/appliance/{file}.py" for file in ("conftest", f"test_{name}")}, set[Path]()
    while left:
        path = left.pop()
        seen.add(path)
        left |= imported(path) - seen
    return {path.relative_to(PROJECT) for path in seen if path.stat().st_size}


@pytest.mark.parametrize("name", names())
def test_all_that_the_tests_import_counts(name: str) -> None:
    """Whatever a file of the appliance's tests imports of our tests, and what that imports, lies in what its hash is of."""
    files = {file for file in reached(name) if file.parts[0] != "controller"}

    assert len(files) > 5
    assert [] == sorted(file for file in files if not any(file.is_relative_to(part) for part in (*BOX, *MORE.get(name, ()))))


@pytest.mark.parametrize("name", names())
def test_the_tests_make_no_use_of_what_does_not_count(name: str) -> None:
    """`make boot` starts machines for people; none of the tests does it that way."""
    assert {str(file) for file in reached(name)}.isdisjoint(MAKE_BOOT)
