"""The engine for Jetsons as data: which boxes and models it takes, its arguments, its memory, and what is built for it."""

import itertools
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

import pytest

from controller import engines
from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.engines.base import WeightsHeader
from controller.engines.builds import Adapter, AdapterFormat, Quantization, SourceDescription, Want, recipe
from controller.engines.tensorrt_edge_llm import TAKEN_FIELDS, Precision, cache_folder, precisions
from controller.errors import ModelError
from controller.spec import ApiPath, Mount
from tests.unit.test_engines import header, model, site

ENGINE: Final = engines.find("tensorrt-edge-llm")
ORIN: Final = Device(
    architecture="aarch64",
    family=Family.ORIN,
    board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    module="p3767-0003",
    l4t="39.2.0",
    jetpack="7.2",
    cuda="13.2",
    tensorrt="10.16.2.10",
    gpus=(Gpu(index=0, name="Orin", sm="87"),),
    access=GpuAccess.RUNTIME,
    gpu_groups=(44, 104),
)
THOR: Final = replace(ORIN, family=Family.THOR, module="p3834-0008", gpus=(Gpu(index=0, name="Thor", sm="110"),), board="Thor")


def checkpoint(**changes: Any) -> WeightsHeader:  # noqa: ANN401
    """Describe Qwen2 0.5B as a checkpoint."""
    return header(**{"format": "safetensors", **changes})


REFUSED_DEVICES: Final = {
    "no GPU": (NO_GPU, "this box is none"),
    "a card": (replace(ORIN, family=Family.DISCRETE), "this box is none"),
    "no way into a container": (replace(ORIN, access=GpuAccess.NONE), "no container of this box can use the GPU"),
    "JetPack 6": (replace(ORIN, l4t="36.5.0"), "this box has Jetson Linux 36.5.0"),
    "a later release": (replace(ORIN, l4t="39.3.0"), "this box has Jetson Linux 39.3.0"),
    "39.20 is not 39.2": (replace(ORIN, l4t="39.20"), "this box has Jetson Linux 39.20"),
    "no release": (replace(ORIN, l4t=""), "of an unknown release"),
    "another GPU": (replace(ORIN, gpus=(Gpu(index=0, name="?", sm="72"),)), "SM 87 on orin, and this GPU has SM 72"),
    "IGX Thor": (replace(THOR, board="NVIDIA IGX Thor Developer Kit"), "the package has other code"),
}


@pytest.mark.parametrize(("device", "said"), REFUSED_DEVICES.values(), ids=list(REFUSED_DEVICES))
def test_boxes_it_does_not_run_on(device: Device, said: str) -> None:
    """Each of them is told what is wanted and what it is instead, whatever the model."""
    assert said in ENGINE.refusal(device)
    assert ENGINE.refusal(device) == ENGINE.refusal(device, checkpoint())


@pytest.mark.parametrize("device", [ORIN, THOR, replace(ORIN, l4t="39.2"), replace(ORIN, l4t="39.2.1")])
def test_boxes_it_runs_on(device: Device) -> None:
    """Orin and Thor with JetPack 7.2, whichever patch of it."""
    assert "" == ENGINE.refusal(device) == ENGINE.refusal(device, checkpoint())


REFUSED_MODELS: Final = {
    "a GGUF": ({"format": "gguf"}, "these weights are gguf"),
    "an embedding model": ({"embeddings": True}, "no text generator"),
    "an unknown family": ({"architecture": "gemma2"}, "does not know the family gemma2; it knows gemma4_text, "),
    "no template": ({"chat": False}, "no chat template"),
    "compressed-tensors": (
        {"quantization": "quant_method compressed-tensors pack-quantized"},
        "does not read weights with the quant_method compressed-tensors pack-quantized",
    ),
    "bitsandbytes": ({"quantization": "quant_method bitsandbytes"}, "does not read weights with the quant_method bitsandbytes"),
    "FP8": ({"quantization": "quant_algo fp8"}, "these weights are FP8"),
    "NVFP4": ({"quantization": "quant_method compressed-tensors nvfp4-pack-quantized"}, "these weights are NVFP4"),
    "a mixture": ({"quantization": "quant_algo mixed_precision fp8,w4a16_awq"}, "these weights are FP8"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED_MODELS.values(), ids=list(REFUSED_MODELS))
def test_models_an_orin_cannot_run(changes: dict[str, Any], said: str) -> None:
    """Each is refused before anything is built, with what is wrong with it."""
    assert said in ENGINE.refusal(ORIN, checkpoint(**changes))


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ("", Precision.SIXTEEN),
        ("quant_method awq", Precision.INT4),
        ("quant_method gptq", Precision.INT4),
        ("quant_algo int4_awq", Precision.INT4),
        ("quant_algo w4a16_awq", Precision.INT4),
        ("quant_algo w8a8_sq_per_channel", Precision.INT8),
        ("quant_algo int8_sq", Precision.INT8),
    ],
)
def test_what_an_orin_computes_with(quantization: str, precision: Precision) -> None:
    """Half precision, AWQ, GPTQ and SmoothQuant run on both devices."""
    assert {precision} == precisions(quantization)
    assert "" == ENGINE.refusal(ORIN, checkpoint(quantization=quantization))


def test_thor_computes_with_more() -> None:
    """What an Orin refuses for its GPU alone, a Thor takes; what the package cannot read, it does not."""
    for quantization in ("quant_algo fp8", "quant_algo nvfp4", "quant_algo mixed_precision fp8,w4a16_awq"):
        assert "" == ENGINE.refusal(THOR, checkpoint(quantization=quantization))
    for quantization in ("quant_algo mxfp4", "quant_method fp8", "quant_algo unheard_of"):
        assert "does not read" in ENGINE.refusal(THOR, checkpoint(quantization=quantization))


def test_it_chats_and_nothing_else() -> None:
    """Without a template there is nothing it could be asked."""
    assert {ApiPath.CHAT} == ENGINE.api_paths(checkpoint())
    assert not ENGINE.api_paths(checkpoint(chat=False))
    assert not ENGINE.api_paths(checkpoint(embeddings=True))


def test_worker() -> None:
    """It sees the engine file, the checkpoint and the release of Jetson Linux, and is started for exactly what was built."""
    spec = model(
        engine=ENGINE.name,
        folder=PurePosixPath("/home/engines/f1"),
        source=PurePosixPath("/home/models/qwen"),
        context_tokens=2048,
        parallel=1,
    )
    worker = ENGINE.worker(spec, replace(site(), device=ORIN))

    assert (
        "/source",
        *("--cache-dir", "/tmp/edge-llm/sm87_p3767-0003_l4t39.2.0_trt10.16.2.10_edgellm0.11.0"),
        *("--host", "127.0.0.1", "--port", "8000"),
        *("--served-model-name", "qwen"),
        *("--max-input-len", "2048", "--max-batch-size", "1", "--max-kv-cache-capacity", "2048"),
        *("--max-queued-requests", "16"),
        *("--reasoning-parser", "auto", "--tool-call-parser", "auto"),
        *("--log-level", "warning"),
    ) == worker.argv
    assert (PurePosixPath("/home/engines/f1"), PurePosixPath("/model")) == (worker.mounts[0].source, worker.mounts[0].target)
    release = PurePosixPath("/etc/nv_tegra_release")
    assert (
        Mount(source=PurePosixPath("/home/models/qwen"), target=PurePosixPath("/source"), read_only=True),
        Mount(source=release, target=release, read_only=True),
    ) == worker.mounts[3:]
    assert (("nvidia=all",), (44, 104)) == (worker.devices, worker.groups)


def test_options_reach_the_server() -> None:
    """Several callers are batched in flight, tools are called where the model can, and a shorter prompt is compiled for."""
    options = site(max_input_tokens=512, context_reuse=True, reasoning_parser="qwen3", log_level="info", max_queued_requests=3)
    argv = ENGINE.worker(model(parallel=4, tools=True), options).argv

    assert {"--enable-in-flight-batching", "--enable-auto-tool-choice", "--enable-context-reuse"} <= set(argv)
    wanted = {"--max-input-len": "512", "--max-batch-size": "4", "--reasoning-parser": "qwen3", "--max-queued-requests": "3"}
    assert wanted.items() <= dict(itertools.pairwise(argv)).items()
    assert "2000" == argv[argv.index("--max-kv-cache-capacity") + 1]


def test_no_prompt_is_longer_than_the_context() -> None:
    """An option that says so means the whole context."""
    argv = ENGINE.worker(model(), site(max_input_tokens=99_999)).argv

    assert "2000" == argv[argv.index("--max-input-len") + 1]


def test_what_another_device_built_is_not_found() -> None:
    """The folder in which the server looks is another one for another board, release or TensorRT."""
    others = [replace(ORIN, module="p3767-0000"), replace(ORIN, l4t="39.2.1"), replace(ORIN, tensorrt="10.16.3"), THOR]

    assert 5 == len({cache_folder(device) for device in (ORIN, *others)})


NVIDIA: Final = {
    # Qwen3 at INT4 (AWQ), batch 1, input 2048, capacity 2200: its shape, and NVIDIA's megabytes.
    "0.6B": ({"layers": 28, "embedding_length": 1024, "feed_forward_length": 3072, "heads": 16}, True, 1_889),
    "1.7B": ({"layers": 28, "embedding_length": 2048, "feed_forward_length": 6144, "heads": 16}, True, 3_234),
    "4B": ({"layers": 36, "embedding_length": 2560, "feed_forward_length": 9728, "heads": 32}, True, 4_921),
    "8B": ({"layers": 36, "embedding_length": 4096, "feed_forward_length": 12288, "heads": 32}, False, 7_880),
}


@pytest.mark.parametrize(("shape", "tied", "published_mb"), NVIDIA.values(), ids=list(NVIDIA))
def test_estimate_against_nvidias_figures(shape: dict[str, int], tied: bool, published_mb: int) -> None:
    """The estimate is never below what NVIDIA publishes for its own board, and at most a fifth above."""
    width = shape["embedding_length"]
    embeddings = 151_936 * width * (1 if tied else 2)
    matrices = shape["layers"] * width * (2 * 128 * (shape["heads"] + 8) + 3 * shape["feed_forward_length"])
    four_bits = 4.16 / 8
    stored = checkpoint(
        architecture="qwen3",
        **shape,
        kv_heads=8,
        head_length=128,
        parameters=embeddings + matrices,
        weights_bytes=int(2 * embeddings + four_bits * matrices),
        quantization="quant_method awq",
    )
    needed = ENGINE.estimate(stored, context_tokens=2200, parallel=1, options={"max_input_tokens": 2048}, device=ORIN)

    assert 1.0 <= needed.total_bytes / (published_mb * 1e6) <= 1.2
    assert (0, 0) == (needed.weights_bytes, needed.gpu_bytes), "nothing is mapped, and there is one memory"


def test_every_caller_has_a_cache_of_whole_pages() -> None:
    """One token more than a page is another page, for each caller."""
    one, more = (ENGINE.estimate(checkpoint(), context_tokens=tokens, parallel=2).total_bytes for tokens in (1024, 1025))
    page_bytes = 128 * 2 * 2 * 24 * 2 * 64

    assert 2 * page_bytes <= more - one < 3 * page_bytes


SOURCE: Final = SourceDescription(
    header=checkpoint(), weights=PurePosixPath(), files=frozenset({"config.json", "tokenizer.json", "model.safetensors"})
)
WANT: Final = Want(engine="tensorrt-edge-llm", context_tokens=2048, parallel=2)


def test_build() -> None:
    """One step on the GPU, in memory for the model and 2 GiB, for the shape that the server will ask for; the source stays."""
    made = recipe(SOURCE, WANT)
    (step,) = made.steps

    assert (
        *("/opt/venv/bin/tensorrt-edgellm-build", "--model-dir", "/source", "--engine-dir", "/out/bundle"),
        *("--components", "all"),
        *("--max-input-len", "2048", "--max-batch-size", "2", "--max-kv-cache-capacity", "2048"),
    ) == step.argv
    assert ("tensorrt-edge-llm", True, (PurePosixPath("/etc/nv_tegra_release"),)) == (step.image, step.gpu, step.host_files)
    assert SOURCE.header.weights_bytes + 2 * 2**30 == step.memory_bytes
    assert (PurePosixPath("bundle"), True, True, True) == (made.output, made.beside_source, made.one_image, made.one_device)


@pytest.mark.parametrize(
    ("source", "want", "said"),
    [
        (SOURCE, replace(WANT, quantization=Quantization.Q4_0), "serves weights as they are stored, wanted q4_0"),
        (replace(SOURCE, files=frozenset({"config.json"})), WANT, "has no tokenizer.json"),
        (
            replace(SOURCE, adapters=(Adapter(path=PurePosixPath("a"), format=AdapterFormat.PEFT, weights_bytes=1),)),
            WANT,
            "applies no adapters",
        ),
    ],
)
def test_what_cannot_be_built(source: SourceDescription, want: Want, said: str) -> None:
    """Each with what to do instead."""
    with pytest.raises(ModelError, match=said):
        recipe(source, want)


def test_fields_are_told_apart() -> None:
    """No field is both taken and left out."""
    assert not TAKEN_FIELDS & ENGINE.ignored_fields
