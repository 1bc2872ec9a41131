"""
A release, as it lies on a box: a folder of its version, its images' tags, and the Compose files that it is run with.

`python -m controller.ops.release FOLDER` writes the one of this checkout and of the images that `make images` made last.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from controller import __version__
from controller.errors import WindlassError
from controller.ops.images import read_tags

PROJECT: Final = Path(__file__).resolve().parents[2]
COMPOSE_FILES: Final = ("appliance.yaml", "box.yaml")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_OF_A_RELEASE: Final = ("WINDLASS_IMAGE_", "WINDLASS_USE_GPU")


class ReleaseError(WindlassError):
    """There is no release to be made of this."""


def find_version(project: Path = PROJECT) -> str:
    """
    Name this checkout: the package's version, the number of commits, the commit, and what it differs from it by.

    Two checkouts with the same changes have the same name, so that what was deployed once is known again.
    """
    count, commit = _git(project, "rev-list", "--count", "HEAD"), _git(project, "rev-parse", "--short=10", "HEAD")
    changed = f"-dirty{digest[:6]}" if (digest := _changes(project)) else ""
    return f"{__version__}-{count}-g{commit}{changed}"


def release_env(version: str, tags: Mapping[str, str]) -> str:
    """
    Write the variables of a release.

    Raises:
        ReleaseError: the version cannot be part of a path and of a unit's name, or there is no controller.

    """
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"wanted a version of letters, digits, dots, dashes and underscores, got {version!r}")
    if not tags.get("WINDLASS_IMAGE_CONTROLLER"):
        raise ReleaseError("wanted the controller's image in build/images.env: make images")
    own = {name: tag for name, tag in tags.items() if name.startswith(_OF_A_RELEASE)}
    return "".join(f"{name}={value}\n" for name, value in {"WINDLASS_VERSION": version, **own}.items())


def write_release(folder: Path, *, version: str, tags: Mapping[str, str], project: Path = PROJECT) -> None:
    """Write a release into *folder*, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "release.env").write_text(release_env(version, tags), encoding="utf-8")
    for name in COMPOSE_FILES:
        shutil.copyfile(project / "compose" / name, folder / name)


def _changes(project: Path) -> str:
    """Hash what is not committed, files that git does not know yet with their content; empty if there is nothing."""
    pieces = [_git(project, "diff", "HEAD").encode()]
    for name in _git(project, "ls-files", "-z", "--others", "--exclude-standard").split("\0"):
        if name:
            pieces += [name.encode(), _content(project / name)]
    return hashlib.sha256(b"\0".join(pieces)).hexdigest() if any(pieces) else ""


def _content(path: Path) -> bytes:
    """Read what git would keep: of a link where it leads, and nothing of a repository within this one."""
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def committed_s(project: Path = PROJECT, *, environ: Mapping[str, str] = os.environ) -> int:
    """Say which time everything bears that is made of this checkout: `SOURCE_DATE_EPOCH`, or when its commit was made."""
    return int(environ.get("SOURCE_DATE_EPOCH") or _git(project, "log", "-1", "--format=%ct"))


def _git(project: Path, *argv: str) -> str:
    done = subprocess.run(["git", "-C", str(project), *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {argv[0]}: {done.stderr.strip()}; a release is named after a commit")
    return done.stdout.strip()


if __name__ == "__main__":
    write_release(Path(sys.argv[1]), version=find_version(), tags=read_tags(PROJECT / "build" / "images.env"))
