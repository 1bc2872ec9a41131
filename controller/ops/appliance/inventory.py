"""Look at what an image holds: its packages and files, and those of its container images."""

import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from controller.ops.appliance.sbom import Part, file_list, read_distributions, read_packages
from controller.ops.bill import Bill
from controller.ops.steps import StepError

_LOOK: Final = "cat /var/lib/dpkg/status; echo; echo ====; find / -xdev -type d -name '*.dist-info' | sort"


def system_parts(root: Path) -> Iterator[Part]:
    """List what is installed in a system's tree."""
    yield from read_packages((root / "var" / "lib" / "dpkg" / "status").read_text(encoding="utf-8"), where="system")
    found = (str(path) for path in root.glob("usr/**/*.dist-info") if path.is_dir())
    yield from read_distributions(found, where="system")


def image_parts(tags: Mapping[str, str], bills: Mapping[str, Bill]) -> Iterator[Part]:
    """
    List what is installed in container images, by running nothing of theirs but their shell, without a network.

    Args:
        tags: their names and tags.
        bills: what each was made from, for the sources that no package manager knows.

    """
    for name, tag in tags.items():
        argv = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", tag, "-c", _LOOK]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepError(f"{tag} could not be asked what is in it: {done.stderr.strip()}")
        status, _, folders = done.stdout.partition("\n====\n")
        yield from read_packages(status, where=name)
        yield from read_distributions(folders.split(), where=name)
        for item in bills[name].items if name in bills else ():
            if item.kind == "source":
                yield Part(kind="generic", name=item.name, version=item.version, sha256=item.sha256, where=name)


def list_files(root: Path) -> str:
    """List the files of a tree with what they are, who may do what with them, and whose they are; not what is in them."""

    def entries() -> Iterator[tuple[str, str]]:
        for path in root.rglob("*"):
            status = path.lstat()
            yield f"/{path.relative_to(root)}", f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"

    return file_list(entries())
