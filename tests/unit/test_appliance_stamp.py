"""The hash of a tree changes with what tests could notice, and with nothing else."""

from pathlib import Path

import pytest

from tests.appliance.stamp import hash_of

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
