"""TensorRT-LLM 0.12 on an AGX Orin: where it runs, what is built of what, and that its programs take what we tell them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

import pytest

from controller import engines
from controller.device import Device
from controller.engines import tensorrt_llm_jetson
from controller.engines.builds.quantization import Quantization
from controller.engines.builds.recipe import recipe
from controller.engines.builds.values import Adapter, AdapterFormat, SourceDescription, Want
from controller.errors import ModelError
from controller.ops.recipes import recipes_for
from controller.ops.targets import ORIN, ORIN_6, ORIN_6_1
from controller.probes.device import read_device
from controller.spec import ApiPath, Mount
from controller.units import GIB
from tests.devices import NAMES, recorded
from tests.unit.test_engines import header, model, site
from tests.vendor.records import record

NAME: Final = "tensorrt-llm-jetson"
ENGINE: Final = engines.find(NAME)
CONVERT, BUILD = record("convert_checkpoint-0.12.0-jetson"), record("trtllm_build-0.12.0-jetson")


def device(name: str) -> Device:
    """Return a recorded box."""
    recording = recorded(name)
    return read_device(recording.system, recording.engine)


AGX: Final = device("agx-orin-64-jp6.1")


def checkpoint(**changes: Any) -> Any:  # noqa: ANN401
    """Describe the model as a checkpoint."""
    return header(**{"format": "safetensors", "architecture": "llama", "stored": "bf16", **changes})


SOURCE: Final = SourceDescription(
    header=checkpoint(), weights=PurePosixPath(), files=frozenset({"config.json", "tokenizer.json", "model.safetensors"})
)
WANT: Final = Want(engine=NAME, context_tokens=2000, parallel=2)


def steps(source: SourceDescription = SOURCE, **options: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return what each of the two steps is told, by the records of their programs."""
    convert, build = recipe(source, replace(WANT, options=options)).steps
    return CONVERT.parse(convert.argv[4:]), BUILD.parse(build.argv[1:])


# --- where it runs


@pytest.mark.parametrize("name", [name for name in NAMES if name != "agx-orin-64-jp6.1"])
def test_it_runs_on_one_recorded_box_alone(name: str) -> None:
    """Every other box is refused."""
    assert "a Jetson AGX Orin with JetPack 6.1" in ENGINE.refusal(device(name))
    assert "" == ENGINE.refusal(AGX, checkpoint())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"module": "p3767-0003"}, "this board is another one (p3767-0003)"),
        ({"module": ""}, "this board is another one (unknown)"),
        ({"l4t": "36.4.3"}, "this box has Jetson Linux 36.4.3"),
        ({"l4t": "36.40"}, "this box has Jetson Linux 36.40"),
        ({"l4t": "39.2.0"}, "this box has Jetson Linux 39.2.0"),
        ({"l4t": ""}, "of an unknown release"),
        ({"access": Device().access}, "no container of this box can use the GPU"),
        ({"module": "p3701-0004", "l4t": "36.4"}, ""),
    ],
)
def test_each_fault_of_a_board_is_named(changes: Mapping[str, Any], why: str) -> None:
    """Another module, another release, a container engine without the GPU."""
    said = ENGINE.refusal(replace(AGX, **changes))

    assert why in said
    assert bool(why) == bool(said)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "gguf"}, "builds from safetensors, and these weights are gguf"),
        ({"embeddings": True}, "no text generator"),
        ({"architecture": "gemma3"}, "is built here for llama and qwen2, and this is gemma3"),
        ({"quantization": "quant_method awq"}, "no other quantisation, and this has quant_method awq"),
        ({"quantization": "quant_method gptq", "architecture": "qwen2"}, "told here of GPTQ for llama"),
        ({"quantization": "quant_method gptq"}, ""),
        ({"architecture": "qwen2"}, ""),
    ],
)
def test_models_that_it_cannot_build_are_refused(changes: Mapping[str, Any], why: str) -> None:
    """Other formats, families and quantisations have other engines."""
    said = ENGINE.refusal(AGX, checkpoint(**changes))

    assert why in said
    assert bool(why) == bool(said)


# --- what is built


def test_the_records_are_of_the_branch() -> None:
    """A new branch needs new records."""
    assert {tensorrt_llm_jetson.VERSION} == {one.raw["version"] for one in (CONVERT, BUILD)}


def test_both_steps_are_told_what_their_programs_take() -> None:
    """The converter writes what the builder reads, and the engine is built for the shape that the server will ask for."""
    convert, build = steps()

    assert {"--model_dir": "/source", "--output_dir": "/out/checkpoint", "--dtype": "float16"} == convert
    assert {
        "--checkpoint_dir": "/out/checkpoint",
        "--output_dir": "/out/engine",
        "--gpt_attention_plugin": "float16",
        "--gemm_plugin": "float16",
        "--max_batch_size": "2",
        "--max_input_len": "2000",
        "--max_seq_len": "2000",
        "--max_num_tokens": "2000",
    } == build


@pytest.mark.parametrize(
    ("quantization", "weights", "told"),
    [
        ("", "int8", {"--use_weight_only": "true", "--weight_only_precision": "int8"}),
        ("", "int4", {"--use_weight_only": "true", "--weight_only_precision": "int4"}),
        (
            "quant_method gptq",
            "float16",
            {"--use_weight_only": "true", "--weight_only_precision": "int4_gptq", "--per_group": "true"},
        ),
    ],
)
def test_weights_are_stored_as_the_option_says(quantization: str, weights: str, told: Mapping[str, str]) -> None:
    """What is quantised already stays so."""
    convert, _ = steps(replace(SOURCE, header=checkpoint(quantization=quantization)), weights=weights)

    assert told == {name: value for name, value in convert.items() if name not in ("--model_dir", "--output_dir", "--dtype")}


def test_the_build_is_two_steps_on_the_gpu_and_keeps_the_source() -> None:
    """The engine file has no tokenizer; the branch's checkpoint is scratch."""
    made = recipe(replace(SOURCE, header=checkpoint(architecture="qwen2")), WANT)

    assert ("python3", "-m", "trt.convert", "qwen") == made.steps[0].argv[:4]
    assert [(NAME, True), (NAME, True)] == [(step.image, step.gpu) for step in made.steps]
    assert (PurePosixPath("engine"), True, True) == (made.output, made.beside_source, made.one_image)
    assert made.scratch_bytes > 0


@pytest.mark.parametrize(
    ("source", "want", "said"),
    [
        (SOURCE, replace(WANT, quantization=Quantization.Q4_0), "as its option `weights` says, wanted q4_0"),
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


# --- what serves it


def test_its_worker_sees_the_engine_file_and_the_checkpoint() -> None:
    """The server is told of the checkpoint, and the GPU is the board's."""
    one = replace(model(engine=NAME), api_paths=frozenset({ApiPath.CHAT, ApiPath.COMPLETIONS}))
    worker = ENGINE.worker(one, replace(site(), device=AGX))

    assert Mount(source=one.weights_folder, target=PurePosixPath("/source"), read_only=True) == worker.mounts[-1]
    assert "/source" == worker.argv[worker.argv.index("--model") + 1]
    assert ("chat,completions", "cuda") == tuple(worker.argv[worker.argv.index(name) + 1] for name in ("--api", "--device"))
    assert (AGX.requests(), AGX.gpu_groups) == (worker.devices, worker.groups)


def test_it_is_close_to_the_published_figure() -> None:
    """Llama 3 8B with INT4 and a mapped file takes 7.3 GB, says NVIDIA; the estimate is not below it, and not far above."""
    llama = checkpoint(
        layers=32, embedding_length=4096, feed_forward_length=14336, heads=32, kv_heads=8, head_length=128, vocabulary=128256,
        parameters=8_030_000_000, weights_bytes=16_060_000_000,
    )  # fmt: skip
    needed = ENGINE.estimate(llama, context_tokens=974, parallel=1, options={"weights": "int4"}, device=AGX)

    assert 1.0 <= needed.total_bytes / 7.3e9 <= 1.45
    assert (0, 0) == (needed.weights_bytes, needed.gpu_bytes), "nothing can be dropped, and there is one memory"


def test_every_caller_has_a_cache_of_whole_blocks() -> None:
    """One token more than a block is another block, for each caller."""
    one, more = (ENGINE.estimate(checkpoint(), context_tokens=tokens, parallel=2).total_bytes for tokens in (1024, 1025))
    block_bytes = 64 * 2 * 2 * 24 * 2 * 64

    assert 2 * block_bytes <= more - one < 3 * block_bytes


def test_fewer_bits_take_less() -> None:
    """The layers' weights shrink, embedding and output matrix do not."""
    full, eight, four = (
        tensorrt_llm_jetson.engine_bytes(checkpoint(), {"weights": name}) for name in ("float16", "int8", "int4")
    )

    assert full > eight > four > 2 * checkpoint().vocabulary * checkpoint().embedding_length
    assert four < GIB


def test_its_image_is_made_for_one_release() -> None:
    """The branch is for JetPack 6.1 alone."""
    assert [False, False, True] == [NAME in recipes_for(target) for target in (ORIN, ORIN_6, ORIN_6_1)]
