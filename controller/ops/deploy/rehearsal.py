"""The same steps without their effects: `DRY_RUN=1` asks the box what it is, and shows every command that would follow."""

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from controller.ops.deploy import commands
from controller.ops.deploy.layers import Image, Packed
from controller.ops.deploy.link import Answer, Holder, Link
from controller.ops.steps import console

ASKS: Final = frozenset({"probe"})
"""The scripts that only look."""


class Rehearsal(Link):
    """A connection by which nothing is changed."""

    rehearses = True

    def run(self, argv: Sequence[str]) -> Answer:
        """Show the command."""
        show(commands.remote(self.route, argv))
        return Answer(code=0, out="", err="")

    def script(self, name: str, *arguments: str, as_root: bool = True) -> Answer:
        """Run a script that only looks, show the others."""
        if name in ASKS:
            return super().script(name, *arguments, as_root=as_root)
        show(commands.script(self.route, *arguments), script=name)
        return Answer(code=0, out="", err="")

    def follow(self, name: str, *arguments: str, say: Callable[[str], None]) -> int:
        """Show the command."""
        del say
        show(commands.script(self.route, *arguments), script=name)
        return 0

    @contextlib.contextmanager
    def hold(self, name: str, *arguments: str, beat_s: float) -> Iterator[Holder]:
        """Show the command."""
        del beat_s
        show(commands.script(self.route, *arguments), script=name)
        yield Taken()

    def copy(self, sources: Sequence[str], folder: PurePosixPath) -> int:
        """Show the command."""
        show(commands.copy(self.route, sources, folder, progress=False))
        return 0


class Taken:
    """A lock that nobody holds."""

    lives = True

    def read(self) -> str:
        """Say that it was taken."""
        return "taken"


def pack(images: Sequence[Image], layers: Collection[str], folder: Path) -> tuple[Packed, ...]:
    """Show which images would be taken apart."""
    show(["docker", "save", "--output", str(folder / "save.tar"), *(image.tag for image in images)])
    console.print(f"        # {len(layers)} of their layers are not there", style="dim", markup=False)
    return ()


def show(argv: Sequence[str], *, script: str = "") -> None:
    """Show a command as one would type it."""
    source = f" < controller/ops/deploy/{script}.sh" if script else ""
    console.print(f"  {shlex.join(argv)}{source}", markup=False)
