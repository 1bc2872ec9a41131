"""Builds: which steps lead from a source to what is wanted, how much they take, and what is said where none do."""

from pathlib import PurePosixPath

import pytest

from controller.engines.base import WeightsHeader
from controller.engines.builds import (
    Adapter,
    AdapterFormat,
    BuildRecipe,
    Quantization,
    SourceDescription,
    Want,
    best_first,
    estimate_bytes,
    recipe,
)
from controller.errors import ModelError
from controller.units import GIB, MIB

CHECKPOINT_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json"})


def header(**changes: object) -> WeightsHeader:
    """Describe a Qwen2 model of 0.5B at sixteen bits, or something like it."""
    facts: dict[str, object] = {
        "format": "safetensors",
        "architecture": "qwen2",
        "weights_bytes": 988_000_000,
        "parameters": 494_032_768,
        "layers": 24,
        "embedding_length": 896,
        "feed_forward_length": 4864,
        "heads": 14,
        "kv_heads": 2,
        "head_length": 64,
        "vocabulary": 151_936,
        "context_tokens": 32_768,
        "chat": True,
        "tools": True,
        "embeddings": False,
    }
    return WeightsHeader(**{**facts, **changes})  # type: ignore[arg-type]


def checkpoint(*adapters: Adapter, **changes: object) -> SourceDescription:
    """Describe a checkpoint."""
    return SourceDescription(header=header(**changes), weights=PurePosixPath(), files=CHECKPOINT_FILES, adapters=adapters)


def gguf(*adapters: Adapter, **changes: object) -> SourceDescription:
    """Describe a GGUF."""
    weights = PurePosixPath("base.gguf")
    return SourceDescription(
        header=header(format="gguf", **changes), weights=weights, files=frozenset({"base.gguf"}), adapters=adapters
    )


def peft(path: str = "tuned") -> Adapter:
    """Describe an adapter as PEFT saves them."""
    return Adapter(path=PurePosixPath(path), format=AdapterFormat.PEFT, weights_bytes=10_000_000)


def ready(path: str = "tuned.gguf") -> Adapter:
    """Describe an adapter that is a GGUF."""
    return Adapter(path=PurePosixPath(path), format=AdapterFormat.GGUF, weights_bytes=10_000_000)


def verbs(planned: BuildRecipe) -> list[str]:
    """Name the steps of a recipe by their commands."""
    return [
        step.argv[3] if step.argv[0].endswith("python") else step.argv[0].rpartition("/")[2].removeprefix("llama-")
        for step in planned.steps
    ]


def llama(quantization: Quantization | None) -> Want:
    """Want a GGUF."""
    return Want(engine="llama-cpp", quantization=quantization)


@pytest.mark.parametrize(
    ("source", "quantization", "steps"),
    [
        (checkpoint(), None, ["convert"]),
        (checkpoint(), Quantization.BF16, ["convert"]),
        (checkpoint(), Quantization.Q8_0, ["convert"]),
        (checkpoint(), Quantization.Q4_0, ["convert", "quantize"]),
        (checkpoint(peft()), Quantization.Q4_K_M, ["merge", "convert", "quantize"]),
        (checkpoint(ready()), Quantization.BF16, ["convert", "export-lora", "quantize"]),
        (checkpoint(peft(), ready()), Quantization.Q8_0, ["merge", "convert", "export-lora", "quantize"]),
        (gguf(), Quantization.Q8_0, ["quantize"]),
        (gguf(ready()), Quantization.BF16, ["export-lora", "quantize"]),
        (gguf(peft()), Quantization.Q4_0, ["adapter", "export-lora", "quantize"]),
        (gguf(ready("a.gguf"), ready("b.gguf")), Quantization.Q4_0, ["export-lora", "export-lora", "quantize"]),
    ],
)
def test_the_steps_lead_to_what_is_wanted(source: SourceDescription, quantization: Quantization, steps: list[str]) -> None:
    """Nothing is done twice, and each step reads what the one before has written."""
    planned = recipe(source, llama(quantization))

    assert steps == verbs(planned)
    assert PurePosixPath("model.gguf") == planned.output
    for before, after in zip(planned.steps, planned.steps[1:], strict=False):
        assert any(part in after.argv for part in before.argv if part.startswith("/out/"))
    assert "/out/model.gguf" in planned.steps[-1].argv


def test_what_is_converted_on_the_way_to_less_keeps_all_bits() -> None:
    """A 4-bit file is made from sixteen bits, never from eight."""
    first = [recipe(checkpoint(stored=stored), llama(Quantization.Q4_0)).steps[0] for stored in ("bf16", "f16", "f32")]

    adapted = recipe(checkpoint(ready(), stored="bf16"), llama(Quantization.Q8_0)).steps[0]

    assert ["bf16", "f16", "f16"] == [step.argv[step.argv.index("--stored") + 1] for step in first]
    assert "bf16" in adapted.argv


def test_an_adapter_for_transformers_becomes_a_checkpoint() -> None:
    """The engine that reads checkpoints gets one."""
    planned = recipe(checkpoint(peft(".")), Want(engine="transformers"))

    assert ["merge"] == verbs(planned)
    assert PurePosixPath("model") == planned.output
    assert "/source" == planned.steps[0].argv[planned.steps[0].argv.index("--adapter") + 1]
    assert checkpoint().header.weights_bytes == planned.estimate_bytes


@pytest.mark.parametrize(
    ("source", "want", "reason"),
    [
        (gguf(weights_bytes=352_000_000), llama(Quantization.Q8_0), "more bits bring nothing back"),
        (gguf(weights_bytes=988_000_000), llama(Quantization.BF16), "more bits bring nothing back"),
        (gguf(), Want(engine="transformers"), "reads safetensors"),
        (checkpoint(), Want(engine="transformers", quantization=Quantization.Q8_0), "remove `quantization`"),
        (checkpoint(), Want(engine="transformers"), "nothing to build"),
        (checkpoint(ready()), Want(engine="transformers"), "PEFT"),
        (checkpoint(), Want(engine="abacus"), "no builds"),
        (checkpoint(format="onnx"), llama(None), "'onnx'"),
        (checkpoint(quantization="quant_method awq"), llama(None), "does not read weights that are quantised so"),
        (checkpoint(quantization="quant_method"), llama(None), "does not read weights that are quantised so"),
        (
            SourceDescription(header=header(), weights=PurePosixPath(), files=frozenset({"config.json"})),
            llama(Quantization.Q8_0),
            "tokenizer",
        ),
    ],
)
def test_what_cannot_be_built_says_why(source: SourceDescription, want: Want, reason: str) -> None:
    """The text names what is in the way."""
    with pytest.raises(ModelError, match=reason):
        recipe(source, want)


@pytest.mark.parametrize("said", ["", "quant_method gptq", "quant_method fp8", "quant_algo nvfp4"])
def test_what_the_converter_can_undo_is_converted(said: str) -> None:
    """As its own code says: the rest of its formats it refuses at the first tensor."""
    assert ["convert"] == verbs(recipe(checkpoint(quantization=said), llama(None)))


def test_an_adapter_is_worth_a_build_of_the_same_size() -> None:
    """A merged model is another model, even if it is no smaller."""
    assert recipe(gguf(ready()), llama(Quantization.BF16)).steps


@pytest.mark.parametrize(("stored", "best"), [("bf16", Quantization.BF16), ("f16", Quantization.F16), ("f32", Quantization.F16)])
def test_sixteen_bits_are_those_that_lose_least(stored: str, best: Quantization) -> None:
    """Of an older checkpoint, bfloat16 would lose as much as eight bits do."""
    source = checkpoint(stored=stored)

    assert best == best_first(source.header)[0] == recipe(source, llama(None)).quantization


@pytest.mark.parametrize(
    ("quantization", "published_bytes"),
    [
        (Quantization.BF16, 994_156_320),
        (Quantization.Q8_0, 531_067_936),
        (Quantization.Q4_K_M, 397_807_808),
        (Quantization.Q4_0, 352_969_408),
    ],
)
def test_estimates_agree_with_files_that_exist(quantization: Quantization, published_bytes: int) -> None:
    """Within half a percent of what the quantiser writes, whose K-blocks do not fit this model's rows."""
    assert estimate_bytes(header(), quantization) == pytest.approx(published_bytes, rel=0.005)


def test_estimates_fall_from_the_best_to_the_smallest() -> None:
    """A choice that goes through them in order finds the best that fits."""
    sizes = [estimate_bytes(header(), quantization) for quantization in best_first(header())]

    assert sorted(sizes, reverse=True) == sizes


@pytest.mark.parametrize(
    ("quantization", "bits"), [(Quantization.Q4_0, 4.5), (Quantization.Q4_K_M, 5.5), (Quantization.Q8_0, 8.5)]
)
def test_a_matrix_of_its_own_for_the_output_is_counted(quantization: Quantization, bits: float) -> None:
    """Input and output apart: the output keeps its bits, and the input gets as few as it can have."""
    apart = header(parameters=header().parameters + 896 * 151_936)

    more_bytes = estimate_bytes(apart, quantization) - estimate_bytes(header(), quantization)

    assert more_bytes == pytest.approx(896 * 151_936 * bits / 8, rel=0.001)


def test_every_step_of_a_small_board_s_model_stays_within_its_memory() -> None:
    """1.5B at sixteen bits, 3 GB of weights: no step has as much as those, and each more than was measured."""
    shape = header(
        weights_bytes=3_087_000_000, parameters=1_543_714_304, layers=28, embedding_length=1536,
        feed_forward_length=8960, heads=12, head_length=128,
    )  # fmt: skip
    source = SourceDescription(header=shape, weights=PurePosixPath(), files=CHECKPOINT_FILES, adapters=(peft(), ready()))

    planned = recipe(source, llama(Quantization.Q4_K_M))

    assert planned.memory_bytes == max(step.memory_bytes for step in planned.steps)
    assert planned.memory_bytes < 3 * GIB
    measured_mib = {"merge": 222, "convert": 1981, "quantize": 1094}
    for verb, step in zip(verbs(planned), planned.steps, strict=True):
        if verb in measured_mib:
            assert 1.1 < step.memory_bytes / MIB / measured_mib[verb] < 1.7
    assert planned.scratch_bytes > 2 * 3_087_000_000


@pytest.mark.parametrize("source", [checkpoint(), gguf(), checkpoint(peft()), gguf(ready())])
def test_what_no_gpu_has_a_part_in_is_for_every_box(source: SourceDescription) -> None:
    """A laptop converts, merges and quantises for a Jetson."""
    assert not recipe(source, Want(engine="llama-cpp", quantization=Quantization.Q4_0)).one_device
