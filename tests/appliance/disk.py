"""
A machine's disk: what is written lies in a layer over an image that never changes.

Its partitions can be read and written while the machine is off, without mounting anything.
"""

import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512
_TABLE_BYTES: Final = 34 * SECTOR_BYTES
_SIGNATURE: Final = b"EFI PART"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where a partition lies."""

    start_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """
    An image file.

    Attributes:
        path: the file.
        format: `raw` or `qcow2`.

    """

    path: Path
    format: str = "qcow2"

    def layer(self, at: Path, *, size: str = "") -> "Disk":
        """Return a disk that begins as this one and keeps its changes in a file of its own; *size* makes it larger."""
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self.path.resolve()), "-F", self.format, str(at), *size.split())
        return Disk(path=at)

    def partitions(self) -> dict[str, Extent]:
        """Return where the partitions lie, by their names in the partition table."""
        with self._copy(Extent(start_bytes=0, size_bytes=_TABLE_BYTES)) as head:
            return dict(read_table(head.read_bytes()))

    @contextmanager
    def reading(self, label: str) -> Iterator[Path]:
        """Copy a partition out, for as long as the block lasts."""
        with self._copy(self._extent(label)) as copy:
            yield copy

    @contextmanager
    def writing(self, label: str) -> Iterator[Path]:
        """Copy a partition out, and back again when the block has ended well."""
        extent = self._extent(label)
        with self._copy(extent) as copy:
            yield copy
            run("qemu-img", "convert", "-n", "-f", "raw", str(copy), "--target-image-opts", self._window(extent))

    def put(self, files: Mapping[str, str | bytes], *, label: str = "esp") -> None:
        """Write files into a FAT partition, as somebody does who has put the disk into a laptop."""
        with self.writing(label) as image:
            put(image, files)

    def get(self, path: str, *, label: str = "esp") -> bytes:
        """Read a file of a FAT partition."""
        with self.reading(label) as image:
            return subprocess.run(["mtype", "-i", image, f"::/{path}"], capture_output=True, check=True).stdout

    def _extent(self, label: str) -> Extent:
        there = self.partitions()
        assert label in there, f"{self.path} has no partition {label!r}, only {sorted(there)}"
        return there[label]

    @contextmanager
    def _copy(self, extent: Extent) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="partition-", dir=self.path.parent) as folder:
            copy = Path(folder) / "image"
            run("qemu-img", "convert", "--image-opts", self._window(extent), "-O", "raw", str(copy))
            yield copy

    def _window(self, extent: Extent) -> str:
        where = f"driver=raw,offset={extent.start_bytes},size={extent.size_bytes}"
        return f"{where},file.driver={self.format},{_file('file.file', self.path)}"


def read_table(head: bytes) -> Iterator[tuple[str, Extent]]:
    """Yield the partitions that a GUID partition table names."""
    header = head[SECTOR_BYTES : 2 * SECTOR_BYTES]
    assert header.startswith(_SIGNATURE), f"wanted a GUID partition table, got {header[:8]!r}"
    first_sector, count, entry_bytes = struct.unpack_from("<QII", header, 72)
    for index in range(count):
        entry = head[first_sector * SECTOR_BYTES + index * entry_bytes :][:entry_bytes]
        kind, first, last, name = struct.unpack("<16s16xQQ8x72s", entry[:128])
        if any(kind):
            size_bytes = (last - first + 1) * SECTOR_BYTES
            yield name.decode("utf-16-le").rstrip("\0"), Extent(start_bytes=first * SECTOR_BYTES, size_bytes=size_bytes)


def make_stick(at: Path, files: Mapping[str, Path], *, size: str) -> Disk:
    """Make an image of a USB stick, as it comes from a shop: one FAT file system; with these files on it."""
    run("truncate", "--size", size, str(at))
    run("mkfs.vfat", "-F", "32", "-n", "STICK", str(at))
    for name, source in files.items():
        run("mcopy", "-i", str(at), str(source), f"::/{name}")
    return Disk(path=at, format="raw")


def put(image: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a FAT file system, with the folders that they need."""
    for path, content in files.items():
        folders = [str(folder) for folder in Path(path).parents if folder.name]
        for folder in reversed(folders):
            subprocess.run(["mmd", "-D", "s", "-i", image, f"::/{folder}"], capture_output=True, check=False)  # may be there
        data = content.encode() if isinstance(content, str) else content
        subprocess.run(["mcopy", "-D", "o", "-i", image, "-", f"::/{path}"], input=data, check=True)


def run(*argv: str) -> str:
    """Run a command and return what it printed; what it complained about is in the error."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def _file(key: str, path: Path) -> str:
    return f"{key}.driver=file,{key}.filename={path}"
