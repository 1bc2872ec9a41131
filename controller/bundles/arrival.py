"""
Take models and engine files of bundles into a home, beside a running controller.

Each folder is copied to a name that nobody looks at, beside the one it will have, hashed, put on the disk, and renamed: under
its own name it is whole or not there. Killed at any moment and begun again, it goes on with what was copied, after hashing it.
A model that takes the place of another is exchanged with it in one step; answers under way end on the old one.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from controller.bundles.beneath import open_beneath, remove_beneath
from controller.bundles.bring import Bring, has_content
from controller.bundles.claims import claimed
from controller.bundles.engine_check import check_engine_file
from controller.bundles.exchange import exchange
from controller.bundles.judging import Present, Verdict, Wish, check_asked, check_clashes, check_room, judge, once
from controller.bundles.manifest import ENGINES, MODELS, EngineItem, Item, read_bundle, without, write_bundle
from controller.bundles.reporting import Outcome, Progress, State
from controller.bundles.showing import known_bundle
from controller.errors import BundleError
from controller.probes.host import nearest_existing
from controller.store.digests import sync

ARRIVING: Final = ".arriving-"
"""Before the name of a folder that is being copied; after it comes of which content."""
_OF: Final = re.compile(r"\.arriving-(?P<name>.+)-[0-9a-f]{12}(?:-old)?")
_ENTERABLE: Final = 0o755
_READABLE: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """
    One import.

    Attributes:
        home: where models and engine files go.
        wish: what of the bundles is wanted.
        progress: who is told how far it is.
        move: take files out of the bundle as they arrive, so that a disk which holds both need not hold them twice.

    """

    home: Path
    wish: Wish
    progress: Progress
    move: bool = False

    def take(self, roots: Sequence[Path], *, dry_run: bool = False) -> tuple[Outcome, ...]:
        """
        Take what is wanted of these bundles; a folder that is damaged is said to have failed, and the others are taken.

        Raises:
            BundleError: a bundle or the home cannot be read or written.
            BundleRefusedError: it is not done as it was asked; nothing was changed.

        """
        try:
            if dry_run:
                return tuple(_outcome(verdict) for _, verdict in self._judged(roots))
            for name in (ENGINES, MODELS):
                (self.home / name).mkdir(parents=True, exist_ok=True)
            with claimed(self.home / MODELS, "import"):
                return tuple(self._take_all(self._judged(roots)))
        except OSError as exc:
            raise BundleError(f"{exc.filename or self.home}: {exc.strerror}; mend that and run it again: it goes on") from exc

    def _judged(self, roots: Sequence[Path]) -> list[tuple[Path, Verdict]]:
        """Decide about every folder of every bundle, and refuse all of it where one thing must be decided by a person."""
        found = [(root, verdict) for root in roots for verdict in judge(known_bundle(root), self.wish, self._present)]
        verdicts = once(verdict for _, verdict in found)
        check_asked(verdicts, self.wish)
        check_clashes(verdicts)
        check_room(
            missing_bytes=self._missing_bytes([(root, verdict) for (root, _), verdict in zip(found, verdicts, strict=True)]),
            free_bytes=shutil.disk_usage(nearest_existing(PurePosixPath(self.home / MODELS))).free,
            where=str(self.home),
        )
        return [(root, verdict) for (root, _), verdict in zip(found, verdicts, strict=True)]

    def _missing_bytes(self, verdicts: Iterable[tuple[Path, Verdict]]) -> int:
        """Return how much more of the disk is needed; what is moved on one disk needs no more than one part at a time."""
        disk, missing_bytes, moved_bytes = nearest_existing(PurePosixPath(self.home / MODELS)).stat().st_dev, 0, 0
        for root, verdict in verdicts:
            if not verdict.is_taken:
                continue
            if self.move and root.stat().st_dev == disk:
                parts = (part.size_bytes for file in verdict.item.files for part in file.parts)
                moved_bytes = max(moved_bytes, *parts)
            else:
                missing_bytes += max(0, verdict.item.size_bytes - _tree_bytes(self._aside(verdict)))
        return missing_bytes + moved_bytes

    def _present(self, at: str, item: Item) -> Present:
        folder = self.home / at
        if not os.path.lexists(folder):
            return Present.NOTHING
        if isinstance(item, EngineItem):
            return Present.OTHER  # the controller compares it with its manifest; here it is enough that it is there
        return Present.SAME if _holds(folder, item) else Present.OTHER

    def _aside(self, verdict: Verdict) -> Path:
        """Return where a folder is copied to: of its own for each content, so that no two are ever mixed."""
        kind, _, name = verdict.at.partition("/")
        return self.home / kind / f"{ARRIVING}{name}-{verdict.item.digest[:12]}"

    def _take_all(self, judged: Iterable[tuple[Path, Verdict]]) -> Iterator[Outcome]:
        """Take one folder after the other; what one bundle has damaged, another one that has it as well may have whole."""
        failed: dict[str, State] = {}
        for root, verdict in judged:
            wanted = failed.pop(verdict.at, verdict.state)
            outcome = self._taken(root, verdict if wanted is verdict.state else replace(verdict, state=wanted, reason=""))
            if outcome.state is State.FAILED:
                failed[verdict.at] = wanted
            yield outcome

    def _taken(self, root: Path, verdict: Verdict) -> Outcome:
        outcome = self._settle(root, verdict)
        if self.move and outcome.state in (State.COPIED, State.REPLACED, State.THERE):
            _take_out(root, verdict)
        return outcome

    def _settle(self, root: Path, verdict: Verdict) -> Outcome:
        aside = self._aside(verdict)
        _forget_others(aside)
        if not verdict.is_taken:
            if verdict.state is State.THERE:
                _remove(aside)  # a cut just after the exchange of two models has left the old one there
            return _outcome(verdict)
        self.progress.begin(verdict.at, verdict.item.size_bytes)
        try:
            self._copy(root, verdict, aside)
        except BundleError as exc:
            return replace(_outcome(verdict), state=State.FAILED, reason=str(exc))
        _give_name(aside, self.home / verdict.at, replace_it=verdict.state is State.REPLACED)
        return _outcome(verdict)

    def _copy(self, root: Path, verdict: Verdict, aside: Path) -> None:
        item, bring = verdict.item, Bring(root=root, moved=self.progress.moved)
        aside.mkdir(exist_ok=True)
        _drop_strangers(aside, item)
        for file in item.files:
            with open_beneath(aside, file.name, os.O_RDWR | os.O_CREAT) as target:
                for name, part in zip(file.part_names, file.parts, strict=True):
                    bring.part(f"{verdict.at}/{name}", part, target)
                    if self.move:
                        os.fsync(target.fileno())
                        remove_beneath(root, f"{verdict.at}/{name}")
                target.truncate(file.size_bytes)
                os.utime(target.fileno(), ns=(file.changed_ns, file.changed_ns))
                os.fsync(target.fileno())
        if isinstance(item, EngineItem):
            check_engine_file(aside, item)
        self._open(aside, (self.home / verdict.at).parent)

    def _open(self, aside: Path, parent: Path) -> None:
        """Let workers read it, give it to whoever has the folder it goes to, and see that every name is on the disk."""
        owner = parent.stat()
        for path in (*aside.rglob("*"), aside):
            path.chmod(_ENTERABLE if path.is_dir() else _READABLE)
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)
            sync(path)


def _outcome(verdict: Verdict) -> Outcome:
    return Outcome(at=verdict.at, state=verdict.state, size_bytes=verdict.item.size_bytes, reason=verdict.reason)


def _give_name(aside: Path, final: Path, *, replace_it: bool) -> None:
    if replace_it:
        exchange(aside, final)
    elif final.parent.name == ENGINES and final.is_dir():  # the controller has built it meanwhile
        pass
    else:
        aside.rename(final)
    sync(final.parent)
    _remove(aside)


def _take_out(root: Path, verdict: Verdict) -> None:
    """Remove a folder from a bundle: first from what its manifest says, then what is left of its files."""
    bundle = read_bundle(root)
    if bundle is not None:
        write_bundle(root, without(bundle, [verdict.at]))
    for path in verdict.item.paths:
        remove_beneath(root, f"{verdict.at}/{path}")


def _holds(folder: Path, item: Item) -> bool:
    """Say whether a model's folder holds these files; of those with other times, whether they have the same content."""
    found = {
        path.relative_to(folder).as_posix(): path.stat()
        for path in folder.rglob("*")
        if not any(piece.startswith(".") for piece in path.relative_to(folder).parts) and not stat.S_ISDIR(path.stat().st_mode)
    }
    if {name: status.st_size for name, status in found.items()} != {file.name: file.size_bytes for file in item.files}:
        return False
    return all(
        found[file.name].st_mtime_ns == file.changed_ns or has_content(folder / file.name, file.parts) for file in item.files
    )


def _forget_others(aside: Path) -> None:
    """Remove what was begun of other content under the same name: nobody goes on with that."""
    mine = _OF.fullmatch(aside.name)
    for path in aside.parent.glob(f"{ARRIVING}*"):
        other = _OF.fullmatch(path.name)
        if other and mine and other["name"] == mine["name"] and path != aside:
            _remove(path)


def _drop_strangers(aside: Path, item: Item) -> None:
    """Remove what is no part of it: a copy that was cut leaves nothing else, but somebody may have."""
    wanted = {file.name for file in item.files}
    for path in sorted(aside.rglob("*"), reverse=True):
        if path.is_symlink() or (not path.is_dir() and path.relative_to(aside).as_posix() not in wanted):
            path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tree_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
