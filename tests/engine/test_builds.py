"""Engine files made of the built-in model: all of them are served, answer like the original, and come out the same twice."""

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from controller.drivers.docker import DockerDriver
from controller.engines.builds import Quantization, Want, estimate_bytes, recipe
from controller.store.gguf import read_gguf
from tests.engine.workshop import MINI, PROJECT, Built, Workshop, describe
from tests.fakeworker.place import Place

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

CHECKPOINT = MINI / "safetensors"
GGUF = MINI / "gguf/windlass-mini.gguf"
QUESTIONS = {
    case["messages"][-1]["content"]: case["text"]
    for case in json.loads((PROJECT / "tests/golden/windlass_mini.json").read_bytes())
    if case["engine"] == "llama-cpp" and case["api"] == "chat" and len(case["messages"]) == 1
}
"""What the original answers."""


def llama(quantization: Quantization | None) -> Want:
    """Want a GGUF."""
    return Want(engine="llama-cpp", quantization=quantization)


@pytest.fixture(scope="module")
def shop(engine: docker.APIClient) -> Iterator[Place]:
    """Keep what is built in one place for all tests that only look at it."""
    place = Place(engine, owner=f"wt-{secrets.token_hex(4)}", image="")
    yield place
    print(place.report())  # noqa: T201 -- pytest shows it with a failure
    place.clear()


@pytest.fixture(scope="module")
def built(shop: Place) -> dict[Quantization, Built]:
    """Build every quantisation of the checkpoint."""

    async def build() -> dict[Quantization, Built]:
        driver = DockerDriver(shop.owner)
        try:
            workshop = Workshop(shop, driver)
            source = workshop.folder("mini", CHECKPOINT)
            return {quantization: await workshop.build(source, llama(quantization)) for quantization in Quantization}
        finally:
            await driver.close()

    return asyncio.run(build())


@pytest.fixture
def workshop(place: Place, driver: DockerDriver) -> Workshop:
    """Give a test a workshop of its own."""
    return Workshop(place, driver)


@pytest.mark.parametrize("quantization", Quantization)
def test_a_build_leaves_one_whole_file_of_the_size_that_was_said(
    built: dict[Quantization, Built], quantization: Quantization
) -> None:
    """The controller's own reader takes it, and the estimate was within 3 %."""
    done = built[quantization]

    assert 0 == done.code, done.log
    header = read_gguf(done.output).header
    assert describe(CHECKPOINT).header.parameters == header.parameters
    assert done.output.stat().st_size == pytest.approx(done.recipe.estimate_bytes, rel=0.03)
    assert estimate_bytes(header, quantization) == pytest.approx(done.recipe.estimate_bytes, rel=0.03)


@pytest.mark.parametrize(
    ("quantization", "same"),
    [
        (Quantization.F16, 1.0),
        (Quantization.BF16, 0.8),
        (Quantization.Q8_0, 0.8),
        (Quantization.Q4_K_M, 0.5),
        (Quantization.Q4_0, 0.4),
    ],
)
async def test_what_was_built_answers_like_the_original(
    workshop: Workshop, built: dict[Quantization, Built], quantization: Quantization, same: float
) -> None:
    """Word for word at its own sixteen bits, and with fewer and fewer equal answers below."""
    await workshop.serve("mini", built[quantization].output)

    said = {question: workshop.chat("mini", question) for question in QUESTIONS}

    equal = [question for question, text in QUESTIONS.items() if said[question] == text]
    assert len(equal) >= same * len(QUESTIONS), said


async def test_the_same_source_makes_the_same_bytes(workshop: Workshop, built: dict[Quantization, Built]) -> None:
    """Elsewhere, later, under another name: conversion and quantisation both."""
    source = workshop.folder("other-name", CHECKPOINT)

    again = await workshop.build(source, llama(Quantization.Q4_K_M))

    assert built[Quantization.Q4_K_M].sha256 == again.sha256


async def test_a_gguf_is_stored_another_way(workshop: Workshop, built: dict[Quantization, Built]) -> None:
    """From the GGUF of sixteen bits comes a smaller one that answers."""
    done = await workshop.build(workshop.folder("gguf", GGUF), llama(Quantization.Q4_0))

    assert 0 == done.code, done.log
    assert done.output.stat().st_size == pytest.approx(built[Quantization.Q4_0].output.stat().st_size, rel=0.001)
    await workshop.serve("small", done.output)
    assert "windlass" in workshop.chat("small", "What is a windlass?")


async def test_words_become_the_same_tokens(workshop: Workshop, built: dict[Quantization, Built]) -> None:
    """A tokenizer that the converter knows by its rule alone splits text as the original does."""
    await workshop.serve("built", built[Quantization.Q8_0].output)
    await workshop.serve("original", GGUF)
    text = "It's 12345 o'clock!\n\n  The sea,\tthe SEA... naïve café \U0001f6a2 don't    stop\r\n x=3.14;"

    tokens = [workshop.ask(name, "/tokenize", {"content": text})["tokens"] for name in ("built", "original")]

    assert tokens[0] == tokens[1]


# --- sources that cannot be built


def truncated(folder: Path) -> None:
    """Break the weights off after they were looked at."""
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def unknown_family(folder: Path) -> None:
    """Name a model that nobody has heard of."""
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["CrystalBallForCausalLM"]}))


def no_tokenizer(folder: Path) -> None:
    """Forget the tokenizer."""
    (folder / "tokenizer.json").unlink()


def strange_rule(folder: Path) -> None:
    """Split text by a rule of one's own."""
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}{1,3}"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def pickle_beside(folder: Path) -> None:
    """Put a pickle beside the weights."""
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /out/opened'\ntR.")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "model.safetensors should be"),
        (unknown_family, "CrystalBallForCausalLM"),
        (no_tokenizer, "tokenizer"),
        (strange_rule, "rule that llama.cpp has no name for"),
        (pickle_beside, "pytorch_model.bin"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_source_that_cannot_be_built_says_why(workshop: Workshop, spoil: Callable[[Path], None], reason: str) -> None:
    """Its step ends with status 1 and one line that names the cause, even if the folder changed after the plan."""
    source = workshop.folder("spoilt", CHECKPOINT)
    planned = recipe(describe(source), llama(Quantization.Q4_0))
    spoil(source)

    done = await workshop.run(source, planned)

    assert 1 == done.code
    assert reason in done.reason
    assert not done.output.exists()


async def test_a_damaged_gguf_is_no_source(workshop: Workshop) -> None:
    """The quantiser's own complaint is in the log, and it does not end well."""
    source = workshop.folder("gguf", GGUF)
    planned = recipe(describe(source), llama(Quantization.Q4_0))
    os.truncate(source / GGUF.name, 1_000_000)

    done = await workshop.run(source, planned)

    assert done.code != 0
    assert "failed" in done.log
