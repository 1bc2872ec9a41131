"""What the scripts of a box ask the image; and the release and the package that are made for it."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from controller.config import GatewaySettings, MemorySettings, SchedulerSettings, Settings
from controller.errors import StoreError
from controller.ops import box, box_deb
from controller.ops.release import PROJECT, ReleaseError, find_version, release_env, write_release
from controller.store.database import open_database
from controller.units import MIB


def count(database: Path) -> int:
    """Return how many keys a state database has."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM keys").fetchone()[0])


def add_key(database: Path, name: str) -> None:
    """Write a key as a controller does."""
    opened = open_database(database)
    opened.write("INSERT INTO keys VALUES (?, ?, ?, '', NULL, '', NULL)", [(name, name, name)])
    opened.close()


def test_settings_for_a_shell() -> None:
    """A shell reads where the gateway is reached from this machine, how long an answer may take, what memory must stay free."""
    settings = Settings(gateway=GatewaySettings(listen="0.0.0.0:8000"), scheduler=SchedulerSettings(request_limit_s=120))
    lines = "URL=http://127.0.0.1:8000\nREQUEST_LIMIT_S=120\nFLOOR_BYTES=429496729\n"

    assert lines == box.settings_lines(settings, total_bytes=8192 * MIB)


@pytest.mark.parametrize(
    ("floor_mib", "total_mib", "expected_mib"), [(None, 2048, 256), (None, 10240, 512), (None, 65536, 1024), (7, 65536, 7)]
)
def test_the_floor(floor_mib: int | None, total_mib: int, expected_mib: int) -> None:
    """What is configured goes before a twentieth of the machine, which has bounds."""
    memory = MemorySettings(floor=None if floor_mib is None else floor_mib * MIB)

    assert expected_mib * MIB == memory.floor_bytes(total_bytes=total_mib * MIB)


def test_state_is_copied_while_it_is_written(tmp_path: Path) -> None:
    """What a controller that still runs has written is in the copy, which only root may read."""
    state, copy = tmp_path / "state.db", tmp_path / "copy"
    opened = open_database(state)
    opened.write("INSERT INTO keys VALUES (?, ?, ?, '', NULL, '', NULL)", [("a", "a", "a")])
    box.save_state(state, copy)
    opened.close()

    assert 1 == count(copy)
    assert 0o600 == copy.stat().st_mode & 0o777
    assert [] == list(tmp_path.glob("*.new"))


def test_a_copy_is_nobody_elses_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the process gives its files otherwise."""
    state = tmp_path / "state.db"
    open_database(state).close()
    modes = []

    def connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
        if not uri:
            modes.append(Path(path).stat().st_mode & 0o777)
        return sqlite3.Connection(path, uri=uri)

    monkeypatch.setattr(sqlite3, "connect", connect)
    before = os.umask(0)
    try:
        box.save_state(state, tmp_path / "copy")
    finally:
        os.umask(before)

    assert [0o600] == modes
    assert 0o600 == (tmp_path / "copy").stat().st_mode & 0o777


def test_no_copy_of_nothing(tmp_path: Path) -> None:
    """A state that cannot be read is said so, and the copy there was stays."""
    (tmp_path / "copy").write_text("older")

    with pytest.raises(StoreError, match="wanted a copy of"):
        box.save_state(tmp_path / "missing.db", tmp_path / "copy")
    assert "older" == (tmp_path / "copy").read_text()


def test_a_sound_state_stays(tmp_path: Path) -> None:
    """What was learnt since the copy is not given up for it."""
    state, copy = tmp_path / "state.db", tmp_path / "copy"
    add_key(state, "a")
    box.save_state(state, copy)
    add_key(state, "b")

    assert not box.mend_state(state, copy)
    assert 2 == count(state)


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_broken_state_is_replaced(tmp_path: Path, damage: str) -> None:
    """A database that cannot be read whole is taken from the copy, and what was there is put aside."""
    state, copy = tmp_path / "state.db", tmp_path / "copy"
    add_key(state, "a")
    box.save_state(state, copy)
    if damage == "torn":
        state.write_bytes(b"\0" * 100 + state.read_bytes()[100:])
    else:
        state.unlink()

    assert box.mend_state(state, copy)
    assert 1 == count(state)
    assert (damage == "torn") == (tmp_path / "state.db.unsound").exists()


def test_a_copy_that_is_not_sound_replaces_nothing(tmp_path: Path) -> None:
    """What is broken is left to the controller, which puts it aside and begins anew."""
    state, copy = tmp_path / "state.db", tmp_path / "copy"
    state.write_bytes(b"no database at all, and longer than a header would be" * 10)
    copy.write_text("neither")

    assert not box.mend_state(state, copy)


def test_commands_of_the_host_run_in_its_root(tmp_path: Path) -> None:
    """Files are read below the host's root and nowhere else; a root without the command says nothing."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text("ID=host")
    system = box.HostSystem(tmp_path)
    ended = system.run(("true",))

    assert "ID=host" == system.read("/etc/os-release")
    assert system.read("/etc/passwd") is None
    assert ended is None or ended.code != 0


def test_a_release(tmp_path: Path) -> None:
    """It names its version and its images, and brings the Compose files it is run with."""
    tags = {"WINDLASS_IMAGE_CONTROLLER": "c:1", "WINDLASS_BASE_IMAGE": "b:1", "WINDLASS_USE_GPU": "false"}
    write_release(tmp_path / "made", version="1.2-3-gabc", tags=tags)
    lines = (tmp_path / "made" / "release.env").read_text().splitlines()

    assert ["WINDLASS_VERSION=1.2-3-gabc", "WINDLASS_IMAGE_CONTROLLER=c:1", "WINDLASS_USE_GPU=false"] == lines
    assert (PROJECT / "compose" / "box.yaml").read_bytes() == (tmp_path / "made" / "box.yaml").read_bytes()


@pytest.mark.parametrize("version", ["", "a b", "../up", "1:2", "-x", "1+2", "a" * 90])
def test_versions_that_are_none(version: str) -> None:
    """A version must do as a folder, a unit's instance and a project's name."""
    with pytest.raises(ReleaseError, match="wanted a version"):
        release_env(version, {"WINDLASS_IMAGE_CONTROLLER": "c:1"})


def test_a_release_without_a_controller() -> None:
    """Images that nobody has made are no release."""
    with pytest.raises(ReleaseError, match="make images"):
        release_env("1.0", {})


def test_the_version_of_a_checkout(tmp_path: Path) -> None:
    """The same changes have the same name, others another one, and none none."""

    def git(*argv: str) -> None:
        argv = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *argv)
        subprocess.run(argv, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = find_version(tmp_path)
    names = []
    for content in ("2", "3", "2"):
        (tmp_path / "file").write_text(content)
        names.append(find_version(tmp_path))

    assert "dirty" not in clean
    assert names[0] == names[2] != names[1]
    assert all(name.startswith(f"{clean}-dirty") for name in names)
    assert release_env(names[0], {"WINDLASS_IMAGE_CONTROLLER": "c:1"})


def test_whatever_lies_in_a_checkout_it_has_a_version(tmp_path: Path) -> None:
    """Links to folders and to nowhere, and a repository within, are changes as others are."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for folder in (tmp_path, tmp_path / "within"):
        subprocess.run([*git, "init", "-q", folder], check=True)
        subprocess.run([*git, "-C", folder, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    names = [find_version(tmp_path)]
    for target in ("within", "nowhere"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        names.append(find_version(tmp_path))

    assert len(set(names)) == 3


def test_the_package_is_the_same_every_time(tmp_path: Path) -> None:
    """Made twice, it is the same byte for byte, and holds what a box needs with the modes that it needs."""
    copied = {"LICENSE": box_deb.COPIED["LICENSE"]}  # not the model, which takes seconds to pack
    made = [box_deb.build(tmp_path / name, version="1.2-3-gabc", copied=copied).read_bytes() for name in ("a", "b")]
    package = tmp_path / "a" / "windlass-box_1.2+3+gabc_all.deb"
    listed = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True).stdout
    files = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}

    assert made[0] == made[1]
    assert ["-rwxr-xr-x", "root/root"] == files["/usr/lib/windlass/release"]
    assert ["-rw-r--r--", "root/root"] == files["/usr/lib/windlass/place"]
    assert "/usr/share/doc/windlass-box/copyright" in files
    assert "/usr/lib/systemd/system/multi-user.target.wants/windlass.service" in files


def test_the_package_says_what_it_needs(tmp_path: Path) -> None:
    """Every command that the scripts call comes with a package that it depends on, whichever of our systems it is."""
    text = (PROJECT / "appliance" / "box" / "DEBIAN" / "control").read_text(encoding="utf-8")
    written = box_deb.control(text, version="1.0-2", installed_kib=7)

    assert "Version: 1.0+2\n" in written
    assert "@" not in written.replace("windlass@localhost", "")
    assert "docker.io | docker-ce" in written
    assert "docker-compose-v2 | docker-compose-plugin | docker-compose" in written
