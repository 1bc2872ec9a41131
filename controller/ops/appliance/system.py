"""
Make the tree of an appliance's system: Debian's packages, our files, our package, a release.

Each step works on a tree that is there, so that the same ones turn another system's root file system into an appliance. Programs
of the tree are run inside it, by root: the tree is for the processors of this machine, or this machine can run its programs.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.ops import box_deb
from controller.ops.appliance import commands, keys, rauc
from controller.ops.appliance.target import BoxTarget, read_packages
from controller.ops.images import Builder
from controller.ops.recipes import image_variables
from controller.ops.release import committed_s, write_release
from controller.ops.steps import StepError, console, run_step

ARCHIVE: Final = "images.tar.zst"
KEPT: Final = 2
"""So many systems and archives of images are kept for the next image."""
TRACES: Final = (
    "etc/*-", "etc/ssh/ssh_host_*", "var/lib/dpkg/*-old", "var/lib/systemd/*", "var/log/*.log", "var/log/apt/*",
    "var/log/[bw]tmp", "var/log/lastlog", "var/cache/ldconfig/*", "var/cache/apt/*", "var/cache/debconf/*-old",
    "var/lib/apt/lists/*", "tmp/*",
)  # fmt: skip
"""What installing leaves behind: what happened when, and keys that no two machines may share."""
PLACES: Final = ("boot/efi", "var/lib/windlass", "var/lib/systemd", "var/log/journal")
"""Where something is mounted."""
LINKS: Final = {
    "etc/hostname": "/var/lib/windlass/etc/hostname",
    "etc/windlass": "/var/lib/windlass/etc/windlass",
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "var/lib/dbus/machine-id": "/etc/machine-id",
}
"""What is the machine's own and lies on the data partition, or is known only when it runs."""


class SystemBuilder:
    """Makes one tree."""

    def __init__(self, project: Path, target: BoxTarget, *, version: str, environ: Mapping[str, str], log: Path) -> None:
        """Keep the place; nothing is made yet."""
        self._project = project
        self._os = project / "appliance" / "os"
        self._target = target
        self._version = version
        self._environ = environ
        self._log = log
        self._kept = project / "build" / "appliance" / "kept"
        self.images = Builder(project, environ=environ, target=target.images_target)
        self.tags: dict[str, str] = {}

    def make(self, root: Path, *, anew: bool = False) -> None:
        """Make an appliance's system in an empty folder; *anew* fetches every package again."""
        self.unpack(root, anew=anew)
        self.apply(root)

    def apply(self, root: Path) -> None:
        """Make a system that is there into an appliance."""
        self.lay_over(root)
        self.install_box(root)
        self.set_up(root)
        self.trust_updates(root)
        self.add_release(root)
        self.settle(root)

    def unpack(self, root: Path, *, anew: bool) -> None:
        """
        Make a Debian system from its packages.

        What was made is kept for the day: a change of ours should not have everything fetched again, and packages change.
        """
        names = [name for file in self._target.packages for name in read_packages((self._os / file).read_text(encoding="utf-8"))]
        mirror = self._environ.get("WINDLASS_DEBIAN_MIRROR", "")
        day = datetime.now(tz=UTC).date().isoformat()
        key = repr((day, commands.system_argv(self._target, names, Path(), mirror=mirror)))

        def fetch(archive: Path) -> None:
            argv = commands.system_argv(self._target, names, archive, mirror=mirror)
            self.step(f"Debian {self._target.suite}: {len(names)} packages and what they need, about 1 min", argv)

        archive = self._keep("system", key, ".tar", fetch, anew=anew)
        root.mkdir()
        self.step(f"Debian {self._target.suite} for {self._target.architecture}", commands.unpack_argv(archive, root))

    def lay_over(self, root: Path) -> None:
        """Lay our files over it."""
        for name in self._target.trees:
            tree = self._os / name
            self.step(f"our files over it, {name}", commands.overlay_argv(tree, root))
            for path in tree.rglob("*"):
                (root / path.relative_to(tree)).chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)

    def install_box(self, root: Path) -> None:
        """Install the package that every box has; what it needs is there."""
        package = box_deb.build(self._log.parent, version=self._version)
        inside = root / "tmp" / package.name
        shutil.copyfile(package, inside)
        self.step("our own package", commands.inside_argv(root, "dpkg", "--install", f"/tmp/{package.name}"))  # noqa: S108 -- in the tree
        inside.unlink()
        package.unlink()

    def set_up(self, root: Path) -> None:
        """Choose what starts, and give what is the machine's own its place."""
        self.step("units", commands.units_argv(root, "enable", commands.WANTED_UNITS))
        self.step("units that stay off", commands.units_argv(root, "mask", commands.UNWANTED_UNITS))
        self.step("what starts it", commands.inside_argv(root, "update-initramfs", "-u", "-k", "all"))
        (root / "etc" / "machine-id").write_text("", encoding="ascii")
        (root / "usr" / "share" / "windlass" / "target.env").write_text(self._target.variables(), encoding="ascii")
        for link, target in LINKS.items():
            (root / link).unlink(missing_ok=True)
            (root / link).symlink_to(target)
        for folder in PLACES:
            (root / folder).mkdir(parents=True, exist_ok=True)

    def trust_updates(self, root: Path) -> None:
        """Say which version this is, whose updates it takes, and how its kernel wants to be started."""
        trusted = keys.ensure_keys(self._project, self._environ)
        if trusted.development:
            console.print(keys.WARNING, style="yellow")
        folder = root / "etc" / "rauc"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trusted.trusted, folder / "keyring.pem")
        text = rauc.system_configuration(self._target.name, compatible=self._target.compatible, revokes=trusted.revokes)
        (folder / "system.conf").write_text(text, encoding="ascii")
        release = root / "usr" / "lib" / "os-release"
        release.write_text(rauc.name_version(release.read_text(encoding="utf-8"), version=self._version), encoding="utf-8")
        if rauc.boot_loader(self._target.name) == rauc.GRUB:
            consoles = " ".join(f"console={console}" for console in self._target.consoles)
            text = (self._os / "grub" / "windlass.cfg").read_text(encoding="utf-8")
            (root / "boot" / "windlass.cfg").write_text(text.replace("@CONSOLES@", consoles), encoding="utf-8")

    def add_release(self, root: Path) -> None:
        """Bring a release along, with its images in one archive: they are loaded when the machine first starts."""
        made = self.images.ensure(self._target.images)
        self.tags = tags = {name: made[name] for name in self._target.images}
        shared = root / "usr" / "share" / "windlass"
        variables = image_variables(tags, base=self.images.base, target=self._target.images_target)
        recorded = dict(line.split("=", 1) for line in variables.splitlines() if "=" in line)
        write_release(shared / "release", version=self._version, tags=recorded, project=self._project)
        (shared / "images").mkdir(parents=True, exist_ok=True)

        def save(archive: Path) -> None:
            self.step(f"images {', '.join(sorted(tags))}, compressed", commands.archive_argv(list(tags.values()), archive))

        shutil.copyfile(self._keep("images", repr(sorted(tags.values())), ".tar.zst", save), shared / "images" / ARCHIVE)

    def settle(self, root: Path) -> None:
        """Remove the traces of its making, and let nothing be younger than the commit it was made from."""
        for pattern in TRACES:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        latest_s = committed_s(environ=self._environ)
        for path in (root, *root.rglob("*")):
            if path.lstat().st_mtime > latest_s:
                os.utime(path, (latest_s, latest_s), follow_symlinks=False)

    def step(self, title: str, argv: Sequence[str]) -> None:
        """Run one command."""
        name = "-".join("".join(c if c.isalnum() else " " for c in title).split()[:3]).lower()
        run_step(title, argv, log=self._log.with_name(f"{self._log.stem}-{name}.log"))

    def _keep(self, kind: str, key: str, suffix: str, make: Callable[[Path], None], *, anew: bool = False) -> Path:
        """Return the file that was made for this key, or make it; others of its kind go, but for the newest."""
        self._kept.mkdir(parents=True, exist_ok=True)
        file = self._kept / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}{suffix}"
        if anew or not file.exists():
            arriving = file.with_name(f"arriving-{os.getpid()}-{file.name}")
            try:
                make(arriving)
                arriving.rename(file)
            finally:
                arriving.unlink(missing_ok=True)
        os.utime(file)
        for old in sorted(self._kept.glob(f"{kind}-*"), key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
            old.unlink()
        return file


def differences(first: Path, second: Path) -> list[str]:
    """
    Name the files of two trees that differ in what is in them; which files there are, is compared elsewhere.

    Raises:
        StepError: they cannot be read.

    """
    # Device nodes have no content; diff calls any two of them different.
    argv = ["diff", "--recursive", "--brief", "--no-dereference", "--exclude=dev", str(first), str(second)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode > 1:
        raise StepError(f"diff of {first} and {second}: {done.stderr.strip()}")
    return [line.replace(str(first), "").replace(str(second), "") for line in done.stdout.splitlines()]
