"""Updates for the tests: the root file system of the image with a file or two changed, signed, or not quite."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ops.appliance import keys, rauc, update
from tests.appliance.disk import Disk, run

PROJECT: Final = Path(__file__).resolve().parents[2]
_SMALL_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundles:
    """
    Makes updates.

    Attributes:
        folder: where they lie, and what they are made of.
        target: the kind of box that they are for.

    """

    folder: Path
    target: str

    @classmethod
    def of(cls, image: Disk, folder: Path, *, target: str) -> "Bundles":
        """Take the root file system out of an image, as small as it can be."""
        made = cls(folder=folder, target=target)
        with image.reading("root-a") as root:
            run("cp", "--sparse=always", str(root), str(made._root))
        for argv in rauc.shrink_argv(made._root):
            subprocess.run(argv, check=False, capture_output=True)  # e2fsck says 1 when it has mended something
        return made

    @property
    def _root(self) -> Path:
        return self.folder / "root.ext4"

    def system(self, version: str, changes: Mapping[str, str | None] | None = None) -> Path:
        """Make an update to this system under another version; *changes* are files of it, None for one that is missing."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            content = Path(work)
            image = content / rauc.IMAGE_NAME
            run("cp", "--sparse=always", str(self._root), str(image))
            os_release = run("debugfs", "-R", "cat /usr/lib/os-release", str(image))
            wanted = {"/usr/lib/os-release": rauc.name_version(os_release, version=version), **(changes or {})}
            script = ""
            for number, (path, text) in enumerate(wanted.items()):
                script += f"rm {path}\n"
                if text is not None:
                    (self.folder / f"change-{number}").write_text(text, encoding="utf-8")
                    script += f"write {self.folder / f'change-{number}'} {path}\n"
            subprocess.run(["debugfs", "-w", "-f", "-", image], input=script, text=True, check=True, capture_output=True)
            return self._pack(content, version)

    def small(self, version: str, *, compatible: str = "", foreign: bool = False, corrupt: bool = False) -> Path:
        """Make an update that is no system, for a box that must not even try it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            content = Path(work)
            (content / rauc.IMAGE_NAME).write_bytes(hashlib.shake_256(b"no system").digest(_SMALL_BYTES))
            made = self._pack(content, version, compatible=compatible, foreign=foreign)
        if corrupt:
            with made.open("r+b") as file:
                file.seek(_SMALL_BYTES // 2)
                file.write(bytes(4096))
        return made

    def _pack(self, content: Path, version: str, *, compatible: str = "", foreign: bool = False) -> Path:
        text = rauc.manifest(compatible=compatible or f"windlass-{self.target}", version=version)
        (content / "manifest.raucm").write_text(text, encoding="utf-8")
        bundle = self.folder / f"windlass-{version}-{self.target}.raucb"
        signer = self._stranger() if foreign else keys.ensure_keys(PROJECT, os.environ)
        update.pack(content, bundle, trusted=signer, target=self.target, log=self.folder / "pack.log")
        return bundle

    def _stranger(self) -> keys.Keys:
        """Somebody who signs as well as we do, and whom the box has never heard of."""
        folder = self.folder / "stranger"
        shutil.rmtree(folder, ignore_errors=True)
        keys.make_keys(folder, log=self.folder / "keys.log")
        return keys.Keys(
            trusted=folder / "authority.pem", signer=f"{folder}/signer.pem", key=f"{folder}/signer.key", development=True
        )
