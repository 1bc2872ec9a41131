"""
Open files below a folder, and nothing that lies elsewhere.

A stick or a folder in transit may hold links and pipes: following one as root would read or write whatever it names.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
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
    with _folder_of(root, path, make=bool(flags & os.O_CREAT)) as (at, name):
        # Without O_NONBLOCK a pipe would be waited for.
        handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _FILE_MODE, dir_fd=at)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "wanted a plain file, got something else", str(root / path))
    return FileIO(handle, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "rb+")


def remove_beneath(root: Path, path: str) -> None:
    """
    Remove the file at *path* below *root*, if it is there, and the folders on the way that are empty then.

    Raises:
        OSError: something on the way is a link, or it may not be removed.

    """
    with contextlib.suppress(FileNotFoundError), _folder_of(root, path) as (at, name):
        os.unlink(name, dir_fd=at)
    folder = path.rpartition("/")[0]
    while folder:
        try:
            with _folder_of(root, folder) as (at, name):
                os.rmdir(name, dir_fd=at)
        except OSError:
            return  # it still holds something, or is gone
        folder = folder.rpartition("/")[0]


@contextlib.contextmanager
def _folder_of(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder that *path* lies in, one step after the other, and give out its handle and the last name."""
    *folders, name = path.split("/")
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for piece in folders:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(piece, _FOLDER_MODE, dir_fd=at)
            inner = os.open(piece, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        yield at, name
    except OSError as exc:
        exc.filename = str(root / path)  # what is known to the kernel is the last name alone
        raise
    finally:
        os.close(at)
