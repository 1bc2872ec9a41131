"""Put one folder in the place of another in a single step."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_NOT_HERE: Final = (errno.ENOSYS, errno.EINVAL)


def exchange(one: Path, other: Path) -> None:
    """
    Have two folders of one file system change names; at no moment does either name lead nowhere.

    Where the file system cannot, *other* is moved away first, and for that moment its name is free.

    Raises:
        OSError: one of them is not there, or may not be renamed.

    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    if (code := ctypes.get_errno()) not in _NOT_HERE:
        raise OSError(code, os.strerror(code), str(other))
    aside = one.with_name(f"{one.name}-old")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
