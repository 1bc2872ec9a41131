"""
One box from what it runs to what it should run: look, lock, copy, look again, switch, watch, tidy.

Every step may be cut and done again: layers are known by their content, the box switches by itself once it was told to, and what
it says of itself afterwards is what counts.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from time import monotonic
from typing import Final

from rich.markup import escape

from controller.ops.deploy import commands, fit, outcome, rehearsal, stock
from controller.ops.deploy.cargo import Wish
from controller.ops.deploy.errors import DeployError, LockedError, UnfitError, UnreachableBoxError
from controller.ops.deploy.host import Host, read_host
from controller.ops.deploy.layers import (
    MANIFEST,
    Image,
    layer_file,
    missing_images,
    missing_layers,
    write_manifest,
    write_sums,
    write_tags,
)
from controller.ops.deploy.link import Link
from controller.ops.deploy.lock import holding
from controller.ops.steps import console
from controller.units import format_bytes, format_seconds

TRIES: Final = 3
"""How often a box is begun, at most: each time but the first after its connection was lost."""
ROUNDS: Final = 4
"""How often images are sent until the box has them: at worst as layers, as whole images, and what came damaged again."""
BACK_WITHIN_S: Final = 60.0
"""How long a lost connection may take to come back."""
DAMAGED: Final = 65
NOT_TAKEN: Final = 66


class Boat:
    """Brings one release to one box; begun anew as often as its connection is lost."""

    def __init__(self, link: Link, wish: Wish, *, tries: int = TRIES) -> None:
        """Keep the connection, what is to be brought, and how often it is begun; nothing happens yet."""
        self._link = link
        self._wish = wish
        self._tries = tries
        self._breaks_lock = wish.break_lock
        self._begun = False
        self._follower = Follower(link)

    def deploy(self) -> None:
        """
        Do all of it.

        Raises:
            DeployError: of the kind that says what to do.

        """
        through_cuts(self._link, self._deploy_once, tries=self._tries)

    def _deploy_once(self) -> None:
        version = self._wish.release.version
        host = self._look()
        with holding(self._link, version, break_lock=self._breaks_lock) as check:
            self._breaks_lock = False  # who has taken it from us meanwhile keeps it
            if host.switching != version and not self._begun:
                self._send(host, check)
                self._link.must("staging the release", commands.stage(version))
                check()
                self._link.must("beginning to switch", commands.switch(version))
            self._begun = True
            self._follower.follow(version)
            self._link.must("tidying up", commands.tidy())

    def _look(self) -> Host:
        name = self._link.route.name
        host = look(self._link)
        wish, release = self._wish, self._wish.release
        found = list(
            fit.problems(host, name=name, target=wish.target, images=wish.images, tags=release.tags, guessed=wish.guessed)
        )
        if found:
            raise UnfitError([f"{name}: {problem}" for problem in found])
        if host.switching not in {"", release.version}:
            raise LockedError(f"{name} is switching to {host.switching} at this moment; run this again when it has ended")
        runs = outcome.running(host.status)
        words = f"{name}: {host.system}, Docker {host.engine}, runs {runs or 'no release'}"
        console.print(f"  [green]fits[/]  {escape(words)}", markup=True)
        return host

    def _send(self, host: Host, check: Callable[[], None]) -> None:
        """Copy what the box lacks until it has all of it; an engine that wants whole images gets them at the second try."""
        if host.loading:
            host = self._give_up_cut()
        whole = host.whole_images
        self._link.must("making folders", commands.make_folders(self._wish.release.version))
        _write(self._wish.folder / "release", self._wish.release.files)
        self._link.copy([f"{self._wish.folder}/release/"], commands.INCOMING / self._wish.release.version / "release")
        for _ in range(ROUNDS):
            lacking = missing_images(self._wish.images, host.images)
            if not lacking:
                return
            check()
            self._copy(host, lacking, missing_layers(lacking, host.images, whole=whole))
            loaded = self._link.script("load", str(commands.INCOMING), self._wish.release.version)
            if self._link.rehearses:
                return
            if "no space left on device" in loaded.err.lower():
                raise UnfitError([f"{self._link.route.name}: {fit.FULL}"])
            if loaded.code == NOT_TAKEN:
                console.print(f"  its engine did not take the layers ({loaded.last_words}): sending whole images", markup=False)
                whole = True
            elif loaded.code not in {0, DAMAGED}:
                raise DeployError(f"loading images on {self._link.route.name}: {loaded.last_words}")
            host = look(self._link)
        raise DeployError(f"{self._link.route.name} has not taken the images after {ROUNDS} rounds; its engine's log says why")

    def _give_up_cut(self) -> Host:
        """Have the box give up the images that it was loading when it was cut: they may look whole and be empty."""
        console.print("  its engine was cut while it loaded images: they are loaded anew", markup=False)
        given_up = self._link.script("load", str(commands.INCOMING))
        if given_up.code:
            raise DeployError(f"giving up half loaded images on {self._link.route.name}: {given_up.last_words}")
        return self._look()  # what was given up may have been there only, and is wanted here then

    def _copy(self, host: Host, lacking: tuple[Image, ...], layers: tuple[str, ...]) -> None:
        wish, version = self._wish, self._wish.release.version
        store = wish.folder / "layers"
        pack = rehearsal.pack if self._link.rehearses else stock.pack
        packed = pack(lacking, layers, store)
        paths = [store / layer_file(layer) for layer in layers]
        sizes = {path.name: path.stat().st_size for path in paths if path.exists()}
        whole_bytes = sum(sizes.values())
        arrived_bytes = sum(min(size, host.arrived.get(name, 0)) for name, size in sizes.items())
        if found := list(fit.room_problems(host, sent_bytes=whole_bytes, arrived_bytes=arrived_bytes)):
            raise UnfitError([f"{self._link.route.name}: {problem}" for problem in found])
        images = {MANIFEST: write_manifest(packed), "sums": write_sums(layers), "tags": write_tags(packed)}
        images |= {image.config: (store / image.config).read_text(encoding="utf-8") for image in packed}
        _write(wish.folder / "images", images)
        began_s = monotonic()
        sent_bytes = 0
        if paths:
            sent_bytes = self._link.copy([str(path) for path in paths], commands.INCOMING / "layers")
        sent_bytes += self._link.copy([f"{wish.folder}/images/"], commands.INCOMING / version / "images")
        if self._link.rehearses:
            return
        console.print(
            f"  [green]sent[/]  {len(layers)} layers of {len(lacking)} images: "
            f"{format_bytes(sent_bytes)} for {format_bytes(whole_bytes)} [dim]({format_seconds(monotonic() - began_s)})[/]",
            markup=True,
        )


class Return:
    """Takes one box back to the release that it ran before; begun anew as often as its connection is lost."""

    def __init__(self, link: Link, *, break_lock: bool) -> None:
        """Keep the connection; nothing happens yet."""
        self._link = link
        self._breaks_lock = break_lock
        self._version = ""
        self._begun = False
        self._follower = Follower(link)

    def go_back(self) -> None:
        """
        Do all of it.

        Raises:
            DeployError: of the kind that says what to do.

        """
        try:
            through_cuts(self._link, self._go_back_once)
        except UnreachableBoxError as exc:
            if not self._begun:
                raise
            # Once it has come to its end, the release before is the one that was left.
            raise UnreachableBoxError(
                f"{exc}; the switch to {self._version} goes on there: look with DRY_RUN=1 what runs before you go back again"
            ) from exc

    def _go_back_once(self) -> None:
        host, name = look(self._link), self._link.route.name
        if found := list(fit.access_problems(host)):
            raise UnfitError([f"{name}: {problem}" for problem in found])
        if not self._version:
            self._version = _version_before(host, name)
        with holding(self._link, self._version, break_lock=self._breaks_lock):
            self._breaks_lock = False
            if not self._begun:
                self._link.must("beginning to switch", commands.switch(self._version))
            self._begun = True
            self._follower.follow(self._version)


def _version_before(host: Host, name: str) -> str:
    before, runs = outcome.previous(host.status), outcome.running(host.status) or "none"
    if not before:
        raise DeployError(f"{name} has no release to go back to; it runs {runs}")
    console.print(f"  {name} goes back from {runs} to {before}", markup=False)
    return before


def through_cuts(link: Link, act: Callable[[], None], *, tries: int = TRIES) -> None:
    """Do *act*, and connect and do it again where the connection is lost: *tries* times in all."""
    for tries_left in reversed(range(tries)):
        try:
            act()
        except UnreachableBoxError as exc:
            if not tries_left:
                raise
            console.print(f"  [yellow]lost[/]  {escape(str(exc))}; connecting again", markup=True)
            link.reopen(within_s=BACK_WITHIN_S)
        else:
            return


class Follower:
    """Shows what a switch writes on the box, whoever began it, and says how it ended."""

    def __init__(self, link: Link) -> None:
        """Keep the connection; nothing was seen yet."""
        self._link = link
        self._seen_lines = 0

    def follow(self, version: str) -> None:
        """
        Wait until the switch has ended.

        Raises:
            TrialError: the release was not switched to.
            WentBackError: it was left again.
            UnreachableBoxError: the connection was lost; the switch goes on.

        """
        code = self._link.follow("follow", commands.unit(version), str(self._seen_lines), say=self._hear)
        name = self._link.route.name
        if self._link.rehearses:
            return
        if failed := outcome.failure(look(self._link).status, name=name, version=version, code=code):
            raise failed
        console.print(f"  [green]done[/]  {escape(name)} runs {version}", markup=True)

    def _hear(self, line: str) -> None:
        self._seen_lines += 1
        console.print(f"        {line}", style="dim", markup=False)


def look(link: Link) -> Host:
    """Ask a box what it is, and become root there if that takes sudo."""
    answer = link.script("probe", str(commands.HOME), as_root=False)
    host = read_host(answer.out)
    if not host.machine:
        raise DeployError(f"{link.route.name} does not say what it is: {answer.last_words or 'it has no bash'}")
    if not host.root and host.sudo:
        link.become_root()
    return host


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write exactly these files into a folder here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / PurePath(name).name).write_text(text, encoding="utf-8")
