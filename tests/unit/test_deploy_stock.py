"""Images are taken apart as engines write them: with a program of the test's in the place of docker."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from controller.ops.deploy import stock
from controller.ops.deploy.errors import DeployError
from controller.ops.deploy.layers import Image, layer_file

LAYER = b"a layer" * 100
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
ONE, TWO = (Image(tag=f"windlass/{name}:1", layers=(DIGEST,), architecture="amd64") for name in ("one", "two"))


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a docker first that writes a prepared archive."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec cp {tmp_path}/prepared "$3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def prepare(folder: Path, *entries: dict[str, object], layer: bytes = LAYER) -> None:
    """Write the archive that docker gives out."""
    files = {"manifest.json": json.dumps(entries).encode(), "blobs/sha256/c0": b"{}", "blobs/sha256/l0": layer}
    with tarfile.open(folder / "prepared", "w") as archive:
        for name, data in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            archive.addfile(head, io.BytesIO(data))


def entry(*tags: str) -> dict[str, object]:
    """Describe an image as an archive does."""
    return {"Config": "blobs/sha256/c0", "RepoTags": [*tags] or None, "Layers": ["blobs/sha256/l0"]}


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_leaves_unpacked(tmp_path: Path, packed: bool) -> None:
    """However the engine keeps it, its file is what its digest is of."""
    prepare(tmp_path, entry(ONE.tag), layer=gzip.compress(LAYER) if packed else LAYER)
    (image,) = stock.pack([ONE], [DIGEST], tmp_path / "out")

    assert LAYER == (tmp_path / "out" / layer_file(DIGEST)).read_bytes()
    assert b"{}" == (tmp_path / "out" / image.config).read_bytes()


def test_a_damaged_layer_does_not_leave(tmp_path: Path) -> None:
    """What is not what its digest says is no layer."""
    prepare(tmp_path, entry(ONE.tag), layer=b"another")
    with pytest.raises(DeployError, match="has another hash"):
        stock.pack([ONE], [DIGEST], tmp_path / "out")

    assert not (tmp_path / "out" / layer_file(DIGEST)).exists()


def test_one_image_of_two_names(tmp_path: Path) -> None:
    """Both names are found, beside an entry that has none."""
    prepare(tmp_path, entry(), entry(ONE.tag, TWO.tag))

    assert [ONE.tag, TWO.tag] == [image.tag for image in stock.pack([ONE, TWO], [DIGEST], tmp_path / "out")]


def test_an_image_that_does_not_come_is_named(tmp_path: Path) -> None:
    """An engine that leaves one out is told."""
    prepare(tmp_path, entry(ONE.tag))
    with pytest.raises(DeployError, match=f"{TWO.tag} is not in what it wrote"):
        stock.pack([ONE, TWO], [DIGEST], tmp_path / "out")


def test_half_an_index_is_none(tmp_path: Path) -> None:
    """What a run that was killed has left half written is written anew."""
    prepare(tmp_path, entry(ONE.tag))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "configurations.json").write_text('{"windlass/one:1')

    assert [ONE.tag] == [image.tag for image in stock.pack([ONE], [DIGEST], tmp_path / "out")]
