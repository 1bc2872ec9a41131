"""One export or import into a folder at a time: a lock that ends with whoever holds it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from controller.errors import BundleRefusedError


@contextlib.contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """
    Hold a folder for this process.

    Raises:
        BundleRefusedError: somebody else holds it.
        OSError: it cannot be opened.

    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BundleRefusedError(f"{folder}: another {what} is under way there; wait for its end") from exc
        yield
    finally:
        os.close(handle)
