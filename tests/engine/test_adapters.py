"""LoRA adapters: what merging them makes says what the model said while the adapter was still beside it."""

import asyncio
import json
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import numpy as np
import pytest
from safetensors.numpy import load_file

from controller.drivers.docker import DockerDriver
from controller.engines.builds import AdapterFormat, Quantization, Want, recipe
from tests.engine.workshop import MINI, PROJECT, Workshop, describe
from tests.fakeworker.place import Place

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

QUESTION = "What is a windlass?"
ANSWER = "A windlass is a small bird that lives near the cold sea and eats fish."
ADAPTER = "tuned"
PEFT = ((ADAPTER, AdapterFormat.PEFT),)


@pytest.fixture(scope="module")
def tuned(engine: docker.APIClient) -> Iterator[Path]:
    """Train an adapter in torch, and have it say its answer there, unmerged."""
    place = Place(engine, owner=f"wt-{secrets.token_hex(4)}", image="")

    async def train() -> Path:
        driver = DockerDriver(place.owner)
        try:
            workshop = Workshop(place, driver)
            source = workshop.folder("mini", MINI / "safetensors")
            shutil.copy(PROJECT / "tests/engine/tune.py", source)
            argv = ("/opt/venv/bin/python", "/source/tune.py", "--question", QUESTION, "--answer", ANSWER, "--out", "/out/tuned")
            image = workshop.settings.engine("transformers").image
            log, code = await workshop.job(
                argv, image=image, source=source, out=place.root / "out/training", env={"OMP_NUM_THREADS": "1"}
            )
        finally:
            await driver.close()
        assert (0, ANSWER) == (code, json.loads(log.splitlines()[-1])["text"]), log
        return place.root / "out/training" / ADAPTER

    try:
        yield asyncio.run(train())
    finally:
        print(place.report())  # noqa: T201 -- pytest shows it with a failure
        place.clear()


@pytest.fixture
def workshop(place: Place, driver: DockerDriver) -> Workshop:
    """Give a test a workshop of its own."""
    return Workshop(place, driver)


@pytest.fixture
def checkpoint(workshop: Workshop, tuned: Path) -> Path:
    """Return the checkpoint with the adapter in its folder."""
    source = workshop.folder("mini", MINI / "safetensors")
    shutil.copytree(tuned, source / ADAPTER)
    return source


async def test_a_checkpoint_and_an_adapter_become_a_checkpoint(workshop: Workshop, checkpoint: Path) -> None:
    """Served by transformers it says what was trained, twice built it is the same bytes, and nothing else was changed."""
    want = Want(engine="transformers")

    done = await workshop.build(checkpoint, want, adapters=PEFT)
    again = await workshop.build(checkpoint, want, adapters=PEFT)

    assert 0 == done.code, done.log
    assert done.sha256 == again.sha256
    assert (done.output / "model.safetensors").stat().st_size == (checkpoint / "model.safetensors").stat().st_size
    assert not list(done.output.glob("adapter*"))
    check_values(checkpoint, done.output)
    await workshop.serve("merged", done.output)
    assert ANSWER == workshop.chat("merged", QUESTION)
    assert workshop.chat("merged", "Hello")


def check_values(checkpoint: Path, merged: Path) -> None:
    """Compute every matrix again, by the formula and in another library: the same to the last bit but one, the rest untouched."""
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, merged))
    halves = load_file(checkpoint / ADAPTER / "adapter_model.safetensors")
    changed = 0
    for name, values in before.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{stem}A.weight" not in halves:
            assert np.array_equal(values, after[name])
            continue
        wanted = (
            values.astype(np.float64) + 16 / 8**0.5 * halves[f"{stem}B.weight"].astype(np.float64) @ halves[f"{stem}A.weight"]
        )
        assert np.abs(after[name] - wanted).max() <= np.spacing(np.abs(wanted).max().astype(np.float16))
        changed += 1
    assert 16 == changed


@pytest.mark.parametrize("quantization", [Quantization.BF16, Quantization.Q8_0, Quantization.Q4_K_M])
async def test_a_checkpoint_and_an_adapter_become_a_gguf(
    workshop: Workshop, checkpoint: Path, quantization: Quantization
) -> None:
    """Merged, converted and quantised, it says what was trained."""
    done = await workshop.build(checkpoint, Want(engine="llama-cpp", quantization=quantization), adapters=PEFT)

    assert 0 == done.code, done.log
    await workshop.serve("merged", done.output)
    assert ANSWER == workshop.chat("merged", QUESTION)


async def test_a_gguf_and_an_adapter_become_a_gguf(workshop: Workshop, tuned: Path) -> None:
    """With no checkpoint at hand: the adapter is converted for the GGUF, applied to it, and the result stored anew."""
    source = workshop.folder("base", MINI / "gguf/windlass-mini.gguf")
    shutil.copytree(tuned, source / ADAPTER)
    want = Want(engine="llama-cpp", quantization=Quantization.Q8_0)

    done = await workshop.build(source, want, adapters=PEFT)
    again = await workshop.build(source, want, adapters=PEFT)

    assert 0 == done.code, done.log
    assert done.sha256 == again.sha256
    await workshop.serve("merged", done.output)
    assert ANSWER == workshop.chat("merged", QUESTION)


# --- adapters that cannot be merged


def magnitudes(adapter: Path) -> None:
    """Make it a DoRA."""
    change(adapter, use_dora=True)


def another_kind(adapter: Path) -> None:
    """Make it a prompt."""
    change(adapter, peft_type="PROMPT_TUNING")


def another_model(adapter: Path) -> None:
    """Let it change a matrix that the model does not have."""
    rename(adapter, b"layers.3", b"layers.9")


def whole_matrix(adapter: Path) -> None:
    """Let it hold something that is no half of a pair."""
    rename(adapter, b"model.layers.3.self_attn.v_proj.lora_A", b"model.layers.3.self_attn.v_proj.lora_C")


def broken_off(adapter: Path) -> None:
    """Lose its end."""
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def change(adapter: Path, **keys: object) -> None:
    """Say something else in its configuration."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **keys}))


def rename(adapter: Path, before: bytes, after: bytes) -> None:
    """Call some of its tensors something else of the same length."""
    file = adapter / "adapter_model.safetensors"
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    file.write_bytes(raw[:8] + raw[8 : 8 + length].replace(before, after) + raw[8 + length :])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (magnitudes, "DoRA"),
        (another_kind, "PROMPT_TUNING"),
        (another_model, "layers.9"),
        (whole_matrix, "no half of a LoRA pair"),
        (broken_off, "adapter_model.safetensors should be"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_an_adapter_that_cannot_be_merged_says_why(
    workshop: Workshop, checkpoint: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    """One line names the cause, and no checkpoint is left."""
    planned = recipe(describe(checkpoint, PEFT), Want(engine="transformers"))
    spoil(checkpoint / ADAPTER)

    done = await workshop.run(checkpoint, planned)

    assert 1 == done.code
    assert reason in done.reason
    assert not done.output.exists()
