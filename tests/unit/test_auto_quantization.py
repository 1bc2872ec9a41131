"""`quantization = "auto"`: the best that fits, said aloud."""

from dataclasses import replace

import pytest

from controller.engines.base import WeightsHeader
from controller.engines.builds import Quantization, best_first, estimate_bytes
from controller.engines.builds.auto import best_fit
from controller.errors import ModelError
from controller.units import MIB

HEADER = WeightsHeader(
    format="safetensors",
    architecture="qwen2",
    weights_bytes=988_000_000,
    parameters=494_032_768,
    layers=24,
    embedding_length=896,
    feed_forward_length=4864,
    heads=14,
    kv_heads=2,
    head_length=64,
    vocabulary=151_936,
    context_tokens=32_768,
    chat=True,
    tools=True,
    embeddings=False,
)
PRIVATE_BYTES = 100 * MIB


def needed(header: WeightsHeader) -> int:
    """Say what a model needs."""
    return header.weights_bytes + PRIVATE_BYTES


def size(quantization: Quantization) -> int:
    """Say what one stored so needs."""
    return estimate_bytes(HEADER, quantization) + PRIVATE_BYTES


@pytest.mark.parametrize("best", best_first(HEADER))
def test_the_best_that_fits_is_chosen(best: Quantization) -> None:
    """With room for one and not a byte more, it is that one, and the reason names it and both figures."""
    choice = best_fit(HEADER, needed_bytes=needed, limit_bytes=size(best), as_it_is=False)

    assert best is choice.quantization
    assert "auto: " in choice.reason
    assert best.value in choice.reason


def test_a_byte_less_is_the_next_one() -> None:
    """What does not fit is not chosen."""
    choice = best_fit(HEADER, needed_bytes=needed, limit_bytes=size(Quantization.Q8_0) - 1, as_it_is=False)

    assert Quantization.Q4_K_M is choice.quantization


def test_nothing_is_built_where_the_source_fits() -> None:
    """A source that can be served and fits is the best of all."""
    choice = best_fit(replace(HEADER, format="gguf"), needed_bytes=needed, limit_bytes=needed(HEADER), as_it_is=True)

    assert choice.quantization is None
    assert "as it is" in choice.reason


def test_a_source_is_only_made_smaller() -> None:
    """Of a source of 8 bits neither 16 nor 8 are made: bits that are lost do not come back."""
    source = replace(HEADER, format="gguf", weights_bytes=estimate_bytes(HEADER, Quantization.Q8_0))
    choice = best_fit(source, needed_bytes=needed, limit_bytes=needed(source) - 1, as_it_is=True)

    assert Quantization.Q4_K_M is choice.quantization


def test_what_never_fits_is_said() -> None:
    """Where not even the smallest fits, the figures are told and nothing is built."""
    with pytest.raises(ModelError, match=r"none that fits into 100 MiB; the smallest needs \d+ MiB"):
        best_fit(HEADER, needed_bytes=needed, limit_bytes=100 * MIB, as_it_is=False)


def test_a_gguf_that_must_be_built_keeps_its_bits() -> None:
    """Where an adapter is to be merged into a GGUF of 8 bits, 16 are not made of it, and 8 are."""
    source = replace(HEADER, format="gguf", weights_bytes=estimate_bytes(HEADER, Quantization.Q8_0))
    choice = best_fit(source, needed_bytes=needed, limit_bytes=4096 * MIB, as_it_is=False)

    assert Quantization.Q8_0 is choice.quantization
