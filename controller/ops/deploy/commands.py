"""
Every command line of a deploy, as lists. Pure.

Nothing here runs anything: `link` does. Values come in as arguments, so that two deploys of the same thing are the same text.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

HOME: Final = PurePosixPath("/var/lib/windlass")
INCOMING: Final = HOME / "incoming" / "deploy"
"""Where things lie on the box until they are whole: `layers/`, and a folder for each release."""
RELEASE: Final = "/usr/lib/windlass/release"

CONNECT_S: Final = 10
ALIVE_S: Final = 5
"""How often a silent connection is asked whether it lives; three silences end it."""
PERSIST_S: Final = 60
"""How long the shared connection outlives its last use, should nobody end it."""
STALLED_S: Final = 60
"""A copy that moves nothing for so long has lost its connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """
    The way to one box.

    Attributes:
        name: what ssh calls it.
        ssh: the program, with options that somebody wants on every connection.
        control: the socket that all connections share, so that one asks for a passphrase and no other.
        sudo: who logs in is not root there.

    """

    name: str
    ssh: tuple[str, ...] = ("ssh",)
    control: str
    sudo: bool = False


def _options(route: Route) -> list[str]:
    return [
        *route.ssh,
        "-o", f"ControlPath={route.control}",
        "-o", f"ConnectTimeout={CONNECT_S}",
        "-o", f"ServerAliveInterval={ALIVE_S}",
        "-o", "ServerAliveCountMax=3",
    ]  # fmt: skip


def connect(route: Route, *, may_ask: bool) -> list[str]:
    """Open the shared connection; only this one may ask a person for anything."""
    batch = "no" if may_ask else "yes"
    return [
        *_options(route),
        "-o", "ControlMaster=auto",
        "-o", f"ControlPersist={PERSIST_S}",
        "-o", f"BatchMode={batch}",
        "--", _address(route), "true",
    ]  # fmt: skip


def disconnect(route: Route) -> list[str]:
    """End the shared connection."""
    return [*_options(route), "-O", "exit", "--", _address(route)]


def remote(route: Route, argv: Sequence[str]) -> list[str]:
    """Run a command on the box, as root."""
    return [*_options(route), "-o", "BatchMode=yes", "--", _address(route), shlex.join([*_as_root(route), *argv])]


def script(route: Route, *arguments: str, as_root: bool = True) -> list[str]:
    """Run on the box what is written to the standard input of this command."""
    argv = ["bash", "-s", "--", *arguments]
    return remote(route, argv) if as_root else [*_options(route), "-o", "BatchMode=yes", "--", _address(route), shlex.join(argv)]


def copy(route: Route, sources: Sequence[str], folder: PurePosixPath, *, progress: bool) -> list[str]:
    """
    Copy files and folders into a folder of the box; what has come before stays, and a broken-off copy goes on where it was.

    Written in place: a file's name says what must be in it, so half of it is worth keeping; nobody reads it before it is whole.
    """
    shell = shlex.join([*_options(route), "-o", "BatchMode=yes"])
    return [
        "rsync",
        "--recursive", "--times", "--chmod=D755,F644",
        "--inplace", "--compress", f"--timeout={STALLED_S}",
        "--stats", *(("--info=progress2",) if progress else ()),
        f"--rsh={shell}",
        *(("--rsync-path=sudo -n rsync",) if route.sudo else ()),
        "--", *sources, f"{route.name}:{folder}/",
    ]  # fmt: skip


def make_folders(version: str) -> list[str]:
    """Make the folders into which things are copied."""
    return ["mkdir", "--parents", f"{INCOMING}/layers", f"{INCOMING}/{version}/images", f"{INCOMING}/{version}/release"]


def stage(version: str) -> list[str]:
    """Have the box check a release and put it beside its others."""
    return [RELEASE, "stage", f"{INCOMING}/{version}/release"]


def switch(version: str) -> list[str]:
    """Begin to switch; it goes on when the connection does not."""
    return ["systemctl", "start", "--no-block", unit(version)]


def unit(version: str) -> str:
    """Name the unit that switches to a release."""
    return f"windlass-switch@{version}.service"


def tidy(folder: PurePosixPath = INCOMING) -> list[str]:
    """Remove what has come and is not needed any more."""
    return ["rm", "--recursive", "--force", f"{folder}"]


def put(file: PurePosixPath, target: str) -> Iterator[list[str]]:
    """Put a file that has come into its place: a cut leaves what was there, or the new one."""
    yield ["install", "--mode=0644", f"{file}", f"{target}.windlass"]
    yield ["sync", f"{target}.windlass"]
    yield ["mv", "--force", "--no-target-directory", f"{target}.windlass", target]
    yield ["sync", str(PurePosixPath(target).parent)]


def _address(route: Route) -> str:
    """Write a name as ssh wants it: an IPv6 address without the brackets that rsync needs."""
    return route.name.replace("[", "").replace("]", "")


def _as_root(route: Route) -> Sequence[str]:
    return ("sudo", "-n") if route.sudo else ()
