"""
The box's own package: `python -m controller.ops.box_deb` makes `build/appliance/windlass-box_<version>_all.deb`.

It holds what `appliance/box/tree` holds, and the built-in model. The same inputs make the same file, byte for byte.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from controller.errors import WindlassError
from controller.ops.release import PROJECT, committed_s, find_version

BOX: Final = PROJECT / "appliance" / "box"
OUTPUT: Final = PROJECT / "build" / "appliance"
COPIED: Final[Mapping[str, str]] = {
    "images/windlass-mini/gguf": "usr/share/windlass/models/windlass-mini",
    "appliance/appliance.toml": "usr/share/doc/windlass-box/appliance.toml",
    "appliance/README.md": "usr/share/doc/windlass-box/README.md",
    "LICENSE": "usr/share/doc/windlass-box/copyright",
}
"""What comes from elsewhere in the checkout, and where it goes."""


class PackageError(WindlassError):
    """The package could not be made."""


def debian_version(version: str) -> str:
    """Write a release's version as Debian wants it: a tilde or a plus has a meaning there, a dash begins the packager's own."""
    return version.replace("-", "+").replace("_", "+")


def control(template: str, *, version: str, installed_kib: int) -> str:
    """Fill in what is known only when the package is made."""
    return template.replace("@VERSION@", debian_version(version)).replace("@INSTALLED_SIZE@", str(installed_kib))


def build_argv(tree: Path, output: Path) -> list[str]:
    """Build the command that packs a tree; a format of compression that every system of ours unpacks."""
    return ["dpkg-deb", "--build", "--root-owner-group", "-Zxz", str(tree), str(output)]


def build(output: Path = OUTPUT, *, version: str | None = None, copied: Mapping[str, str] = COPIED) -> Path:
    """
    Make the package and return its path.

    Raises:
        PackageError: dpkg-deb is missing, or failed.

    """
    version = version or find_version()
    epoch = committed_s()
    tree = output / "box-tree"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(BOX / "tree", tree, symlinks=True)
    for source, target in copied.items():
        _copy(PROJECT / source, tree / target)
    content = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    meta = tree / "DEBIAN"
    shutil.copytree(BOX / "DEBIAN", meta)
    template = (BOX / "DEBIAN" / "control").read_text(encoding="utf-8")
    kib = sum(-(-path.stat().st_size // 1024) for path in content)
    (meta / "control").write_text(control(template, version=version, installed_kib=kib), encoding="utf-8")
    (meta / "md5sums").write_text(_sums(tree, content), encoding="utf-8")
    _settle(tree, epoch)
    package = output / f"windlass-box_{debian_version(version)}_all.deb"
    _run(build_argv(tree, package), epoch)
    shutil.rmtree(tree)
    return package


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _sums(tree: Path, content: Sequence[Path]) -> str:
    lines = (
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n" for path in content
    )
    return "".join(lines)


def _settle(tree: Path, epoch: int) -> None:
    """Give everything the mode and the time that it has in every checkout."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _run(argv: Sequence[str], epoch: int) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        )
    except FileNotFoundError:
        raise PackageError("there is no dpkg-deb: install the package dpkg") from None
    if done.returncode:
        raise PackageError(f"dpkg-deb: {done.stderr.strip()}")


if __name__ == "__main__":
    print(build())  # noqa: T201 -- a command-line program prints
