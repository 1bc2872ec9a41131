"""`model.toml`: what it may say, and what it says when it is wrong."""

from pathlib import Path

import pytest

from controller.engines.builds import Quantization
from controller.errors import ModelError
from controller.spec import Tier
from controller.store.manifest import MAX_BYTES, Manifest, read_manifest

EVERYTHING = """
engine = "llama-cpp"
file = "model-q4.gguf"
lora = ["style.gguf"]
quantization = "Q4_K_M"
tier = "small"
tags = ["code", "german"]
context = 2048
parallel = 2
replicas = 3
pinned = true
priority = 5
memory = "1.5GiB"
gpu_memory = "5GiB"
load_seconds = 2
tools = false
options = { repack = true, kv_type = "q8_0" }
description = "Writes letters."
"""


def test_folder_without_a_manifest_has_the_defaults(tmp_path: Path) -> None:
    """No file is the same as an empty one."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/model.toml").touch()

    assert Manifest() == read_manifest(tmp_path) == read_manifest(tmp_path / "empty")


def test_everything_can_be_said(tmp_path: Path) -> None:
    """Every key is read, sizes in words too."""
    (tmp_path / "model.toml").write_text(EVERYTHING)

    assert Manifest(
        engine="llama-cpp",
        file="model-q4.gguf",
        lora=("style.gguf",),
        quantization=Quantization.Q4_K_M,
        tier=Tier.SMALL,
        tags=("code", "german"),
        context=2048,
        parallel=2,
        replicas=3,
        pinned=True,
        priority=5,
        memory=1_610_612_736,
        gpu_memory=5_368_709_120,
        load_seconds=2.0,
        tools=False,
        options={"repack": True, "kv_type": "q8_0"},
        description="Writes letters.",
    ) == read_manifest(tmp_path)


def test_the_example_above_names_every_key() -> None:
    """A key that is added must be tried here, too."""
    keys = [line.split(" = ")[0] for line in EVERYTHING.strip().splitlines()]

    assert list(Manifest.model_fields) == keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contxt = 3", "unknown key 'contxt'; did you mean 'context'?"),
        ("xyz = 3", "unknown key 'xyz'; there are engine, file"),
        ("context = '2048'", "context: "),
        ("context = 1", "context: "),
        ("parallel = 0", "parallel: "),
        ("parallel = true", "parallel: "),
        ("pinned = 1", "pinned: "),
        ("tier = 'huge'", "tier: "),
        ("memory = 'lots'", "memory: "),
        ("memory = 5", "memory: "),
        ("tags = ['Two Words']", "tags.0: "),
        ("file = '../other/model.gguf'", "file: "),
        ("file = 'a,b.gguf'", "file: "),
        ('lora = ["a\\nb"]', "lora.0: "),
        ("load_seconds = 0", "load_seconds: "),
        ("this is not TOML", "wanted TOML, got something else"),
        ("engine = 'a'\nengine = 'b'", "wanted TOML, got something else"),
    ],
)
def test_wrong_manifest_is_refused_with_a_reason(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake is named by its key."""
    (tmp_path / "model.toml").write_text(text)

    with pytest.raises(ModelError) as caught:
        read_manifest(tmp_path)

    assert said in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    """Nobody has to correct a manifest one start at a time."""
    (tmp_path / "model.toml").write_text("a = 1\nparallel = 0\n")

    with pytest.raises(ModelError) as caught:
        read_manifest(tmp_path)

    assert "'a'" in str(caught.value)
    assert "parallel" in str(caught.value)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"description = '\x00'", b"#" * (MAX_BYTES + 1), b"a = " + b"[" * 5000])
def test_what_is_no_manifest_at_all_is_refused(tmp_path: Path, raw: bytes) -> None:
    """Bytes that are no text, no TOML, or far too many are an error of ours."""
    (tmp_path / "model.toml").write_bytes(raw)

    with pytest.raises(ModelError):
        read_manifest(tmp_path)


def test_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    """What cannot be read is named."""
    (tmp_path / "model.toml").mkdir()

    with pytest.raises(ModelError, match="cannot be read"):
        read_manifest(tmp_path)
