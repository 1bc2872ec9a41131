"""
One at a time on a box.

A script on the box holds the lock for as long as a line comes in now and then, so that it ends with the connection: at once when
that is closed, and after a short silence when it was cut or this machine was shut.
"""

import contextlib
import getpass
import socket
from collections.abc import Callable, Iterator
from typing import Final

from controller.ops.deploy.errors import DeployError, LockedError, UnreachableBoxError
from controller.ops.deploy.link import Link

BEAT_S: Final = 5.0
SILENCE_S: Final = 30
"""After so long without a word from us the box lets go."""


def who() -> str:
    """Name whoever is at work, for others who meet the lock."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextlib.contextmanager
def holding(link: Link, version: str, *, break_lock: bool) -> Iterator[Callable[[], None]]:
    """
    Hold the lock, and yield what sees to it that it is still held.

    Raises:
        LockedError: somebody else holds it: who, since when, and how to break it.

    """
    mode = "break" if break_lock else "no"
    with link.hold("lock", who(), version, str(SILENCE_S), mode, beat_s=BEAT_S) as held:
        words = []
        while (said := held.read()) and said.partition("\t")[0] not in {"taken", "held"}:
            words.append(said)  # of the shell that it runs in
        if said != "taken":
            raise _refusal(link.route.name, said or "; ".join(words))

        def check() -> None:
            if not held.lives:
                raise UnreachableBoxError(
                    f"the lock of {link.route.name} was lost, with the connection or to somebody who broke it"
                )

        yield check


def _refusal(name: str, said: str) -> DeployError:
    word, *rest = said.split("\t")
    if word != "held" or len(rest) != 3:
        return UnreachableBoxError(f"the lock of {name} cannot be taken: {said or 'the connection ended'}")
    holder, since, version = rest
    return LockedError(
        f"{name} is locked: {holder} has been deploying {version} since {since}; wait until that ends, "
        "or take the lock away with BREAK_LOCK=1 if you know that nobody is there"
    )
