"""
Open files below a folder, and nothing that lies elsewhere.

A stick or a folder in transit may hold links and pipes: following one as root would read or write whatever it names.
"""

import errno
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


def open_beneath(root: Path, path: str, flags: int = os.O_RDONLY) -> FileIO:
    """
    Open a plain file at *path* below *root*; with `O_CREAT` the folders on the way are made.

    Raises:
        OSError: it is not there, or something on the way, or itself, is a link or no plain file.

    """
    *folders, name = path.split("/")
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for piece in folders:
            if flags & os.O_CREAT:
                _make(piece, at)
            inner = os.open(piece, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        # Without O_NONBLOCK a pipe would be waited for.
        handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _FILE_MODE, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "wanted a plain file, got something else", str(root / path))
    return FileIO(handle, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "rb+")


def _make(name: str, at: int) -> None:
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=at)
    except FileExistsError:
        return
