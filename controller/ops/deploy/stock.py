"""
The images of this machine, and their layers as files of their own.

Whatever the engine here is and however it writes its archives, a layer leaves as the plain tar that its digest is the hash of.
"""

import contextlib
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Final

from controller.ops.deploy.errors import DeployError, UnusableError
from controller.ops.deploy.layers import MANIFEST, Image, Packed, layer_file

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
CHUNK_BYTES: Final = 1024 * 1024
_FORMAT: Final = '{{.Architecture}}|{{join .RootFS.Layers " "}}'


def find_images(tags: Iterable[str]) -> tuple[Image, ...]:
    """Return those of *tags* that the engine here has."""
    found = []
    for tag in tags:
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", _FORMAT, tag], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            architecture, _, layers = done.stdout.strip().partition("|")
            found.append(Image(tag=tag, architecture=architecture, layers=tuple(layers.split())))
        elif "no such image" not in done.stderr.lower():
            raise UnusableError(f"the container engine here does not answer: {done.stderr.strip()}")
    return tuple(found)


def pack(images: Sequence[Image], layers: Collection[str], folder: Path) -> tuple[Packed, ...]:
    """
    Write the configurations of *images* and the given *layers* into *folder*; what is there already is not written again.

    Raises:
        DeployError: the engine cannot give them.

    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "configurations.json"
    known = _read_index(index)
    if not all(_key(image) in known for image in images) or not all((folder / layer_file(layer)).exists() for layer in layers):
        known |= _save(images, layers, folder)
        arriving = index.with_suffix(".arriving")
        arriving.write_text(json.dumps(known), encoding="utf-8")
        arriving.rename(index)
    if lacking := [image.tag for image in images if _key(image) not in known]:
        raise DeployError(f"docker save: {', '.join(lacking)} is not in what it wrote; run make images, and then this again")
    return tuple(Packed(tag=image.tag, config=known[_key(image)], layers=image.layers) for image in images)


def _read_index(index: Path) -> dict[str, str]:
    """Return which configuration file is whose; nothing where an earlier run has left none, or half of one."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(image): str(config) for image, config in found.items()}


def _key(image: Image) -> str:
    return " ".join((image.tag, *image.layers))


def _save(images: Sequence[Image], layers: Collection[str], folder: Path) -> dict[str, str]:
    archive = folder / "save.tar"
    argv = ["docker", "save", "--output", str(archive), *(image.tag for image in images)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeployError(f"docker save: {done.stderr.strip()}")
    try:
        with tarfile.open(archive) as opened:
            return _take_apart(opened, images, layers, folder)
    finally:
        archive.unlink(missing_ok=True)


def _take_apart(archive: tarfile.TarFile, images: Sequence[Image], layers: Collection[str], folder: Path) -> dict[str, str]:
    by_tag = {image.tag: image for image in images}
    known: dict[str, str] = {}
    for entry in json.load(_open(archive, MANIFEST)):
        named = [by_tag[tag] for tag in entry["RepoTags"] or () if tag in by_tag]
        if not named:
            continue
        config = f"{Path(entry['Config']).stem}.json"
        with (folder / config).open("wb") as written:
            shutil.copyfileobj(_open(archive, entry["Config"]), written)
        known |= {_key(image): config for image in named}
        for digest, name in zip(named[0].layers, entry["Layers"], strict=True):
            if digest in layers and not (folder / layer_file(digest)).exists():
                _write_layer(_open(archive, name), digest, folder / layer_file(digest))
    return known


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    opened = archive.extractfile(name)
    if opened is None:
        raise DeployError(f"docker save: {name} is no file in what it wrote")
    return opened


def _write_layer(source: IO[bytes], digest: str, path: Path) -> None:
    """Write a layer unpacked, under another name until it is whole and is what its digest says."""
    arriving = path.with_suffix(".arriving")
    head = source.read(len(ZSTD))
    source.seek(0)
    if head == ZSTD:
        raise DeployError(f"layer {digest} is packed with zstd, which is not read here: build its image again, without zstd")
    hashed = hashlib.sha256()
    with arriving.open("wb") as written, _plain(source, head) as opened:
        while chunk := opened.read(CHUNK_BYTES):
            hashed.update(chunk)
            written.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise DeployError(f"docker save: layer {digest} has another hash, {hashed.hexdigest()}; the engine here has damaged it")
    arriving.rename(path)


def _plain(source: IO[bytes], head: bytes) -> contextlib.AbstractContextManager[IO[bytes] | gzip.GzipFile]:
    return gzip.GzipFile(fileobj=source) if head.startswith(GZIP) else contextlib.nullcontext(source)
